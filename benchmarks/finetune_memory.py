"""The memory table of docs/finetune.md, computed: python benchmarks/finetune_memory.py [--write docs/finetune.md]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from page import put  # this file's folder is on the path of a script

from thinktalk.config import omni_3b, omni_7b
from thinktalk.training.memory import Tuning, table

__all__ = ["main", "page"]

ROWS = {
    "7B": (
        omni_7b,
        {
            "LoRA 16, one GPU (`s1_lora_7b`)": Tuning(lora=16),
            "LoRA 16, one GPU, 32768 tokens": Tuning(lora=16, tokens=32768),
            "LoRA 64, one GPU": Tuning(lora=64),
            "LoRA 16, one GPU, blocks kept, 4096 tokens": Tuning(lora=16, tokens=4096, recompute=False),
            "all, four GPUs": Tuning(ranks=4),
            "all, eight GPUs (`s1_full_7b`)": Tuning(ranks=8),
            "all, eight GPUs, 32768 tokens": Tuning(ranks=8, tokens=32768),
        },
    ),
    "3B": (
        omni_3b,
        {
            "LoRA 16, one GPU": Tuning(lora=16),
            "all, one GPU": Tuning(),
            "all, four GPUs": Tuning(ranks=4),
        },
    ),
}  # fmt: skip


def page(name: str) -> str:
    """The table of a model."""
    config, rows = ROWS[name]
    return table(config(), rows.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or put them where they belong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", metavar="PAGE", help="put the tables between the page's markers")
    args = parser.parse_args(argv)
    for name in ROWS:
        if args.write:
            put(args.write, f"memory {name}", page(name))
        else:
            print(f"{name}\n\n{page(name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
