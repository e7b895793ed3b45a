"""Beside a run: a module that is no part of the checkpoint, in one file with all that it takes to make it again.

save(module, out / "reader.safetensors", "reader", about)           whole or not at all
held = found(out, "reader.safetensors", by="c1_tokenizer")          held.about("reader") is JSON, held.weights(names) tensors
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thinktalk.errors import WeightsError
from thinktalk.weights.files import TensorFiles, read_header
from thinktalk.weights.store import Planned, write_file

__all__ = ["Beside", "found", "save"]


def save(module: nn.Module, path: str | Path, kind: str, about: dict[str, Any]) -> None:
    """Write one file; it appears whole or not at all. `about` is JSON."""
    path = Path(path)
    plan = [Planned(name, t.dtype, tuple(t.shape), lambda t=t: t) for name, t in module.state_dict().items()]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_file(partial, plan, metadata={kind: json.dumps(about)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Beside:
    """A file that `save` wrote, its header read."""

    def __init__(self, path: Path):
        self.path, self._files = path, TensorFiles.of(read_header(path))

    def about(self, kind: str) -> dict[str, Any]:
        """What was said of the module. Errors: KeyError, ValueError where it is of another kind."""
        with open(self.path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return json.loads(header["__metadata__"][kind])

    def weights(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names."""
        return {name: self._files.read(name) for name in names}


def found(path: str | Path, file: str, *, by: str) -> Beside:
    """The file, or `file` in the folder that was named. Errors: WeightsError where there is none; `by` is the recipe that leaves it."""
    path = Path(path)
    path = path / file if path.is_dir() else path
    if not path.exists():
        raise WeightsError(f"{path}: not there, expected what a run of {by} leaves; train one first")  # fmt: skip
    return Beside(path)
