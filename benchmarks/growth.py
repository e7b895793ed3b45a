"""How cost grows: with what is heard, with how long the answer is, with how many talk at once. Tables, one JSON line, plots.

    python benchmarks/growth.py [--quick] [--size nano|tiny|DIRECTORY] [--only input]... [--plot docs/img]

    input      S seconds of sound, no text, a short answer: what is left to do when the question ends, and the work of listening
    answer     a typed question, S seconds of answer: the wait for the first sound, and the work of each kind of step
    sessions   N conversations at once: what a token and a second of sound cost each

One thread, processor time (so that other work on the machine hardly counts), random weights unless a directory is named:
speed does not depend on them. The flow takes two points by Euler's method; a step of four would take its multiple.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plot import line_chart  # this file's folder is on the path of a script
from streaming import cfg, engine_of, with_random_weights

import thinktalk
from thinktalk.engine.measure import Question, babble, latency, load
from thinktalk.omni import Omni

__all__ = ["AXES", "Point", "main"]

FLOW = dict(points=2, method="euler")
SHORT_S = 0.5


@dataclass(frozen=True)
class Point:
    """One figure at one place of an axis."""

    axis: str
    x: float
    name: str
    value: float
    unit: str = "ms"


def by_input(omni: Omni, quick: bool) -> Iterator[Point]:
    """seconds heard before the answer"""
    for seconds in (1, 4, 16) if quick else (1, 4, 16, 60, 240):
        question = Question(text="", sound=babble(seconds), seconds=SHORT_S, **FLOW)
        waits = latency(engine_of(omni), question, turns=1 if quick else 3)
        told = waits.as_json()
        yield Point("input", seconds, "end of the question to first token", told["input_ms"])
        yield Point("input", seconds, "end of the question to first sound", told["first_sound_ms"])
        yield Point("input", seconds, "work of listening in all", 1e3 * seconds * (waits.listening or 0))  # fmt: skip


def by_answer(omni: Omni, quick: bool) -> Iterator[Point]:
    """seconds of answer"""
    for seconds in (0.5, 1, 2, 4) if quick else (0.5, 1, 2, 4, 8, 16, 32):
        told = latency(engine_of(omni), Question(seconds=seconds, **FLOW), turns=1 if quick else 3).as_json()  # fmt: skip
        made = told["seconds"]
        yield Point("answer", seconds, "first sound", told["first_sound_ms"])
        yield Point("answer", seconds, "last sound, a second of answer", told["total_ms"] / made)
        for kind, what in (("THINK", "Thinker"), ("TALK", "Talker"), ("SOUND", "code2wav")):
            if told["work_ms"].get(kind):
                yield Point("answer", seconds, f"{what}, a second of answer", told["work_ms"][kind] / made)  # fmt: skip


def by_sessions(omni: Omni, quick: bool) -> Iterator[Point]:
    """conversations at once"""
    for count in (1, 2, 4) if quick else (1, 2, 4, 8, 16, 32):
        began = time.process_time()
        many = load(engine_of(omni), Question(seconds=2 * SHORT_S, **FLOW), sessions=count, spread_s=0)  # fmt: skip
        spent = 1e3 * (time.process_time() - began)
        sound = sum(reply.seconds for reply in many.replies)
        yield Point("sessions", count, "Thinker and Talker, a token", 1e3 / many.tokens_per_s)
        yield Point("sessions", count, "everything, a second of sound", spent / sound)


AXES: dict[str, Callable[[Omni, bool], Iterator[Point]]] = {
    "input": by_input,
    "answer": by_answer,
    "sessions": by_sessions,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter")
    parser.add_argument("--size", default="nano", help="nano or tiny (random weights), or a checkpoint's directory")  # fmt: skip
    parser.add_argument("--only", action="append", choices=list(AXES), help=", ".join(AXES))
    parser.add_argument("--plot", metavar="DIR", help="write growth_AXIS.svg there")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    shapes = {"nano": cfg.nano, "tiny": cfg.tiny}
    omni = with_random_weights(shapes[args.size]()) if args.size in shapes else thinktalk.load(args.size)  # fmt: skip
    points: list[Point] = []
    for axis in args.only or AXES:
        own = list(AXES[axis](omni, args.quick))
        points += own
        print(f"\n{args.size}, by {AXES[axis].__doc__}", *table(own), sep="\n", flush=True)
        if args.plot:
            draw(Path(args.plot) / f"growth_{axis}.svg", own, AXES[axis].__doc__ or axis, args.size)
    print(json.dumps({"benchmark": f"growth, {args.size}", "points": [asdict(p) for p in points]}))
    return 0


def table(points: Sequence[Point]) -> list[str]:
    """A line a figure, a column a place of the axis."""
    places = list(dict.fromkeys(p.x for p in points))
    lines = [f"{'':<44}" + "".join(f"{x:>10g}" for x in places)]
    for name, values in _series(points).items():
        lines.append(f"{name + ', ms':<44}" + "".join(f"{value:>10.2f}" for value in values))
    return lines


def draw(path: Path, points: Sequence[Point], about: str, size: str) -> None:
    """A line a figure."""
    ticks = [f"{x:g}" for x in dict.fromkeys(p.x for p in points)]
    line_chart(path, title=f"Cost by {about} ({size.removeprefix('growth, ')}, one thread)", x_label=about, y_label="ms of processor time", ticks=ticks, series=_series(points))  # fmt: skip


def _series(points: Sequence[Point]) -> dict[str, list[float]]:
    names = dict.fromkeys(p.name for p in points)
    return {name: [p.value for p in points if p.name == name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
