"""Reading safetensors: a directory's tensors by name, seen as views of the file or read in pieces.

    directory -> TensorFiles {name: Entry} -> view(name) no copy | read(name, out=) at most 4 MiB beside the destination

Everything read from a header or an index is checked before it is used, so a damaged file is one clear WeightsError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinktalk.errors import WeightsError

__all__ = [
    "DTYPES",
    "INDEX",
    "SINGLE",
    "Entry",
    "TensorFiles",
    "first_line",
    "read_header",
    "read_json",
]

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Safetensors' names of the element types that we read and write."""

_PIECE = 4 << 20  # bytes read at once when a tensor is cast or moved
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; WeightsError when it is missing, damaged or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: not there; expected a checkpoint in the official layout; check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: cannot be read as JSON ({first_line(error)}); copy it again"
        ) from None
    if not isinstance(value, dict):
        raise WeightsError(
            f"{path}: holds a {type(value).__name__}, expected a JSON object; copy it again"
        )
    return value


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # byte of the file
    nbytes: int


class TensorFiles:
    """The tensors of one checkpoint directory, by official name.

    `wanted(name)` chooses tensors: with an index, files that hold none of them are not opened, nor need they exist.
    """

    def __init__(self, directory: str | Path, wanted: Callable[[str], bool] = lambda name: True):
        directory = Path(directory)
        self.entries: dict[str, Entry] = {}
        self._storages: dict[Path, torch.UntypedStorage] = {}
        self._piece: Tensor | None = None
        if (directory / INDEX).exists():
            self._open_index(directory / INDEX, wanted)
        elif (directory / SINGLE).exists():
            found = read_header(directory / SINGLE)
            self.entries = {name: entry for name, entry in found.items() if wanted(name)}
        else:
            raise WeightsError(
                f"{directory}: holds neither {SINGLE} nor {INDEX}; expected a checkpoint in the official layout; check the path"
            )

    @classmethod
    def of(cls, entries: dict[str, Entry]) -> TensorFiles:
        """The tensors of headers read already."""
        files = cls.__new__(cls)
        files.entries, files._storages, files._piece = entries, {}, None
        return files

    def _open_index(self, path: Path, wanted: Callable[[str], bool]) -> None:
        weight_map = read_json(path).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(v, str) for v in weight_map.values()
        ):
            raise WeightsError(
                f"{path}: has no weight_map from tensor names to file names; copy it again"
            )
        by_file: dict[str, list[str]] = {}
        for name, file in weight_map.items():
            # a name that leaves the directory would read files the checkpoint does not own
            if not file.endswith(".safetensors") or file != Path(file).name or "\\" in file:
                raise WeightsError(
                    f"{path}: weight_map sends {name!r} to {file!r}, expected a .safetensors file beside it; do not trust it"
                )
            if wanted(name):
                by_file.setdefault(file, []).append(name)
        for file, names in by_file.items():
            header = read_header(path.parent / file)
            for name in names:
                if name not in header:
                    raise WeightsError(
                        f"{path.parent / file}: lacks {name!r}, which {INDEX} places there; copy both again"
                    )
                self.entries[name] = header[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def view(self, name: str) -> Tensor:
        """The tensor as a private view of the file: no copy; pages come in when touched; writing does not reach the file."""
        entry = self.entries[name]
        if not entry.nbytes or entry.start % entry.dtype.itemsize:
            return self.read(name)
        if entry.path not in self._storages:
            size = entry.path.stat().st_size
            self._storages[entry.path] = torch.UntypedStorage.from_file(
                str(entry.path), shared=False, nbytes=size
            )
        storage = self._storages[entry.path]
        strides = [prod(entry.shape[i + 1 :]) for i in range(len(entry.shape))]
        return torch.empty(0, dtype=entry.dtype).set_(
            storage, entry.start // entry.dtype.itemsize, entry.shape, strides
        )

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        """The tensor read into memory, or into `out` (contiguous, any dtype and device), piece by piece."""
        entry = self.entries[name]
        if out is None:
            out = torch.empty(entry.shape, dtype=entry.dtype)
        flat, size = out.detach().reshape(-1), entry.dtype.itemsize
        same = flat.device.type == "cpu" and flat.dtype == entry.dtype
        piece = None if same else self._landing().view(entry.dtype)
        with open(entry.path, "rb", buffering=0) as file:
            file.seek(entry.start)
            for start in range(0, flat.numel(), _PIECE // size):
                target = flat[start : start + _PIECE // size]
                landing = target if piece is None else piece[: len(target)]
                _fill(file, landing.view(torch.uint8).numpy(), entry)
                if piece is not None:
                    target.copy_(landing)
        return out

    def _landing(self) -> Tensor:
        """Where pieces land that are cast or moved; one for all, since many would leave holes in the heap."""
        if self._piece is None or len(self._piece) != _PIECE:
            self._piece = torch.empty(_PIECE, dtype=torch.uint8)
        return self._piece


def _fill(file: Any, buffer: Any, entry: Entry) -> None:
    view, done = memoryview(buffer).cast("B"), 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise WeightsError(f"{entry.path}: ended while it was being read; copy it again")
        done += count


def read_header(path: Path) -> dict[str, Entry]:
    """Every tensor of one safetensors file; WeightsError when the file is missing, truncated or not one."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_HEADER_LIMIT, size - 8):
                raise WeightsError(
                    f"{path}: {size} bytes, too few for its header; not safetensors, or truncated; copy it again"
                )
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: not there; expected a shard of the checkpoint; copy it again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: unreadable safetensors header ({first_line(error)}); copy it again"
        ) from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: safetensors header is not an object; copy it again")
    header.pop("__metadata__", None)
    first = 8 + length
    entries = {name: _entry(path, name, info, first) for name, info in header.items()}
    end = first
    for entry in sorted(entries.values(), key=lambda e: (e.start, e.nbytes)):
        if entry.start != end:
            raise WeightsError(
                f"{path}: tensors overlap or leave a hole at byte {end}; copy it again"
            )
        end = entry.start + entry.nbytes
    if end != size:
        fault = "truncated" if end > size else "followed by something else"
        raise WeightsError(
            f"{path}: {fault}: {size} bytes, expected {end} from its header; copy it again"
        )
    return entries


def _entry(path: Path, name: str, info: Any, first: int) -> Entry:
    try:
        dtype, shape, (start, end) = (
            DTYPES.get(info["dtype"]),
            tuple(info["shape"]),
            info["data_offsets"],
        )
        sound = all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, start, end))
    except (TypeError, KeyError, ValueError):
        raise WeightsError(
            f"{path}: tensor {name!r} has no dtype, shape and data_offsets; copy it again"
        ) from None
    if dtype is None:
        raise WeightsError(
            f"{path}: tensor {name!r} has dtype {info['dtype']}, expected one of {', '.join(DTYPES)}; convert it first"
        )
    if not sound or end - start != prod(shape) * dtype.itemsize:
        raise WeightsError(
            f"{path}: tensor {name!r} of shape {list(shape)} does not fit bytes {start}..{end}; copy it again"
        )
    return Entry(path, dtype, shape, first + start, end - start)
