"""The server against the engine in it: first text, first sound, real-time factor, underruns, and what the server adds to them.

    python benchmarks/serve.py [--model nano|tiny|DIRECTORY] [--sessions 1 2 4 8 16] [--doc docs/server_speed.md]

Three doors to one model, in turns: `engine` (Sessions in threads of this process), `chat` (streamed /v1/chat/completions) and
`realtime` (a WebSocket each), the latter two of `thinktalk serve` in a process of its own. Everybody asks at the same moment.

What a door adds is measured within each answer: the wait for the first sound, as its listener has it, less the wait that the
answer's own ledger has (from the wish at the engine to the sound leaving it). So it does not matter that a busy machine makes
every answer differ. The server's overhead is what its door adds less what the engine's door adds. Prints a table, then JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch starts its threads
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other core is the clients'
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))

from doors import Heard, by_chat, by_engine, by_realtime, leave, together
from serving import Server, serving

from thinktalk import config as cfg
from thinktalk import load
from thinktalk.engine import Engine
from thinktalk.omni import Omni
from thinktalk.pipeline import Options
from thinktalk.weights.random import random_checkpoint

TOKENS_PER_S = 4
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass
class Row:
    """One door, so many at once; medians over all answers, milliseconds."""

    door: str
    sessions: int
    answers: int
    first_text_ms: float
    first_sound_ms: float
    real_time_factor: float
    underruns: int
    added_ms: float
    """By the door, to the first sound."""
    overhead_ms: float | None = None
    """Of that, what the engine's own door does not add."""


def row_of(door: str, sessions: int, heard: Sequence[Heard], engine: Row | None) -> Row:
    spoken = [one for one in heard if one.sounds]
    middle = lambda figures: round(statistics.median(figures), 2)  # noqa: E731
    added = middle(one.added_ms for one in spoken)
    return Row(
        door, sessions, len(heard), middle(1e3 * one.text_s for one in heard if one.text_s), middle(1e3 * one.first_s for one in spoken),
        middle(one.factor for one in spoken), sum(one.underruns for one in spoken), added,
        None if engine is None else round(added - engine.added_ms, 2),
    )  # fmt: skip


def measure(server: Server, omni: Omni, options: Options, counts: Sequence[int], least: int) -> Iterator[Row]:  # fmt: skip
    """For each number of sessions a row of each door."""
    with Engine(omni.model, omni.tokenizer) as engine:
        doors: dict[str, Callable[[int], list[Heard]]] = {
            "engine": partial(by_engine, engine, options),
            "chat": partial(together, partial(by_chat, server)),
            "realtime": partial(together, partial(by_realtime, server)),
        }
        for door in doors.values():
            door(1)  # warm
        for sessions in counts:
            heard: dict[str, list[Heard]] = {name: [] for name in doors}
            while len(heard["engine"]) < max(least, sessions):
                for name, door in doors.items():
                    heard[name] += door(sessions)
            first: Row | None = None
            for name, answers in heard.items():
                row = row_of(name, sessions, answers, first)
                first = first or row
                yield row


def table(rows: Sequence[Row], freed: dict[int, list[float]]) -> str:
    lines = ["| at once | door | first text, ms | first sound, ms | real-time factor | underruns | added, ms | overhead, ms |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        over = "" if row.overhead_ms is None else f"{row.overhead_ms:.1f}"
        lines.append(f"| {row.sessions} | {row.door} | {row.first_text_ms:.0f} | {row.first_sound_ms:.0f} | {row.real_time_factor:.2f} | {row.underruns} in {row.answers} answers | {row.added_ms:.1f} | {over} |")  # fmt: skip
    lines.append("")
    for clients, ms in freed.items():
        lines.append(f"A seat is free again after its client has hung up, {clients} speaking: {statistics.median(ms):.0f} ms (at most {max(ms):.0f}, {len(ms)} tries).")  # fmt: skip
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put the figures into a page, between their marks."""
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{page}: expected {BEGIN} and {END}; write them where the figures belong")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


@contextlib.contextmanager
def checkpoint(name: str) -> Iterator[str]:
    """A directory with the model; `nano` and `tiny` are made with random weights: speed does not depend on them."""
    if name not in ("nano", "tiny"):
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(random_checkpoint(getattr(cfg, name)(), Path(folder) / name))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where told; the exit status says whether the overhead was below 10 ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--model", default="nano", help="nano or tiny (random weights), or a checkpoint's directory"
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=2.0, help="longest answer")
    parser.add_argument("--answers", type=int, default=8, help="least number for a row")
    parser.add_argument("--points", type=int, default=4, help="of the flow's walk")
    parser.add_argument("--method", default="midpoint", help="its solver")
    parser.add_argument("--doc", type=Path, help="a page to write the figures into")
    args = parser.parse_args(argv)
    with checkpoint(args.model) as folder:
        omni = load(folder)
        codes = round(args.seconds * float(omni.config.code2wav.codes_per_second))
        tokens = max(2, round(args.seconds * TOKENS_PER_S))
        told = {"--max-codes": codes, "--max-text-tokens": tokens, "--flow-points": args.points, "--flow-method": args.method, "--log-level": "warning"}  # fmt: skip
        words = [str(word) for pair in told.items() for word in pair]
        generation = replace(omni.config.generation, max_text_tokens=tokens, max_codes=codes, flow_points=args.points, flow_method=args.method)  # fmt: skip
        options = Options(generation=generation)
        with serving(folder, *words, log=Path(folder).parent / "serve.log") as server:
            rows = []
            for row in measure(server, omni, options, args.sessions, args.answers):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
        words[1] = str(60 * codes)  # so that nobody's answer has ended when one leaves
        freed: dict[int, list[float]] = {}
        with serving(folder, *words, log=Path(folder).parent / "serve.log") as server:
            for clients in (1, 8):
                freed[clients] = [asyncio.run(leave(server, clients)) for _ in range(5)]
    text = table(rows, freed)
    print(text)
    print(json.dumps({"benchmark": "serve", "rows": [asdict(row) for row in rows], "freed_ms": freed}))  # fmt: skip
    if args.doc:
        write(args.doc, text)
    return int(any((row.overhead_ms or 0) > 10 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
