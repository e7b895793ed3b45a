"""thinktalk say: a text, word for word, as speech."""

from __future__ import annotations

import argparse

from thinktalk.cli import options
from thinktalk.cli.speaking import follow, whole

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_generation(parser, text=False)
    parser.add_argument("text", metavar="TEXT", help="what is read aloud")


def run(args: argparse.Namespace) -> int:
    args.out = args.out or "answer.wav"
    options.check_out(args.out)
    omni = options.load_model(args)
    reply = omni.say(args.text, **options.generation(args))
    follow(whole(reply), out=args.out, quiet=args.json, sample_rate=reply.sample_rate)
    options.report(reply, args.out, json_wanted=args.json)
    return 0
