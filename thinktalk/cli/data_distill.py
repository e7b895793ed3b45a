"""thinktalk data distill: sentences and answers as codes that an acoustic model says (k0_acoustic), for a Talker to learn from."""

from __future__ import annotations

import argparse
import json
import sys

from thinktalk.cli.options import positive
from thinktalk.errors import InputError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run of k0_acoustic: who says them")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--texts", nargs="+", metavar="T", help="what is read: templates, questions, chitchat, wordnet, or files with a sentence a line (default: those four)")  # fmt: skip
    what.add_argument("--dialogues", nargs="+", metavar="TAR|DIR", help="shards of written conversations: their last answers are said")  # fmt: skip
    parser.add_argument("--voices", nargs="+", metavar="V", help="by whom (default: the four voices that answer, of those the run has learnt)")  # fmt: skip
    parser.add_argument("--count", type=positive, default=30_000, metavar="N", help="texts at most (default 30000)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the shards go; those that are there stay")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="where packages are kept (default: $THINKTALK_CACHE, else ~/.cache/thinktalk)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from thinktalk.data.synth.sentences import SOURCES
    from thinktalk.data.synth.voices import OWN
    from thinktalk.training.acoustic import Acoustic
    from thinktalk.training.distilling import Plan, distil

    model, codes_by = Acoustic.load(args.run)
    own = [voice for voices in OWN.values() for voice in voices if voice in model.config.voices]
    voices = tuple(args.voices or own)
    if not voices:
        raise InputError(f"{args.run}: has learnt none of the voices that answer, only {', '.join(model.config.voices)}; choose with --voices")  # fmt: skip
    plan = Plan(
        texts=() if args.dialogues else tuple(args.texts or SOURCES), dialogues=tuple(args.dialogues or ()),
        voices=voices, count=args.count, seed=args.seed, cache=args.cache,
    )  # fmt: skip
    made = distil(model, codes_by, plan, args.out, report=lambda line: print(line, file=sys.stderr, flush=True))  # fmt: skip
    if args.json:
        print(json.dumps({"paths": made.paths, "samples": made.samples, "seconds": round(made.seconds, 3), "left_out": made.left_out}))  # fmt: skip
    else:
        print(f"{made.samples} samples, {made.seconds / 3600:.2f} hours, {made.left_out} texts left out, {len(made.paths)} shards")  # fmt: skip
    return 0
