"""Answers: the spoken answer of a dialogue, read as if it were a spoken sample of its own.

    {"messages": [..., {"role": "assistant", "content": TEXT}], "answer_voice", "answer_seconds", "answer_codes"} + answer.opus
    -> {"text": TEXT, "voice", "seconds", "codes"} + opus

What makes and hears speech learns from answers as from any recording; what answers, learns the whole dialogue.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thinktalk.data.mixture import Source
from thinktalk.data.samples import ANSWER
from thinktalk.data.shards import Entry
from thinktalk.errors import InputError

__all__ = ["Answer", "Answers", "answer_of", "spoken_sources"]

OWN = "answer_"
"""How a record's fields about the answer begin."""


@dataclass(frozen=True, slots=True)
class Answer(Entry):
    """A dialogue of which only the spoken answer is read."""

    @property
    def where(self) -> str:
        """Shard, key and "answer"."""
        return f"{self.shard}/{self.key}.{OWN.rstrip('_')}"

    def read(self, *names: str) -> dict[str, bytes]:
        """Its record and its sound, under the names that a spoken sample has."""
        inner = {m.name.removeprefix(ANSWER): m.name for m in self.members if m.name.startswith(ANSWER)}  # fmt: skip
        wanted = [own for short, own in inner.items() if not names or short in names]
        content = Entry.read(self, "json", *wanted)
        try:
            record = answer_of(json.loads(content["json"]))
        except (ValueError, AttributeError, TypeError, KeyError):
            return {"json": content["json"]}  # check_record says what is wrong with it
        read = {short: content[own] for short, own in inner.items() if own in content}
        return {"json": json.dumps(record, ensure_ascii=False).encode(), **read}


def answer_of(record: dict[str, Any]) -> dict[str, Any]:
    """The record of the answer alone: its own fields without their beginning, and what the last assistant message says."""
    own = {key.removeprefix(OWN): value for key, value in record.items() if key.startswith(OWN)}
    shared = {key: record[key] for key in ("source", "language", "codes_by") if key in record}
    said = next((m["content"] for m in reversed(record.get("messages", ())) if m["role"] == "assistant"), "")  # fmt: skip
    if not isinstance(said, str):
        said = " ".join(part["text"] for part in said if part.get("type") == "text")
    return {**shared, "text": said, **own}


class Answers(Source):
    """The spoken answers of some shards; each costs its seconds. Arguments and errors are Source's."""

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        weight: float = 1.0,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        shuffle: bool = True,
    ):
        def kept(record: dict[str, Any]) -> bool:
            spoken = bool(record.get("answer_seconds")) and bool(record.get("answer_voice"))
            return spoken and (keep is None or keep(answer_of(record)))

        super().__init__(paths, weight=weight, measure=lambda r: float(r["answer_seconds"]), keep=kept, shuffle=shuffle)  # fmt: skip
        self.entries = [Answer(e.shard, e.key, e.members) for e in self.entries]


def spoken_sources(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    keep: Callable[[dict[str, Any]], bool] | None = None,
) -> list[Source]:
    """All speech of some shards, what is heard and what is answered, every second of it as often as any other.

    Samples that do not say who speaks or what is said are no speech. `keep` asks the record (of an answer: its own).
    Errors: InputError where there is no speech.
    """

    def speech(record: dict[str, Any]) -> bool:
        told = bool(record.get("text")) and bool(record.get("seconds"))
        return told and (keep is None or keep(record))

    found: list[Source] = []
    reasons: list[InputError] = []
    for make in (lambda: Source(paths, keep=speech), lambda: Answers(paths, keep=keep)):
        try:
            source = make()
        except InputError as error:
            reasons.append(error)
            continue
        source.weight = float(source.costs.sum())
        found.append(source)
    if not found:
        raise reasons[0]
    return found
