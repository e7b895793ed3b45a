"""Asks a model all that is in asked/ and says what is right. Run: python examples/ask.py [MODEL]"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import thinktalk
from thinktalk.eval.marking import Mark, mark
from thinktalk.omni import Omni

HERE = Path(__file__).parent / "asked"


def main() -> None:
    """One line a question."""
    omni = thinktalk.load(*sys.argv[1:2], parts=("thinker",))
    right = 0
    told = json.loads((HERE / "asked.json").read_text(encoding="utf-8"))
    for one in told:
        said = ask(omni, one)
        good = marked(one, said).right
        right += good
        print(f"{'right' if good else 'WRONG':<6} {one['file']:<24} {one['ask'] or one['said']:<58} {said}")  # fmt: skip
    print(f"{right} of {len(told)} right")


def messages(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The question with its file."""
    content: list[dict[str, Any]] = [{"type": one["kind"], one["kind"]: str(HERE / one["file"])}]
    content += [{"type": "text", "text": one["ask"]}] if one["ask"] else []
    return [{"role": "user", "content": content}]


def ask(omni: Omni, one: dict[str, Any]) -> str:
    """What the model writes."""
    return omni.chat(messages(one), speech=False, greedy=True, max_text_tokens=48).text.strip()


def marked(one: dict[str, Any], said: str) -> Mark:
    """Right by the words that decide."""
    things = [one["answer"].removeprefix("This is a ").removeprefix("This is an ").rstrip(".")]
    return mark(one["task"], one["ask"] or one["said"], one["answer"], said, names=things)


if __name__ == "__main__":
    main()
