"""thinktalk eval: what a model can do, measured by judges it never learned with, as a table with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from thinktalk.cli import options
from thinktalk.errors import ConfigError, InputError, WeightsError

if TYPE_CHECKING:
    from thinktalk.eval.bench import Bench
    from thinktalk.eval.heldout import HeldOut
    from thinktalk.eval.rows import Row

__all__ = ["add_arguments", "run"]

QUICK = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", choices=("nano",), help="what is asked")
    options.add_model(parser)
    parser.add_argument("--rows", metavar="A,B", help="only these abilities (default: all; a wrong name lists them)")  # fmt: skip
    parser.add_argument("--n", type=options.positive, default=300, metavar="N", help="most items a row (default 300)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} items a row, one listener")
    parser.add_argument("--out", default="out/eval", metavar="DIR", help="where results go, a line an item: the same command goes on after a stop (default out/eval)")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="where held-out sets are kept (default OUT/data)")  # fmt: skip
    parser.add_argument("--make-data", action="store_true", help="make the spoken held-out sets, and end")  # fmt: skip
    parser.add_argument("--no-make", action="store_true", help="make none: measure on as much as there is")  # fmt: skip
    parser.add_argument("--engine", choices=("kokoro", "espeak", "flite"), default="kokoro", help="who speaks in them (default kokoro)")  # fmt: skip
    parser.add_argument("--jobs", type=options.positive, default=1, metavar="N", help="processes that make them (default 1)")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="where packages are kept (default ~/.cache/thinktalk)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of answers and intervals")  # fmt: skip
    parser.add_argument("--write", metavar="FILE.md", help="write the table into this page, too")
    parser.add_argument("--against", metavar="REPORT.json", help="compare with a report of before, item by item")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from thinktalk.eval import report
    from thinktalk.eval.heldout import HeldOut

    n = QUICK if args.quick else args.n
    held = HeldOut(
        folder=Path(args.data or Path(args.out) / "data"), n=n, engine=args.engine, make=not args.no_make,
        jobs=args.jobs, cache=args.cache, watch=_say,
    )  # fmt: skip
    if args.make_data:
        return _make(held, json_wanted=args.json)
    chosen = _chosen(args)
    before = report.load(Path(args.against))[0] if args.against else None
    bench = _bench(args, held, n)
    rows = list(_measured(bench, args.suite, chosen))
    about = _about(args, bench)
    out = bench.out / f"{args.suite}.json"
    report.save(out, rows, about)
    if args.write:
        report.write(Path(args.write), rows, about=about, figures=bench.out / "figures")
    print(out.read_text() if args.json else report.table(rows, about=about))
    if before is not None:
        from thinktalk.eval import compare

        print(compare.table(before, rows), file=sys.stderr if args.json else sys.stdout)
    return 0


def _make(held: HeldOut, *, json_wanted: bool) -> int:
    """The spoken sets, those that are quick to make first."""
    counts = {
        "human": len(held.human()),
        "dialogues": len(held.dialogues()),
        "sentences test": len(held.sentences("test")),
        "sentences dev": len(held.sentences("dev")),
    }
    lines = [f"{name:<16}{count:>6} samples" for name, count in counts.items()]
    print(json.dumps(counts) if json_wanted else "\n".join(lines))
    return 0


def _chosen(args: argparse.Namespace) -> list[str]:
    """The abilities that are measured. ConfigError names those there are."""
    from thinktalk.eval.suites import abilities

    have = list(abilities(args.suite))
    wanted = [name.strip() for name in args.rows.split(",")] if args.rows else have
    if unknown := [name for name in wanted if name not in have]:
        raise ConfigError(f"--rows {unknown[0]!r}: is unknown; have {', '.join(have)}")
    return [name for name in have if name in wanted]


def _bench(args: argparse.Namespace, held: HeldOut, n: int) -> Bench:
    from thinktalk.eval.bench import Bench, weights_sum
    from thinktalk.eval.judges import Judges

    omni = options.load_model(args)
    if omni.directory is None or not omni.can_speak:
        raise WeightsError(f"{args.model}: has no Talker and code2wav, expected a model that speaks; choose another")  # fmt: skip
    bench = Bench(
        omni=omni, model=str(args.model), sum=weights_sum(omni.directory, dtype=args.dtype), held=held, dtype=args.dtype,
        out=Path(args.out), judges=Judges(args.cache), n=n, seed=args.seed, watch=_say,
    )  # fmt: skip
    if args.quick:
        bench.listeners = bench.listeners[:1]
    return bench


def _measured(bench: Bench, suite: str, chosen: list[str]) -> Iterator[Row]:
    """The rows of each ability; one that cannot be measured here says why, and the others go on."""
    from thinktalk.eval.rows import Row
    from thinktalk.eval.suites import abilities

    for name, ability in abilities(suite).items():
        if name not in chosen:
            continue
        _say(f"== {name}")
        try:
            yield from ability(bench)
        except (InputError, ConfigError) as error:
            yield Row(key=name, title=(ability.__doc__ or name).partition("\n")[0], missing=str(error))  # fmt: skip


def _about(args: argparse.Namespace, bench: Bench) -> dict[str, str]:
    """What the table belongs to."""
    return {
        "model": str(args.model),
        "weights": bench.sum,
        "precision": args.dtype or "as stored",
        "items a row": f"at most {bench.n}",
        "held-out speech": args.engine,
        "seed": str(args.seed),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
