"""thinktalk transcribe: a recording, as text."""

from __future__ import annotations

import argparse
import json

from thinktalk.cli import options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument("file", metavar="FILE", help="the recording")


def run(args: argparse.Namespace) -> int:
    omni = options.load_model(args, speech=False)
    text = omni.transcribe(args.file)
    print(json.dumps({"text": text}, ensure_ascii=False) if args.json else text)
    return 0
