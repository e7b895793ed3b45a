"""Options that several verbs share, and what they do with a reply."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from thinktalk.errors import ConfigError

if TYPE_CHECKING:
    from thinktalk.events import Reply
    from thinktalk.omni import Omni

__all__ = [
    "add_generation",
    "add_model",
    "check_out",
    "generation",
    "load_model",
    "report",
]


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model, --device, --dtype, --json."""
    parser.add_argument(
        "--model",
        default="nano",
        metavar="M",
        help="nano (default), a directory in the official layout, or a hub id",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="cpu (default), cuda, cuda:1, mps"
    )
    parser.add_argument(
        "--dtype",
        default=None,
        metavar="T",
        help="float32, bfloat16 or int8 (default: as stored; code2wav in float32)",
    )
    parser.add_argument(
        "--placement",
        default=None,
        metavar="P=D,...",
        help="a device for each part, such as thinker=cuda:0,talker=cuda:1",
    )
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def add_generation(parser: argparse.ArgumentParser, *, text: bool = True) -> None:
    """--voice, --out, limits, seed, --greedy."""
    parser.add_argument(
        "--voice",
        default="default",
        metavar="V",
        help="a voice of the checkpoint (see: thinktalk voices list)",
    )
    parser.add_argument("--out", default=None, metavar="W.wav", help="where the speech is written")
    if text:
        parser.add_argument(
            "--max-text-tokens",
            type=positive,
            default=None,
            metavar="N",
            help="longest answer (tokens)",
        )
    parser.add_argument(
        "--max-codes", type=positive, default=None, metavar="N", help="longest speech (codes)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of sampling and of the flow's noise (default 0)",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="no sampling: the likeliest token and code each time"
    )


def generation(args: argparse.Namespace) -> dict:
    """The keyword arguments of Omni.chat and Omni.say that add_generation collected."""
    names = ("voice", "max_text_tokens", "max_codes", "seed", "greedy")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def load_model(args: argparse.Namespace, *, speech: bool = True) -> Omni:
    """The model that --model, --device, --dtype and --placement ask for; without speech only the Thinker is read."""
    import thinktalk

    parts = None if speech else ("thinker",)
    placement = _pairs(args.placement) if args.placement else None
    return thinktalk.load(
        args.model, device=args.device, dtype=args.dtype, parts=parts, placement=placement
    )


def check_out(path: str | None) -> None:
    """Fail before the work, not after it, when the speech could not be written."""
    if path is None:
        return
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir():
        raise ConfigError(
            f"{path}: --out must be a file in a folder that exists; make {folder} first or choose another"
        )


def report(reply: Reply, path: str | None, *, json_wanted: bool) -> None:
    """What is said of a reply when it is complete: its JSON, or where the sound is."""
    if json_wanted:
        print(json.dumps(as_json(reply, path), ensure_ascii=False))
    elif path is not None:
        print(f"{reply.seconds:.2f} s of speech in {path}", file=sys.stderr)


def as_json(reply: Reply, path: str | None) -> dict:
    """The one object of --json."""
    return {
        "text": reply.text,
        "audio": path,
        "sample_rate": reply.sample_rate,
        "seconds": round(reply.seconds, 4),
        "prompt_tokens": reply.prompt_tokens,
        "text_tokens": len(reply.token_ids),
        "codes": 0 if reply.codes is None else len(reply.codes),
        "timing": {name: round(ms, 3) for name, ms in reply.timing.items()},
    }


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def _pairs(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in text.split(",")]
    if any(not key or not value for key, _, value in pairs):
        raise ConfigError(
            f"--placement {text}: expected PART=DEVICE,...; for example thinker=cuda:0,talker=cuda:1"
        )
    return {key: value for key, _, value in pairs}
