"""thinktalk convert: a checkpoint to a new one: other shards, other dtypes, int8, a LoRA adapter merged in."""

from __future__ import annotations

import argparse
import json

from thinktalk.errors import ConfigError

__all__ = ["add_arguments", "run"]

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a model as --model takes it elsewhere")
    parser.add_argument("target", metavar="DST", help="the new directory")
    parser.add_argument(
        "--dtype",
        metavar="T",
        help="float32, bfloat16, float16, or PART=T,... (code2wav only when named)",
    )
    parser.add_argument(
        "--int8",
        metavar="PART,...",
        help="parts whose linear layers become int8: thinker,talker,code2wav",
    )
    parser.add_argument("--parts", metavar="PART,...", help="parts to keep (default: all)")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="DIR",
        help="a PEFT adapter to merge; may be given again",
    )
    parser.add_argument(
        "--shard-size", default="5GB", metavar="S", help="largest file, such as 500MB (default 5GB)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it is there")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def run(args: argparse.Namespace) -> int:
    from thinktalk.omni import resolve
    from thinktalk.weights.convert import convert

    report = convert(
        resolve(args.source),
        args.target,
        parts=_names(args.parts) if args.parts else None,
        dtype=_dtype(args.dtype),
        int8=_names(args.int8) if args.int8 else (),
        lora=args.lora,
        max_shard_bytes=_size(args.shard_size),
        overwrite=args.overwrite,
    )
    if args.json:
        print(json.dumps(report))
        return 0
    for key, value in report.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(
                    f"  {name}: {inner:.4g}" if isinstance(inner, float) else f"  {name}: {inner}"
                )
        else:
            print(f"{key}: {value}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _dtype(text: str | None) -> str | dict[str, str] | None:
    if text is None or "=" not in text:
        return text
    pairs = [item.partition("=") for item in text.split(",")]
    return {part: dtype for part, _, dtype in pairs}


def _size(text: str) -> int:
    number, unit = text[:-2], text[-2:].upper()
    if unit not in UNITS or not number.isdigit() or int(number) < 1:
        raise ConfigError(f"--shard-size {text}: expected a number and KB, MB or GB, such as 500MB")
    return int(number) * UNITS[unit]
