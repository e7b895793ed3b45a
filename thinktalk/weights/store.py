"""Writing checkpoints: tensors one at a time into safetensors shards, files and directories that appear whole or not at all.

Planned tensors -> write_tensors -> model.safetensors, or model-00001-of-0000N.safetensors and an index
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinktalk.errors import WeightsError
from thinktalk.weights.files import DTYPES, INDEX, SINGLE, first_line

__all__ = ["Planned", "atomic_directory", "atomic_write", "write_file", "write_index", "write_parts", "write_tensors"]  # fmt: skip

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGN = 64  # tensor data start on cache lines, so that views are as fast as fresh tensors


@dataclass(frozen=True)
class Planned:
    """A tensor to write: its form is known before it is made."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def write_tensors(
    directory: Path, tensors: Iterable[Planned], *, max_shard_bytes: int = 5_000_000_000
) -> list[Path]:
    """Write the tensors as one file or as shards with an index; only one tensor is in memory at a time."""
    shards: list[list[Planned]] = []
    room = -1
    for tensor in tensors:
        if tensor.nbytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= tensor.nbytes
    shards = shards or [[]]
    if len(shards) == 1:
        names = [SINGLE]
    else:
        names = [
            f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
        ]
    for name, shard in zip(names, shards, strict=True):
        write_file(directory / name, shard)
    if len(shards) > 1:
        total = sum(t.nbytes for shard in shards for t in shard)
        weight_map = {
            t.name: name for name, shard in zip(names, shards, strict=True) for t in shard
        }
        text = json.dumps(
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
            indent=1,
        )
        atomic_write(directory / INDEX, text.encode())
    return [directory / name for name in names]


def write_parts(
    directory: Path, parts: Mapping[str, Iterable[Planned]], where: dict[str, str]
) -> None:
    """Write PART.safetensors for each part (PART-2 where that name is taken), and enter its tensors in `where`."""
    for part, tensors in parts.items():
        path, number = directory / f"{part}.safetensors", 2
        while path.exists():
            path, number = directory / f"{part}-{number}.safetensors", number + 1
        tensors = list(tensors)
        write_file(path, tensors)
        where |= {tensor.name: path.name for tensor in tensors}


def write_index(directory: Path, where: Mapping[str, str]) -> None:
    """The index of a directory's files, {tensor: file}; none is needed where all is in model.safetensors."""
    if set(where.values()) == {SINGLE}:
        return
    total = sum((directory / name).stat().st_size for name in set(where.values()))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    atomic_write(directory / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def write_file(
    path: Path, tensors: Iterable[Planned], metadata: dict[str, str] | None = None
) -> None:
    """One safetensors file."""
    tensors = sorted(
        tensors, key=lambda t: (-t.dtype.itemsize, t.name)
    )  # wide elements first: all aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors:
            value = tensor.make().detach().to("cpu", tensor.dtype).contiguous()
            assert tuple(value.shape) == tensor.shape, (
                f"{tensor.name} was made as {tuple(value.shape)}, planned {tensor.shape}"
            )
            file.write(value.reshape(-1).view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_directory(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A fresh directory that takes the place of `target` when the block ends without an error; else nothing is left.

    An existing directory that is not empty is replaced only with `overwrite`, and only when it holds a checkpoint.
    """
    target = Path(target).absolute()
    if target.exists() and not target.is_dir():
        raise WeightsError(f"{target}: is a file, expected a directory; choose another name")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise WeightsError(
                f"{target}: is not empty, expected a new directory; choose another name or overwrite"
            )
        if not (target / "config.json").exists():
            raise WeightsError(
                f"{target}: holds no checkpoint, so it is not overwritten; choose another name"
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise WeightsError(
            f"{target}: cannot be made ({first_line(error)}); choose another place"
        ) from None
    old = fresh.with_name(fresh.name.replace(".partial-", ".old-"))
    try:
        yield fresh
        fresh.chmod(0o755)
        if target.exists():
            os.rename(target, old)
        os.rename(fresh, target)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not target.exists():
            os.rename(old, target)
        if isinstance(error, OSError):  # a full disk is the user's matter, not a bug
            raise WeightsError(
                f"{target}: cannot be written ({first_line(error)}); make room or choose another place"
            ) from error
        raise
    shutil.rmtree(old, ignore_errors=True)
