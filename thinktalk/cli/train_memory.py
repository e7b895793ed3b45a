"""thinktalk train RECIPE --memory GPUS: what a run of s1 takes on each of so many GPUs; nothing is started."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from thinktalk.errors import ConfigError

if TYPE_CHECKING:
    from thinktalk.config import OmniConfig
    from thinktalk.recipes.s1_sft import SftRecipe

__all__ = ["tell"]


def tell(recipe: object, args: argparse.Namespace) -> int:
    """Print the bytes, by what they are for. Errors: ConfigError for recipes whose memory is not known."""
    from thinktalk.recipes.s1_sft import SftRecipe
    from thinktalk.training.memory import Tuning, memory

    if not isinstance(recipe, SftRecipe) or recipe.learns != "thinker":
        raise ConfigError(f"--memory: {args.recipe} is not counted, expected s1_sft or a variant with learns=thinker; start it with a few steps and see")  # fmt: skip
    tuning = Tuning(
        tokens=recipe.tokens, ranks=args.memory, lora=recipe.lora.rank, precision=recipe.precision,
        frozen=recipe.frozen, recompute=recipe.recompute, ema=recipe.optim.ema > 0,
    )  # fmt: skip
    found = memory(_config(recipe), tuning)
    if args.json:
        print(json.dumps({"recipe": args.recipe, "gpus": args.memory, **asdict(found), "total": found.total}))  # fmt: skip
        return 0
    for name, size in asdict(found).items():
        if name != "saved":
            print(f"{name:<14}{size / 1e9:>10.2f} GB")
    print(f"{'on each GPU':<14}{found.total / 1e9:>10.2f} GB\na checkpoint takes {found.saved / 1e9:.2f} GB on disk")  # fmt: skip
    return 0


def _config(recipe: SftRecipe) -> OmniConfig:
    """Of `start`; the published sizes need not be fetched."""
    from thinktalk.config import omni_3b, omni_7b

    known = {"Qwen/Qwen2.5-Omni-7B": omni_7b, "Qwen/Qwen2.5-Omni-3B": omni_3b}
    if recipe.start in known and not Path(recipe.start).exists():
        return known[recipe.start]()
    return recipe.config()
