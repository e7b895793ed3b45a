"""thinktalk data: make shards of recordings, conversations or a world made from a seed, check what shards hold, show samples as a page."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from thinktalk.cli import data_codes, data_distill, data_speech
from thinktalk.cli.options import positive
from thinktalk.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinktalk.config import OmniConfig
    from thinktalk.data.samples import Sample
    from thinktalk.media.text import Tokenizer

__all__ = ["add_arguments", "run"]

FAULTS_SHOWN = 20
WORLDS = {
    "text": "sums, spelling, facts, memory",
    "drills": "made-up words, larger numbers",
    "pictures": "shapes and digits",
    "objects": "things from packages, fetched once",
    "sounds": "which, how many, rising or falling",
    "videos": "direction, order, counts",
    "omni": "which of them made the sound, before or after the hit",
}
"""Modules of data/synth that ask questions, and about what."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = parser.add_subparsers(
        dest="action", metavar="make|codes|distill|check|show", required=True
    )
    make = actions.add_parser(
        "make", parents=[shared], help="shards of recordings, or of a world made from a seed"
    )
    what = make.add_mutually_exclusive_group(required=True)
    what.add_argument("--corpus", metavar="DIR", help="recordings with their transcripts")
    what.add_argument("--chats", nargs="+", metavar="FILE", help="JSON lines as ms-swift and LLaMA-Factory take them")  # fmt: skip
    what.add_argument("--world", choices=[*WORLDS, "speech"], help="; ".join(f"{name}: {about}" for name, about in WORLDS.items()) + "; speech: see below")  # fmt: skip
    make.add_argument("--out", required=True, metavar="DIR", help="where the shards go")
    make.add_argument("--root", metavar="DIR", help="where the media of chats lie (default: beside each file)")  # fmt: skip
    make.add_argument("--voice", metavar="V", help="who speaks (default: the recording's folder)")
    make.add_argument(
        "--test-voice", action="append", default=[], metavar="V", help="keep this voice for test"
    )
    make.add_argument("--count", type=positive, default=1000, metavar="N", help="of a world: samples to train with; a tenth more for dev, and for test (default 1000)")  # fmt: skip
    make.add_argument("--jobs", type=positive, default=1, metavar="N", help="of a world: processes of one thread each (default 1)")  # fmt: skip
    make.add_argument("--skills", metavar="A,B", help="of a world: these skills alone (default: all)")  # fmt: skip
    make.add_argument("--seed", type=int, default=0, metavar="N", help="of a world (default 0)")
    make.add_argument("--cache", metavar="DIR", help="where packages are kept (default: $THINKTALK_CACHE, else ~/.cache/thinktalk)")  # fmt: skip
    make.add_argument(
        "--shard-mib",
        type=positive,
        default=256,
        metavar="N",
        help="size of a tar of recordings or chats",
    )
    data_speech.add_arguments(make)
    data_distill.add_arguments(actions.add_parser("distill", parents=[shared], help="texts as codes that an acoustic model says"))  # fmt: skip
    data_codes.add_arguments(actions.add_parser("codes", parents=[shared], help="the same shards with the codes of all speech"))  # fmt: skip
    check = actions.add_parser("check", parents=[shared], help="name what cannot be used")
    check.add_argument("paths", nargs="+", metavar="TAR|DIR")
    check.add_argument("--quick", action="store_true", help="do not decode the media")
    show = actions.add_parser("show", parents=[shared], help="samples as a page to see and hear")
    show.add_argument("paths", nargs="+", metavar="TAR|DIR")
    show.add_argument("--out", default="samples.html", metavar="PAGE.html")
    show.add_argument("-n", type=positive, default=12, metavar="N", help="how many (default 12)")
    show.add_argument(
        "--model", metavar="M", help="whose tokenizer and sizes (default: a tiny one of its own)"
    )


def run(args: argparse.Namespace) -> int:
    return {
        "make": _make,
        "codes": data_codes.run,
        "distill": data_distill.run,
        "check": _check,
        "show": _show,
    }[args.action](args)


def _make(args: argparse.Namespace) -> int:
    """Recordings, conversations or a world."""
    if args.world == "speech":
        return data_speech.run(args)
    return _make_world(args) if args.world else _make_of_files(args)


def _make_world(args: argparse.Namespace) -> int:
    from importlib import import_module

    from thinktalk.data.synth.world import Only, make_world

    few = max(1, args.count // 10)
    counts = {"train": args.count, "dev": few, "test": few}
    world = import_module(f"thinktalk.data.synth.{args.world}")
    ask = world.open_world(args.cache) if hasattr(world, "open_world") else world.ask
    if args.skills:
        ask = Only(ask, frozenset(args.skills.split(",")))
    paths, skills = make_world(ask, args.out, counts=counts, seed=args.seed, jobs=args.jobs)
    if args.json:
        print(json.dumps({"paths": paths, "samples": counts, "skills": dict(skills), "faults": []}))
        return 0
    for split, count in counts.items():
        print(f"{split:<8}{count:>8} samples")
    print(", ".join(f"{skill} {count}" for skill, count in sorted(skills.items())))
    return 0


def _make_of_files(args: argparse.Namespace) -> int:
    from thinktalk.data.chats import make_chats
    from thinktalk.data.making import make_corpus

    limit = args.shard_mib << 20
    if args.chats:
        made = make_chats(args.chats, args.out, root=args.root, max_bytes=limit)
    else:
        voices = dict(voice=args.voice, test_voices=args.test_voice)
        made = make_corpus(args.corpus, args.out, max_bytes=limit, **voices)
    result = {
        "paths": made.paths,
        "samples": made.samples,
        "seconds": {name: round(s, 3) for name, s in made.seconds.items()},
        "faults": [str(fault) for fault in made.faults],
    }
    if args.json:
        print(json.dumps(result))
        return 0
    for split, count in made.samples.items():
        print(f"{split:<8}{count:>8} samples{made.seconds[split] / 3600:>10.2f} hours")
    for fault in made.faults[:FAULTS_SHOWN]:
        print(f"passed by: {fault}", file=sys.stderr)
    if len(made.faults) > FAULTS_SHOWN:
        print(f"passed by: {len(made.faults) - FAULTS_SHOWN} more", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> int:
    """The report as far as it goes; the exit status is 2 where there is a fault."""
    from thinktalk.data.checking import check_shards

    report = check_shards(args.paths, decode=not args.quick)
    result = report.as_json()
    print(json.dumps(result) if args.json else "\n".join(_lines(result)))
    if report.faults:
        more = f" (and {len(report.faults) - 1} more)" if len(report.faults) > 1 else ""
        raise InputError(f"{report.faults[0]}{more}")
    return 0


def _lines(result: dict[str, Any]) -> list[str]:
    hours = result["seconds"] / 3600
    lines = [
        f"{result['samples']} samples in {result['shards']} shards, {result['bytes']:,} bytes, {hours:.2f} hours, {result['words']:,} words"
    ]
    for title in ("members", "fields"):
        counts = ", ".join(f"{name} {count}" for name, count in result[title].items())
        lines.append(f"{title:<10}{counts or 'none'}")
    lines += [f"{voice:<24}{seconds / 60:>8.1f} minutes" for voice, seconds in result["voices"].items()]  # fmt: skip
    lines += [f"fault: {fault}" for fault in result["faults"][:FAULTS_SHOWN]]
    if len(result["faults"]) > FAULTS_SHOWN:
        lines.append(f"fault: {len(result['faults']) - FAULTS_SHOWN} more, all of them with --json")
    return lines


def _show(args: argparse.Namespace) -> int:
    from thinktalk.data.show import write_page

    tokenizer, config = _reader(args.model)
    chosen = itertools.islice(_samples(args.paths), args.n)
    shown = write_page(
        chosen, args.out, tokenizer=tokenizer, config=config, title=", ".join(args.paths)
    )
    if args.json:
        print(json.dumps({"page": args.out, "samples": shown}))
    else:
        print(f"{shown} samples in {args.out}")
    return 0


def _samples(paths: list[str]) -> Iterator[Sample]:
    """One of each shard in turn, so that a page shows something of all."""
    from thinktalk.data.mixture import expand
    from thinktalk.data.samples import parse
    from thinktalk.data.shards import scan

    entries = [scan(path).entries for path in expand(paths)]
    for row in itertools.zip_longest(*entries):
        for entry in row:
            if entry is None:
                continue
            try:
                yield parse(entry)
            except InputError as error:
                print(f"passed by: {error}", file=sys.stderr)


def _reader(model: str | None) -> tuple[Tokenizer, OmniConfig]:
    """Tokenizer and sizes of a checkpoint, or small ones made here."""
    from thinktalk.media.text import Tokenizer

    if model is not None:
        from thinktalk.omni import resolve
        from thinktalk.weights.config_read import read_config

        directory = resolve(model)
        config = read_config(directory)
        return Tokenizer.load(directory, config=config.thinker), config
    from thinktalk.config import tiny
    from thinktalk.weights.tokenizer import build_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        return build_tokenizer(tiny(), folder), tiny()
