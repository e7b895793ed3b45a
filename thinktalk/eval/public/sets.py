"""Sets: the files of a published set, as they are downloaded -> rows and sounds. What is missing says what to fetch.

    need(DIR, "LibriSpeech/test-clean", what=..., fetch=...)      a path, or an InputError that says where to put what
    table(test.tsv, ("path", "sentence"))                          rows by column name, whatever else stands in the file
    Parquet(test-00000-of-00001.parquet)                           rows without their sounds, and a sound by row
    Clips(audio/test.tar.gz)("1001.wav")                           a sound out of a folder or a tar, by the name of its file

Nothing is unpacked onto the disk and no more than one file's sounds lie in memory.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from thinktalk.errors import ConfigError, InputError
from thinktalk.media.audio import load_audio

__all__ = ["HEARD_HZ", "Clips", "Parquet", "content", "cut", "need", "table"]

HEARD_HZ = 16_000
Row = dict[str, Any]


def need(folder: Path, *places: str, what: str, fetch: str) -> Path:
    """The first of some places (glob patterns) under a folder that is there.

    Errors: InputError, which says what is to be fetched and where it belongs.
    """
    for place in places:
        found = sorted(folder.glob(place))
        if found:
            return found[0]
    raise InputError(f"{folder / places[0]}: is not there, expected {what}; fetch {fetch} and put it there")  # fmt: skip


def table(path: Path, columns: Sequence[str], *, header: Sequence[str] | None = None) -> list[Row]:
    """The rows of a TSV or CSV by the names of its columns; `header` where the file has none of its own.

    Tabs part columns as they are (a quote is a quote); commas as spreadsheets write them. Errors: InputError (no table, or
    without one of `columns`).
    """
    tabs = path.suffix != ".csv"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            csv.field_size_limit(1 << 24)
            quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            rows = list(csv.DictReader(file, header, delimiter="\t" if tabs else ",", quoting=quoting))  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({_why(error)}), expected a table; fetch it again") from None  # fmt: skip
    have = list(rows[0]) if rows else []
    if lacks := [c for c in columns if c not in have or any(row[c] is None for row in rows)]:
        raise InputError(f"{path}: {len(rows)} rows of columns {', '.join(map(str, have)) or 'none'}, expected {lacks[0]!r} in each; fetch it again")  # fmt: skip
    return rows


def content(path: Path) -> Any:
    """What a JSON file holds. Errors: InputError."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_why(error)}), expected JSON; fetch it again") from None  # fmt: skip


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:80]


# ---------------------------------------------------------------------------------------------------------------- sounds


class Clips:
    """The sounds of a folder (at any depth) or of a tar, compressed or not, by the name of their file."""

    def __init__(self, where: Path):
        """Errors: InputError (no folder and no tar)."""
        self.where = where
        if where.is_dir():
            self._files = {path.name: path for path in sorted(where.rglob("*")) if path.is_file()}
            return
        try:
            self._tar = tarfile.open(where)  # noqa: SIM115  it is read from as long as the set is asked
            self._members = {PurePosixPath(m.name).name: m for m in self._tar if m.isfile()}
        except (OSError, tarfile.TarError, EOFError) as error:
            raise InputError(f"{where}: cannot be read ({_why(error)}), expected a folder or a tar of sounds; fetch it again") from None  # fmt: skip

    def place(self, name: str) -> int:
        """Where a sound stands: a compressed tar is quick only when it is read in its order."""
        return 0 if self.where.is_dir() else getattr(self._members.get(name), "offset", 0)

    def __contains__(self, name: str) -> bool:
        return name in (self._files if self.where.is_dir() else self._members)

    def __call__(self, name: str) -> Any:
        """A sound, as models take it: a path or bytes. Errors: InputError (it is not there)."""
        if name not in self:
            raise InputError(f"{self.where}: has no {name}, expected the sounds that its table names; fetch it again")  # fmt: skip
        if self.where.is_dir():
            return str(self._files[name])
        file = self._tar.extractfile(self._members[name])
        assert file is not None
        return file.read()


class Parquet:
    """A Parquet file whose column `audio` holds {"bytes", "path"}, as `datasets` writes it."""

    def __init__(self, path: Path, *, audio: str = "audio"):
        """Errors: ConfigError (no pyarrow), InputError (no Parquet file)."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ConfigError("pyarrow is not installed, expected it for sets in Parquet; pip install 'thinktalk[eval]'") from None  # fmt: skip
        self.path, self.audio = path, audio
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InputError(f"{path}: cannot be read ({_why(error)}), expected Parquet; fetch it again") from None  # fmt: skip

    def rows(self, columns: Sequence[str]) -> list[Row]:
        """All rows without their sounds. Errors: InputError (a column of `columns` is not there)."""
        have = self._file.schema_arrow.names
        if lacks := [c for c in (*columns, self.audio) if c not in have]:
            raise InputError(f"{self.path}: has columns {', '.join(have)}, expected {lacks[0]!r}; fetch it again")  # fmt: skip
        return self._file.read([c for c in have if c != self.audio]).to_pylist()

    @cached_property
    def _starts(self) -> list[int]:
        groups = range(self._file.num_row_groups)
        counts = [self._file.metadata.row_group(n).num_rows for n in groups]
        return [0, *np.cumsum(counts).tolist()]

    def sound(self, row: int) -> bytes:
        """The sound of a row; a group of rows is read at a time and kept until another is wanted."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        if getattr(self, "_read", (-1, None))[0] != group:
            self._read = group, self._file.read_row_group(group, [self.audio])[self.audio]
        return self._read[1][row - self._starts[group]].as_py()["bytes"]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._file.metadata.num_rows))


@lru_cache(maxsize=1)
def _decoded(path: str) -> np.ndarray:
    return load_audio(path, sample_rate=HEARD_HZ, max_seconds=24 * 3600.0)


def cut(path: Path, begin: float, end: float) -> tuple[np.ndarray, int]:
    """Seconds `begin` to `end` of a long recording, which is decoded once for all pieces that follow each other."""
    return _decoded(str(path))[round(begin * HEARD_HZ) : round(end * HEARD_HZ)], HEARD_HZ
