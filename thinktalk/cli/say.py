"""thinktalk say: a text, word for word, as speech."""

from __future__ import annotations

import argparse

from thinktalk.cli import options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_generation(parser, text=False)
    parser.add_argument("text", metavar="TEXT", help="what is read aloud")


def run(args: argparse.Namespace) -> int:
    args.out = args.out or "answer.wav"
    options.check_out(args.out)
    omni = options.load_model(args)
    return options.finish(omni.say(args.text, **options.generation(args)), args)
