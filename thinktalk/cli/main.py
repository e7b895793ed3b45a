"""The command line: one table of verbs, one small file a verb.

thinktalk VERB ... -> exit status 0; 2 and one line on standard error when the user can mend it; 130 after Ctrl-C
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["VERBS", "main"]

VERBS = {
    "chat": "one turn with text, sound, pictures and video; answers in text and speech",
    "say": "read a text aloud",
    "transcribe": "write down what is said in a recording",
    "serve": "serve OpenAI's protocols (chat, realtime, speech) and a page to talk on",
    "inspect": "show what a checkpoint holds: parts, sizes, rates, voices",
    "convert": "re-shard, cast, quantise a checkpoint, or merge a LoRA adapter into it",
    "train": "run a recipe of training, or go on with it where its last checkpoint is",
    "bench": "measure how long a listener waits, how many can be talked with at once, or everything",
    "eval": "measure what a model can do, by judges it never learned with",
    "report": "make a page of what an evaluation measured, and of what changed since another",
    "data": "make training shards, check them, show what is in them",
    "voices": "list, add or remove the voices of a checkpoint",
}
"""Every verb with its one-line help; thinktalk/cli/VERB.py has `add_arguments(parser)` and `run(args) -> int`."""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog="thinktalk", description="An omni model: it reads, hears, sees, writes and speaks."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:  # only the verb that runs is imported: `thinktalk --help` stays instant
            importlib.import_module(f"thinktalk.cli.{name}").add_arguments(sub)
    args = parser.parse_args(arguments)
    return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    from thinktalk.errors import ThinktalkError

    try:
        return importlib.import_module(f"thinktalk.cli.{args.verb}").run(args)
    except ThinktalkError as error:
        if args.debug:
            traceback.print_exc()
        print(f"thinktalk: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `thinktalk ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
