"""Shards: plain tar files (WebDataset) <-> samples; what is damaged is named and passed by, never fatal.

    scan(path)      headers only: Shard with one Entry a sample, saying where the bytes of each member lie
    entry.read()    the bytes of one sample, from anywhere
    ShardWriter     members -> tar files that appear whole or not at all

A sample is a run of members with one key: "000018.json" and "000018.opus" are "json" and "opus" of sample "000018"; all
after the first dot of a file's name is the member's name ("0.png"). Python's own tarfile takes a damaged header in the
middle of a file for its end, without a word; here the scan goes on at the next header that is sound.
"""

from __future__ import annotations

import glob
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from thinktalk.errors import InputError

__all__ = ["Entry", "Fault", "Member", "Shard", "ShardWriter", "scan", "split_name"]

BLOCK = 512  # bytes; tar headers and members start on multiples of it
ZEROS = bytes(BLOCK)
MAX_MEMBER_BYTES = (1 << 31) - (1 << 12)
"""One read of Linux; a header that says more is taken for damage."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Fault(NamedTuple):
    """Something passed by: where it is and what is wrong with it."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class Member(NamedTuple):
    """One file of a sample."""

    name: str  # "json", "opus", "0.png"
    start: int  # byte in the shard
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one sample lies."""

    shard: str
    """Path of the tar file."""
    key: str
    members: tuple[Member, ...]

    @property
    def where(self) -> str:
        """The sample's name in messages: shard and key."""
        return f"{self.shard}/{self.key}"

    def read(self, *names: str) -> dict[str, bytes]:
        """The bytes of the members, or of those `names` that it has. Errors: InputError (gone, cut short)."""
        wanted = [m for m in self.members if not names or m.name in names]
        content = {}
        try:
            with open(self.shard, "rb", buffering=0) as file:
                for member in wanted:
                    content[member.name] = os.pread(file.fileno(), member.size, member.start)
        except OSError as error:
            raise InputError(
                f"{self.where}: cannot be read ({error.strerror}); check the disk and the path"
            ) from None
        for member in wanted:
            if len(content[member.name]) != member.size:
                raise InputError(
                    f"{self.where}.{member.name}: {len(content[member.name])} bytes, expected {member.size}; the shard was cut short, copy it again"
                )
        return content


@dataclass
class Shard:
    """What a tar file holds."""

    path: str
    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(m.size for entry in self.entries for m in entry.members)


def split_name(path: str) -> tuple[str, str]:
    """Key and member name of a file: its path up to the first dot of the file name, and what follows it.

    >>> split_name("a.b/000018.0.png")
    ('a.b/000018', '0.png')
    """
    folder, slash, name = path.rpartition("/")
    stem, _, rest = name.partition(".")
    return folder + slash + stem, rest


# ---------------------------------------------------------------------------------------------------------------- scan


def scan(path: str | os.PathLike[str]) -> Shard:
    """The samples of a shard, by its headers alone; damaged places are in its `faults`, each with its byte.

    Errors: InputError when there is no such file, it cannot be opened, or it is compressed.
    """
    shard = Shard(os.fspath(path))
    try:
        file = open(shard.path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(
            f"{shard.path}: cannot be opened ({error.strerror}), expected a tar file; check the path"
        ) from None
    with file:
        head = file.read(8)
        for magic, name in COMPRESSED.items():
            if head.startswith(magic):
                raise InputError(
                    f"{shard.path}: is compressed with {name}, expected a plain tar that can be read from anywhere; unpack it"
                )
        key, members = "", {}
        for member_path, start, size in _files(file, shard):
            next_key, name = split_name(member_path)
            if next_key != key:
                _close(shard, key, members)
                key, members = next_key, {}
            if name in members:
                shard.faults.append(
                    Fault(f"{shard.path}/{member_path}", "is there twice, the first one is used")
                )
            members.setdefault(name, Member(name, start, size))
        _close(shard, key, members)
    return shard


def _close(shard: Shard, key: str, members: dict[str, Member]) -> None:
    if "json" in members:
        shard.entries.append(Entry(shard.path, key, tuple(members.values())))
    elif members:
        names = ", ".join(members)
        shard.faults.append(Fault(f"{shard.path}/{key}", f"has {names} and no json"))


def _files(file: BinaryIO, shard: Shard) -> Iterator[tuple[str, int, int]]:
    """(path, first byte, bytes) of each regular file."""
    end = file.seek(0, io.SEEK_END)
    at, long_name = 0, None
    while True:
        if at >= end:  # writers end a tar with two blocks of zeros
            shard.faults.append(
                Fault(shard.path, f"has no end mark at byte {at}, it was cut short")
            )
            return
        file.seek(at)
        block = file.read(BLOCK)
        info = _header(block)
        if info is None:
            found = _next_header(file, at + BLOCK)
            if found is None:
                if block != ZEROS:
                    shard.faults.append(Fault(shard.path, f"is no tar from byte {at} to its end"))
                return
            what = "zeros" if block == ZEROS else "a damaged header"
            shard.faults.append(
                Fault(shard.path, f"has {what} at byte {at}, went on at byte {found}")
            )
            at, long_name = found, None
            continue
        start = at + BLOCK
        at = start + -(-info.size // BLOCK) * BLOCK
        if start + info.size > end:
            shard.faults.append(
                Fault(
                    f"{shard.path}/{long_name or info.name}",
                    f"ends after {max(0, end - start)} of {info.size} bytes, the shard was cut short",
                )
            )
            return
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = file.read(info.size).rstrip(b"\0").decode("utf-8", "replace")
        elif info.type == tarfile.XHDTYPE:
            long_name = _pax_path(file.read(info.size))
        else:
            if info.isreg():
                yield long_name or info.name, start, info.size
            long_name = None


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header in this block, None where its checksum or its numbers are wrong."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return info if 0 <= info.size <= MAX_MEMBER_BYTES else None


def _next_header(file: BinaryIO, at: int) -> int | None:
    """The next block at or after byte `at` that is a header of a tar file."""
    file.seek(at)
    while block := file.read(BLOCK):
        if block[257:262] == b"ustar" and _header(block) is not None:
            return at
        at += BLOCK
    return None


def _pax_path(content: bytes) -> str | None:
    """The path in a pax header: records "LENGTH KEY=VALUE\\n"."""
    while content:
        digits, _, _ = content.partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content):
            return None
        key, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "replace")
        content = content[int(digits) :]
    return None


# --------------------------------------------------------------------------------------------------------------- write


class ShardWriter:
    """Samples into PREFIX-00000.tar, PREFIX-00001.tar, ... of about `max_bytes`; the same samples give the same bytes.

    Each file appears whole when it is full or at the end of `with`; after an error the one begun is gone.

    >>> with ShardWriter("out/train") as shards: shards.write("000000", {"json": b'{"text": "hi"}'})
    """

    def __init__(self, prefix: str | os.PathLike[str], *, max_bytes: int = 256 << 20):
        self.prefix, self.max_bytes = Path(prefix), max_bytes
        self.paths: list[Path] = []
        """Files finished so far."""
        self.samples = 0
        """Samples written so far."""
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> Self:
        """Errors: InputError where shards of this name are already: older ones would stay among the new."""
        there = self.prefix.parent.glob(f"{glob.escape(self.prefix.name)}-[0-9]*.tar")
        if older := sorted(there):
            raise InputError(f"{older[0]}: is already there, expected a place without {self.prefix.name} shards; move it away or choose another")  # fmt: skip
        return self

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """One sample; its JSON goes first. Errors: InputError (no json, an unusable key, a disk that is full)."""
        if "json" not in members or not key or "." in key.rpartition("/")[2]:
            raise InputError(
                f"{key!r}: has members {sorted(members)}, expected a key without a dot and a json among them; name it otherwise"
            )
        try:
            tar = self._open()
            for name in sorted(members, key=lambda name: (name != "json", name)):
                info = tarfile.TarInfo(f"{key}.{name}")  # its times and owners are zero
                info.size = len(members[name])
                tar.addfile(info, io.BytesIO(members[name]))
            self.samples += 1
            if tar.offset >= self.max_bytes:
                self._finish()
        except OSError as error:
            self._drop()
            raise InputError(
                f"{self._path}: cannot be written ({error.strerror}); make room or choose another place"
            ) from None

    @property
    def _path(self) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}-{len(self.paths):05d}.tar")

    @property
    def _part(self) -> Path:
        return self._path.with_name(f".{self._path.name}.{os.getpid()}.part")

    def _open(self) -> tarfile.TarFile:
        if self._tar is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._tar = tarfile.open(self._part, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        return self._tar

    def _finish(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            path = self._path
            self._part.replace(path)
            self.paths.append(path)

    def _drop(self) -> None:
        if self._tar is not None:
            if self._tar.fileobj is not None:
                self._tar.fileobj.close()
            self._tar = None
        self._part.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return self._drop()
        try:
            self._finish()
        except OSError as error:
            self._drop()
            raise InputError(
                f"{self._path}: cannot be written ({error.strerror}); make room or choose another place"
            ) from None
