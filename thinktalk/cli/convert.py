"""thinktalk convert: a checkpoint to a new one: other shards, other dtypes, int8, a LoRA adapter merged in, packed to ship."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

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
        "--take",
        action="append",
        default=[],
        metavar="STAGE=M",
        help="this stage of another model in the place of SRC's; may be given again (audio,vision,thinker,talker,dit,vocoder,wav2code)",
    )
    parser.add_argument(
        "--balance",
        type=float,
        metavar="F",
        help="a Thinker that computes the same, its embeddings F times as large and its hidden states as small, so that the Talker hears both",
    )
    parser.add_argument(
        "--shard-size", default="5GB", metavar="S", help="largest file, such as 500MB (default 5GB)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another number of the configuration, such as thinker.chunk_seconds=4; may be given again",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it is there")
    parser.add_argument(
        "--pack",
        action="store_true",
        help="as small models are shipped: int8, one file a stage",
    )
    parser.add_argument(
        "--stages",
        metavar="STAGE,...",
        help="with --pack: of a packed DST that is there replace only these (audio,vision,thinker,talker,dit,vocoder,wav2code)",
    )
    parser.add_argument(
        "--float16",
        metavar="STAGE,...",
        help="with --pack: dit, vocoder or both as float16, twice the size of int8",
    )
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def run(args: argparse.Namespace) -> int:
    ways = {"pack": _pack, "take": _join, "balance": _balance}
    chosen = [name for name in ways if getattr(args, name) not in (None, False, [])]
    _check(args, [f"--{name}" for name in chosen])
    report = ways[chosen[0]](args) if chosen else _convert(args)
    print(json.dumps(report) if args.json else "\n".join(_lines(report)))
    return 0


def _check(args: argparse.Namespace, ways: list[str]) -> None:
    """Options of one way are not dropped silently in the other."""
    for_files = {
        "dtype": None,
        "int8": None,
        "parts": None,
        "lora": [],
        "shard_size": "5GB",
        "set": [],
    }
    for_packs = {"stages": None, "float16": None}
    if len(ways) > 1:
        raise ConfigError(f"{ways[1]}: not together with {ways[0]}; convert what the first has written")  # fmt: skip
    way = "".join(ways)
    wrong = ({} if args.pack else for_packs) | (for_files if way else {})
    for name, unset in wrong.items():
        if getattr(args, name) != unset:
            only = name in for_packs
            raise ConfigError(f"--{name.replace('_', '-')}: {'only with --pack' if only else f'not together with {way}'}; leave it out")  # fmt: skip


def _pack(args: argparse.Namespace) -> dict[str, Any]:
    from thinktalk.omni import resolve
    from thinktalk.weights.pretrained import pack

    stages = _names(args.stages) if args.stages else None
    half = _names(args.float16 or "")
    return pack(resolve(args.source), args.target, stages=stages, float16=half, overwrite=args.overwrite)  # fmt: skip


def _join(args: argparse.Namespace) -> dict[str, Any]:
    from thinktalk.omni import resolve
    from thinktalk.weights.join import join

    pairs = [pair.partition("=") for pair in args.take]
    for stage, _, model in pairs:
        if not model:
            raise ConfigError(f"--take {stage}: expected STAGE=MODEL, such as talker=out/k1_icl/model")  # fmt: skip
    take = {stage: resolve(model) for stage, _, model in pairs}
    join(resolve(args.source), args.target, take, overwrite=args.overwrite)
    return {"directory": args.target, "taken": {stage: str(where) for stage, where in take.items()}}


def _balance(args: argparse.Namespace) -> dict[str, Any]:
    from thinktalk.omni import resolve
    from thinktalk.weights.balance import balanced

    before, after = balanced(resolve(args.source), args.target, args.balance, overwrite=args.overwrite)  # fmt: skip
    names = ("embeddings", "hidden states")
    return {"directory": args.target, "before": dict(zip(names, before, strict=True)), "after": dict(zip(names, after, strict=True))}  # fmt: skip


def _convert(args: argparse.Namespace) -> dict[str, Any]:
    from thinktalk.omni import resolve
    from thinktalk.recipes.recipe import change
    from thinktalk.weights.convert import convert

    return convert(
        resolve(args.source),
        args.target,
        parts=_names(args.parts) if args.parts else None,
        dtype=_dtype(args.dtype),
        int8=_names(args.int8) if args.int8 else (),
        lora=args.lora,
        max_shard_bytes=_size(args.shard_size),
        change=(lambda config: change(config, args.set)) if args.set else None,
        overwrite=args.overwrite,
    )


def _lines(report: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in report.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield (
                f"{indent}{key}: {value:.4g}"
                if isinstance(value, float)
                else f"{indent}{key}: {value}"
            )


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
