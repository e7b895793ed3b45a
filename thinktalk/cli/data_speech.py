"""thinktalk data make --world speech: sentences and dialogues spoken by a synthesiser, in many voices."""

from __future__ import annotations

import argparse
import json
import sys

from thinktalk.cli.options import positive
from thinktalk.errors import InputError

__all__ = ["add_arguments", "run"]

FAULTS_SHOWN = 20


def add_arguments(make: argparse.ArgumentParser) -> None:
    speech = make.add_argument_group("--world speech")
    speech.add_argument("--engine", choices=["kokoro", "espeak", "flite"], default="kokoro", help="who speaks: natural voices (fetched, 90 MB), espeak-ng, or flite where it is installed (default kokoro)")  # fmt: skip
    speech.add_argument("--kind", choices=["sentences", "dialogues"], default="sentences", help="read aloud, or asked and answered (default sentences)")  # fmt: skip
    speech.add_argument("--texts", nargs="+", metavar="T", help="what is read: templates, questions, chitchat, wordnet, or files with a sentence a line (default: those four)")  # fmt: skip
    speech.add_argument("--blends", type=positive, default=200, metavar="N", help="voices besides the stock ones (default 200)")  # fmt: skip
    speech.add_argument("--own", type=int, choices=range(101), default=25, metavar="PERCENT", help="of the sentences: read by the four voices that answer (default 25)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from thinktalk.data.synth.sentences import SOURCES
    from thinktalk.data.synth.speech import SpeechWorld, make_speech

    if args.kind == "dialogues" and args.texts:
        raise InputError("--texts: is given with --kind dialogues, expected none: what is asked comes from the world text; leave it out")  # fmt: skip
    few = max(1, args.count // 10)
    world = SpeechWorld(
        engine=args.engine,
        kind=args.kind,
        texts=tuple(args.texts or SOURCES),
        blends=args.blends,
        own_percent=args.own,
        seed=args.seed,
        cache=args.cache,
    )
    made = make_speech(
        world,
        args.out,
        counts={"train": args.count, "dev": few, "test": few},
        jobs=args.jobs,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if args.json:
        seconds = {name: round(s, 3) for name, s in made.seconds.items()}
        print(json.dumps({"paths": made.paths, "samples": made.samples, "seconds": seconds, "faults": [str(f) for f in made.faults]}))  # fmt: skip
        return 0
    for split, count in made.samples.items():
        print(f"{split:<8}{count:>8} samples{made.seconds[split] / 3600:>10.2f} hours")
    for fault in made.faults[:FAULTS_SHOWN]:
        print(f"passed by: {fault}", file=sys.stderr)
    if len(made.faults) > FAULTS_SHOWN:
        print(f"passed by: {len(made.faults) - FAULTS_SHOWN} more", file=sys.stderr)
    return 0
