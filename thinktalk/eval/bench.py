"""Bench: what every ability gets to be measured with: the model, the held-out data, the judges, and where results go.

ability(bench) -> rows      bench.results("hear/voices", items, work, judge=...) -> one result an item, resumed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.items import Item, Result, Work
from thinktalk.eval.judges import Judges
from thinktalk.eval.sharing import ALONE, Share, run_shared
from thinktalk.omni import Omni
from thinktalk.weights.files import read_json
from thinktalk.weights.model import PARTS
from thinktalk.weights.update import WAV2CODE

__all__ = ["Bench", "weights_sum"]

FILES = ("*.safetensors", "config.json", "generation_config.json", "spk_dict.pt")
SPOKEN = {f"{stage}.safetensors" for stage in (*PARTS["talker"], *PARTS["code2wav"], WAV2CODE)} | {
    "spk_dict.pt"
}
"""Files that no written answer depends on, in models that have a file for each stage."""


@dataclass(kw_only=True)
class Bench:
    """A model under test."""

    omni: Omni
    model: str
    """As the report names it."""
    sum: str
    """Of the weights, so that results of other weights are never taken for theirs."""
    text_sum: str = ""
    """Of what written answers depend on, which do not change with a new voice; "" as `sum`."""
    held: HeldOut
    """Held-out sets, made where they are not there."""
    out: Path
    """OUT/items holds a line an item."""
    judges: Judges = field(default_factory=Judges)
    listeners: tuple[str, ...] = ("whisper-base", "whisper-tiny.en", "pocketsphinx")
    """Who hears what is spoken; the first one's are the rows of the table, the others stand below them."""
    dtype: str | None = None
    """The precision that was asked for, None as stored: a process that loads the model anew needs it."""
    n: int = 300
    """Most items a row."""
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    """Of every answer, as Omni.chat takes them."""
    batch: int = 1
    """How many items of a published set are answered together."""
    question: str | None = None
    """Asked instead of what the suite asks with each sound; None for its own words."""
    share: Share = ALONE
    """Which part of the items is this process's (torchrun)."""
    watch: Callable[[str], None] = lambda line: None
    """Gets a line now and then."""

    @property
    def data(self) -> Path:
        """Where held-out sets are kept."""
        return self.held.folder

    def results(
        self, name: str, items: Sequence[Item], work: Work, *, judge: str = "exact", written: bool = False, **more: Any
    ) -> list[Result]:  # fmt: skip
        """One result an item, in their order; those on disk are not asked again. `more` is what else they depend on, `written`
        whether they are of text alone.

        Where several processes share the items, the first one has the results of all, the others those that are there.
        """
        weights = (self.text_sum if written else "") or self.sum
        identity = {"name": name, "weights": weights, "seed": self.seed, "judge": judge, "options": self.options, **more}  # fmt: skip

        def watch(done: int, of: int) -> None:
            if done == of or done % max(1, of // 10) == 0:
                self.watch(f"{name}: {done} of {of}")

        return run_shared(items, work, self.out / "items", name, share=self.share, identity=identity, watch=watch)  # fmt: skip


def weights_sum(directory: str | Path, *, dtype: str | None = None, written: bool = False) -> str:
    """16 hexadecimal digits of a checkpoint's files and the precision it runs in; `written`: of what its text depends on."""
    digest = hashlib.sha256(str(dtype).encode())
    for path in sorted(p for pattern in FILES for p in Path(directory).glob(pattern)):
        if written and path.name in SPOKEN:
            continue
        digest.update(path.name.encode())
        if written and path.name == "generation_config.json":
            own = {
                key: value for key, value in read_json(path).items() if key.startswith("thinker_")
            }
            digest.update(json.dumps(own, sort_keys=True).encode())
            continue
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
