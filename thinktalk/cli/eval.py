"""thinktalk eval: what a model can do, measured by judges it never learned with, as a table with intervals."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinktalk.cli import conformance, options
from thinktalk.errors import ConfigError, InputError, WeightsError

if TYPE_CHECKING:
    from thinktalk.eval.bench import Bench
    from thinktalk.eval.heldout import HeldOut
    from thinktalk.eval.rows import Row
    from thinktalk.eval.sharing import Share
    from thinktalk.eval.suites import Ability

__all__ = ["add_arguments", "run"]

QUICK, MOST = 20, 300
OWN = {"nano", "ablations"}
"""Suites of held-out sets that are made here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", nargs="+", metavar="SUITE", help="nano, ablations, conformance, or published sets by name (docs/evaluation.md)")  # fmt: skip
    options.add_model(parser)
    parser.add_argument("--rows", "--only", metavar="A,B=N", help="only these abilities, each with its own number of items if one stands behind it (default: all; a wrong name lists them)")  # fmt: skip
    parser.add_argument("--n", type=options.positive, default=None, metavar="N", help=f"most items a row (default {MOST}; of published sets all)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} items a row, one listener")
    parser.add_argument("--out", default="out/eval", metavar="DIR", help="where results go, a line an item: the same command goes on after a stop (default out/eval)")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="where held-out and published sets are kept (default OUT/data)")  # fmt: skip
    parser.add_argument("--batch", type=options.positive, default=1, metavar="N", help="items of published sets answered together (default 1)")  # fmt: skip
    parser.add_argument("--ask", metavar="TEXT", help="asked with each sound of published sets instead of their own question")  # fmt: skip
    parser.add_argument("--listen", metavar="A,B", help="who hears what is spoken, the first for the table (a wrong name lists them)")  # fmt: skip
    parser.add_argument("--alike", metavar="NAME", default="resemblyzer", help="who tells voices apart: resemblyzer (default), or wavlm:FILE, the network of Seed-TTS-eval")  # fmt: skip
    parser.add_argument("--make-data", action="store_true", help="make the spoken held-out sets, and end")  # fmt: skip
    parser.add_argument("--no-make", action="store_true", help="make none: measure on as much as there is")  # fmt: skip
    parser.add_argument("--engine", choices=("kokoro", "espeak", "flite", "talker"), default="kokoro", help="who speaks in them (default kokoro); talker: the model itself, for spoken questions only")  # fmt: skip
    parser.add_argument("--jobs", type=options.positive, default=1, metavar="N", help="processes that make them (default 1)")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="where packages are kept (default ~/.cache/thinktalk)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of answers and intervals")  # fmt: skip
    parser.add_argument("--write", metavar="FILE.md", help="write the table into this page, too")
    parser.add_argument("--against", metavar="REPORT.json", help="compare with a report of before, item by item")  # fmt: skip
    conformance.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if "conformance" in args.suite:  # laws, not figures: neither model nor items
        if len(args.suite) > 1:
            raise ConfigError(f"eval {' '.join(args.suite)}: conformance has no figures to stand beside others; run it alone")  # fmt: skip
        return conformance.run(args)
    from thinktalk.eval import page, report
    from thinktalk.eval.heldout import HeldOut
    from thinktalk.eval.public import ALL
    from thinktalk.eval.sharing import Share

    counts = _counts(args)
    chosen, share = _chosen(args, counts), Share.of_environment()
    n = QUICK if args.quick else args.n or (MOST if OWN & set(args.suite) else ALL)
    held = HeldOut(
        folder=Path(args.data or Path(args.out) / "data"), n=n, engine=args.engine, make=not args.no_make,
        jobs=args.jobs, cache=args.cache, watch=_say,
    )  # fmt: skip
    if args.make_data:
        return _make(held, json_wanted=args.json)
    before = report.load(Path(args.against)) if args.against else None
    bench = _bench(args, held, n, share)
    rows = list(_measured(bench, chosen, counts))
    if not share.leads:
        return 0  # the first process has the results of all
    about = _about(args, bench, counts)
    out = bench.out / f"{'+'.join(args.suite).replace('/', '-')}.json"
    report.save(out, rows, about)
    page.write_page(out.with_suffix(".html"), rows, about, folder=bench.out, before=before)
    if args.write:
        report.write(Path(args.write), rows, about=about, figures=bench.out / "figures")
    print(out.read_text() if args.json else report.table(rows, about=about))
    if before is not None:
        from thinktalk.eval import compare

        print(compare.table(before[0], rows), file=sys.stderr if args.json else sys.stdout)
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


def _chosen(args: argparse.Namespace, counts: dict[str, int | None]) -> dict[str, Ability]:
    """The abilities that are measured, by name. ConfigError names those there are."""
    from thinktalk.eval import suites

    have: dict[str, Ability] = {}
    for name in args.suite:
        have |= suites.abilities(name)
    if unknown := [name for name in counts if name not in have]:
        raise ConfigError(f"--rows {unknown[0]!r}: is unknown; have {', '.join(have)}")
    return {name: have[name] for name in have if not counts or name in counts}


def _counts(args: argparse.Namespace) -> dict[str, int | None]:
    """ "--rows hear,video=100" as abilities and most items of each, None where none are told. Errors: ConfigError."""
    counts: dict[str, int | None] = {}
    for told in args.rows.split(",") if args.rows else ():
        name, equals, count = (part.strip() for part in told.partition("="))
        if equals and not (count.isdecimal() and int(count)):
            raise ConfigError(f"--rows {told!r}: expected a number of items behind the =, such as video=100")  # fmt: skip
        counts[name] = int(count) if equals else None
    return counts


def _bench(args: argparse.Namespace, held: HeldOut, n: int, share: Share) -> Bench:
    from thinktalk.eval.bench import Bench, weights_sums
    from thinktalk.eval.judges import Judges

    judges = Judges(args.cache, alike=args.alike)
    listeners = [name.strip() for name in args.listen.split(",")] if args.listen else []
    for name in listeners:
        judges.check(name)
    if share.world > 1 and args.device == "cuda":
        args.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    omni = options.load_model(args)
    if "nano" in args.suite and (omni.directory is None or not omni.can_speak):
        raise WeightsError(f"{args.model}: has no Talker and code2wav, expected a model that speaks; choose another")  # fmt: skip
    assert omni.directory is not None
    sums = weights_sums(omni.directory, dtype=args.dtype)
    bench = Bench(
        omni=omni, model=str(args.model), sum=sums[""], sums=sums, held=held, dtype=args.dtype,
        out=Path(args.out), judges=judges, n=n, seed=args.seed, watch=_say,
        batch=args.batch, question=args.ask, share=share,
    )  # fmt: skip
    if listeners:
        bench.listeners = tuple(listeners)
    elif args.quick:
        bench.listeners = bench.listeners[:1]
    return bench


def _measured(bench: Bench, chosen: dict[str, Ability], counts: dict[str, int | None]) -> Iterator[Row]:  # fmt: skip
    """The rows of each ability; one that cannot be measured here says why, and the others go on."""
    from thinktalk.eval.rows import Row

    for name, ability in chosen.items():
        _say(f"== {name}")
        n = counts.get(name) or bench.n
        try:
            yield from ability(replace(bench, n=n, held=replace(bench.held, n=n)))
        except (InputError, ConfigError) as error:
            yield Row(key=name, title=(ability.__doc__ or name).partition("\n")[0], missing=str(error))  # fmt: skip


def _about(args: argparse.Namespace, bench: Bench, counts: dict[str, int | None]) -> dict[str, str]:
    """What the table belongs to."""
    from thinktalk.eval.provenance import provenance
    from thinktalk.eval.public import ALL

    most = "all" if bench.n == ALL else f"at most {bench.n}"
    return {
        "model": str(args.model),
        "weights": bench.sum,
        "precision": args.dtype or "as stored",
        "items a row": "; ".join([most, *(f"{name} {n}" for name, n in counts.items() if n)]),
        **({"held-out speech": args.engine} if OWN & set(args.suite) else {}),
        "seed": str(args.seed),
        **provenance(),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
