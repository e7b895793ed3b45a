"""Bench: what every ability gets to be measured with: the model, the held-out data, the judges, and where results go.

ability(bench) -> rows      bench.results("hear/voices", items, work, judge=...) -> one result an item, resumed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["Bench", "weights_sums"]

FILES = ("*.safetensors", "config.json", "generation_config.json", "spk_dict.pt")
NO_MATTER = {
    only: {f"{stage}.safetensors" for stage in stages} | more
    for only, stages, more in (
        ("text", (*PARTS["talker"], *PARTS["code2wav"], WAV2CODE), {"spk_dict.pt"}),
        ("codes", (*PARTS["thinker"], *PARTS["talker"]), set()),
    )
}
"""What is measured -> files that do not matter: what is written depends on no voice, codes and back on nobody who thinks."""
SETTINGS = {"text": "thinker_", "codes": "token2wav_"}
"""What is measured -> the options of generation_config.json that matter."""


@dataclass(kw_only=True)
class Bench:
    """A model under test."""

    omni: Omni
    model: str
    """As the report names it."""
    sum: str
    """Of the weights, so that results of other weights are never taken for theirs."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """Of what "text" and "codes" alone depend on, so that a new part leaves standing what it has no share in."""
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
        self, name: str, items: Sequence[Item], work: Work, *, judge: str = "exact", only: str = "", **more: Any
    ) -> list[Result]:  # fmt: skip
        """One result an item, in their order; those on disk are not asked again. `only`: "text" where nothing is spoken, "codes"
        where nothing is answered; `more` is what else they depend on.

        Where several processes share the items, the first one has the results of all, the others those that are there.
        """
        weights = self.sums.get(only, self.sum)
        identity = {"name": name, "weights": weights, "seed": self.seed, "judge": judge, "options": self.options, **more}  # fmt: skip

        def watch(done: int, of: int) -> None:
            if done == of or done % max(1, of // 10) == 0:
                self.watch(f"{name}: {done} of {of}")

        return run_shared(items, work, self.out / "items", name, share=self.share, identity=identity, watch=watch)  # fmt: skip


def weights_sums(directory: str | Path, *, dtype: str | None = None) -> dict[str, str]:
    """16 hexadecimal digits of a checkpoint's files and the precision it runs in: "" of all, "text" and "codes" of what those depend on.

    Each file is read once. Parts are left out where each stage has a file of its own, as packed models do.
    """
    sums = {only: hashlib.sha256(str(dtype).encode()) for only in ("", *NO_MATTER)}
    for path in sorted(p for pattern in FILES for p in Path(directory).glob(pattern)):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        for only, digest in sums.items():
            if only and path.name in NO_MATTER[only]:
                continue
            digest.update(path.name.encode())
            if only and path.name == "generation_config.json":
                own = {k: v for k, v in read_json(path).items() if k.startswith(SETTINGS[only])}
                digest.update(json.dumps(own, sort_keys=True).encode())
            else:
                digest.update(content)
    return {only: digest.hexdigest()[:16] for only, digest in sums.items()}
