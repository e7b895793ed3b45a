"""thinktalk train: run a recipe, or go on with it where its last checkpoint is; the same command does both.

A run that has reached its end leaves OUT/model, a checkpoint in the official layout: chat with it, or begin the next stage there.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinktalk.cli.options import positive
from thinktalk.cli.train_memory import tell

if TYPE_CHECKING:
    from thinktalk.recipes.recipe import Making, Recipe
    from thinktalk.training.loop import Trainer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="name of a recipe; without one, they are listed")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a number of the recipe, such as optim.lr=3e-4; as often as you like")  # fmt: skip
    parser.add_argument("--out", default=None, metavar="DIR", help="directory of the run (default: the recipe's)")  # fmt: skip
    parser.add_argument("--memory", type=positive, default=None, metavar="GPUS", help="of s1 recipes: print what each of so many GPUs must hold, and start nothing")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def run(args: argparse.Namespace) -> int:
    from thinktalk.recipes.recipe import Making, change, find_recipe, recipe_names

    if args.recipe is None:
        print(json.dumps({"recipes": recipe_names()}) if args.json else "\n".join(recipe_names()))
        return 0
    settings = [*args.set, *([f"out={args.out}"] if args.out is not None else [])]
    recipe = change(find_recipe(args.recipe), settings)
    if args.memory is not None:
        return tell(recipe, args)
    return _make(recipe, args) if isinstance(recipe, Making) else _train(recipe, args)


def _make(recipe: Making, args: argparse.Namespace) -> int:
    """A recipe without steps."""
    directory = Path(recipe.out) / "model"
    told = {
        "recipe": args.recipe,
        "out": recipe.out,
        "model": str(directory),
        **recipe.make(directory),
    }
    print(json.dumps(told) if args.json else "\n".join(f"{name}: {value}" for name, value in told.items()))  # fmt: skip
    return 0


def _train(recipe: Recipe, args: argparse.Namespace) -> int:
    from thinktalk.training.freed import keep_freed_memory
    from thinktalk.training.journal import read_journal, summary
    from thinktalk.training.loop import Trainer
    from thinktalk.training.parallel import join, leave

    world = join(recipe.device)
    if world.device.type == "cpu":
        keep_freed_memory()
    try:
        with _watching(recipe.steps, quiet=not world.leads) as watch:
            trainer = Trainer(recipe.stage(), recipe.data(world), recipe, world=world, watch=watch)
            with _signals(trainer):
                step = trainer.run()
        model = _export(recipe, trainer) if trainer.finished else None
    finally:
        leave(world)
    if world.leads:
        journal = Path(recipe.out) / "metrics.jsonl"
        last = (read_journal(journal) or [{}])[-1]
        if args.json:
            told = {"recipe": args.recipe, "out": recipe.out, **last, "step": step}
            print(json.dumps({**told, "model": str(model) if model else None}))
        else:
            print(
                "| run | steps | loss before | after | skipped | seconds |\n|---|---|---|---|---|---|"
            )
            print(summary(journal, args.recipe))
            if model:
                print(f"model: {model}")
    return 0


def _export(recipe: Recipe, trainer: Trainer) -> Path | None:
    """OUT/model with what was trained (its running mean where one is kept), where the recipe makes a checkpoint."""
    from thinktalk.recipes.recipe import ModelRecipe

    if not isinstance(recipe, ModelRecipe):
        return None
    weights = trainer.weights()  # every rank takes part, the leading one gets them
    directory = Path(recipe.out) / "model"
    if trainer.world.leads:
        stage = recipe.stage()  # the trainer's own modules may be shards
        left = stage.modules.load_state_dict(weights, strict=False).unexpected_keys
        assert not left, f"a fresh stage lacks {left[0]}"
        recipe.export(stage, directory)
    trainer.world.gather(None)  # nobody reads it before it is whole
    return directory


class _signals(AbstractContextManager):  # noqa: N801  a verb
    """SIGTERM and Ctrl-C end the run after the step under way, with a checkpoint; a second Ctrl-C ends it at once."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __enter__(self) -> None:
        def stop(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.trainer.stop()

        self.before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _watching(steps: int, *, quiet: bool) -> AbstractContextManager[Callable | None]:
    if quiet:
        return nullcontext(None)
    return _Bar(steps) if sys.stderr.isatty() else nullcontext(_Lines(steps))


class _Bar(AbstractContextManager):
    """A progress bar on a terminal."""

    def __init__(self, steps: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        words = TextColumn("step {task.completed}/{task.total}  {task.description}")
        self.progress = Progress(words, BarColumn(), TimeRemainingColumn(), console=Console(stderr=True))  # fmt: skip
        self.task = self.progress.add_task("", total=steps)

    def __enter__(self) -> Callable:
        self.progress.start()
        return lambda step, line: self.progress.update(self.task, completed=step, description=_words(line))  # fmt: skip

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()


class _Lines:
    """Twenty lines a run where nobody looks at a terminal."""

    def __init__(self, steps: int):
        self.every, self.next = max(1, steps // 20), 0

    def __call__(self, step: int, line: Mapping[str, Any]) -> None:
        if step >= self.next:
            self.next = step + self.every
            print(f"step {step}  {_words(line)}", file=sys.stderr, flush=True)


def _words(line: Mapping[str, Any]) -> str:
    hidden = ("lr", "seconds")
    return "  ".join(f"{k} {v:.4g}" for k, v in line.items() if isinstance(v, (int, float)) and k not in hidden)  # fmt: skip
