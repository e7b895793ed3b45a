"""OmniBench: a picture, a sound and a question about both, with four answers -> how often the right one is chosen.

    OmniBench/data/*.parquet                                             as m-a-p/OmniBench has it
    OmniBench/dataset/batch-*.jsonl, mm_data/audio, mm_data/image        as the authors' repository has it

Asked as the authors do: the picture, the sound, then the question with its answers. `omnibench~picture only` and
`omnibench~sound only` are the same questions with one of the two taken away: what both together bring is the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.items import Result
from thinktalk.eval.public.asking import Ask, answered, told
from thinktalk.eval.public.scoring import choose, lettered
from thinktalk.eval.public.sets import Parquet, need
from thinktalk.eval.rows import Row

__all__ = ["ABILITIES", "asks_of", "omnibench"]

COLUMNS = ("index", "audio type", "question", "options", "answer")
KINDS = {"speech": "speech", "sound": "sound", "music": "music"}
WORDS = "Answer the question about the picture and the sound with the letter of one of the options.\n{}\n{}"


def omnibench(bench: Bench) -> Iterator[Row]:
    """OmniBench: questions about a picture and a sound together that are answered rightly."""
    asks = asks_of(bench.data)
    choices = {ask.key: ask.more["choices"] for ask in asks}
    arms = {
        "": asks,
        "~picture only": [replace(ask, sound=None) for ask in asks],
        "~sound only": [replace(ask, picture=None) for ask in asks],
    }
    for arm, asked in arms.items():
        results = answered(bench, f"omnibench{arm}".replace(" ", "_"), asked)
        groups = dict.fromkeys(ask.group for ask in asks) if not arm else ()
        for group in ("", *groups):
            part = [r for r in results if group in ("", r["group"])]
            if part:
                key = f"omnibench/{group}{arm}" if group else f"omnibench{arm}"
                yield _row(bench, key, group, part, choices)


def _row(bench: Bench, key: str, group: str, results: Sequence[Result], choices: dict[str, list[str]]) -> Row:  # fmt: skip
    picks = [choose(r.get("said", ""), choices[r["key"]]) for r in results]
    right = [pick is not None and choices[r["key"]][pick] == r["text"] for r, pick in zip(results, picks, strict=True)]  # fmt: skip
    lost = picks.count(None)
    return Row(
        title=f"accuracy, OmniBench{f': {group}' if group else ''}",
        tops=[float(r) for r in right],
        chance=sum(1 / len(choices[r["key"]]) for r in results) / len(results),
        judge="the letter, else the words of one choice",
        note=f"no choice was found in {lost} of {len(results)} answers" if lost else "",
        **told(bench, key, results),
    )


def asks_of(data: Path) -> list[Ask]:
    """The questions of the set under DIR. Errors: InputError (it is not there, or is another set)."""
    path = need(
        data, "OmniBench/data/*.parquet", "OmniBench/*.parquet", "OmniBench/dataset/batch-*.jsonl",
        what="OmniBench", fetch="the data set m-a-p/OmniBench",
    )  # fmt: skip
    try:
        if path.suffix == ".jsonl":
            media = path.parent.parent / "mm_data"
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]  # fmt: skip
            return [
                _ask(row, partial(str, media / "audio" / row["audio_path"]), partial(str, media / "image" / row["image_path"]))
                for row in rows
            ]  # fmt: skip
        found = []
        for file in sorted(path.parent.glob("*.parquet")):
            sounds, pictures = Parquet(file), Parquet(file, audio="image")
            rows = sounds.rows(COLUMNS)
            found += [_ask(row, partial(sounds.sound, n), partial(pictures.sound, n)) for n, row in enumerate(rows)]  # fmt: skip
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not OmniBench's ({error!r}), expected {', '.join(COLUMNS)} and its media; fetch it again") from None  # fmt: skip


def _ask(row: dict[str, Any], sound: Any, picture: Any) -> Ask:
    options = [str(option) for option in row["options"]]
    if row["answer"] not in options:
        raise ValueError(f"answer of question {row['index']} is none of its options")
    kind = str(row["audio type"]).lower().split()[0]
    return Ask(
        key=str(row["index"]), target=row["answer"], sound=sound, picture=picture, group=KINDS[kind],
        question=WORDS.format(row["question"], lettered(options)), more={"choices": options},
    )  # fmt: skip


ABILITIES = {"omnibench": omnibench}
