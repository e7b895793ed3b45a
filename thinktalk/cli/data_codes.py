"""thinktalk data codes: shards of speech with the codes of every recording, by a model's speech tokenizer."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thinktalk.data.coding import Coded

__all__ = ["add_arguments", "run"]

FAULTS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="TAR|DIR", help="shards of speech")
    parser.add_argument("--model", required=True, metavar="M", help="whose speech tokenizer (c1_tokenizer trains one)")  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="where the shards with codes go; those that are there stay")  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="D", help="where it runs (default cpu)")


def run(args: argparse.Namespace) -> int:
    import torch

    from thinktalk.data.coding import code_shards, fingerprint
    from thinktalk.omni import resolve
    from thinktalk.weights.wav2code import load_tokenizer

    tokenizer = load_tokenizer(resolve(args.model), device=args.device, dtype=torch.float32)
    done = code_shards(tokenizer, args.paths, args.out, watch=None if args.json else _watch)
    for fault in done.faults[:FAULTS_SHOWN]:
        print(f"passed by: {fault}", file=sys.stderr)
    if len(done.faults) > FAULTS_SHOWN:
        print(f"passed by: {len(done.faults) - FAULTS_SHOWN} more", file=sys.stderr)
    result = {
        "paths": done.paths,
        "kept": done.kept,
        "samples": done.samples,
        "seconds": round(done.seconds, 3),
        "codes": done.codes,
        "used": done.used,
        "of": tokenizer.config.num_codes,
        "codes_by": fingerprint(tokenizer),
        "faults": [str(fault) for fault in done.faults],
    }
    if args.json:
        print(json.dumps(result))
    else:
        kept = f", {done.kept} shards were there" if done.kept else ""
        print(f"{done.samples} recordings, {done.seconds / 3600:.2f} hours, {done.codes} codes, {done.used} of {result['of']} in use{kept}")  # fmt: skip
    return 0


def _watch(done: Coded) -> None:
    print(f"{done.paths[-1]}  {done.samples} recordings  {done.seconds / 3600:.2f} hours", file=sys.stderr, flush=True)  # fmt: skip
