"""Enrolled voices: a directory with a file for each, shared by processes any of which may die at any moment.

    Enrolled(voice, created_at, ...) --add--> DIRECTORY/<digest of its name>.safetensors --read--> {name: Enrolled}

A file is written beside its place, synced, and linked there: it appears whole or not at all. What it is called follows from the
voice's name (capitals aside), so of two processes that give one name at the same time the second finds it taken; the name
itself is never part of a path. A file that cannot be read is named in the log and passed by.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, InputError, WeightsError
from thinktalk.weights.voices import (
    check_voice,
    read_voice_file,
    read_voice_metadata,
    write_voice_file,
)

__all__ = ["Enrolled", "VoiceStore"]

log = logging.getLogger("thinktalk.voices")

ENDING = ".safetensors"
SETTLED_NS = 2_000_000_000  # clocks of file systems are coarse: what was changed later than this may change unseen
OURS = re.compile(
    r"\.{1,2}[0-9a-f]{40}\.[0-9a-f]{8}(\.partial)?"
)  # half-written, beside who knows what
LEFT_NS = 3_600_000_000_000  # a half-written file of this age has no writer any more


@dataclass(frozen=True)
class Enrolled:
    """A voice that somebody added, and what is known of that."""

    voice: Voice
    created_at: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""
    experimental: bool = False
    """Its `cond` was fitted or borrowed, not heard."""
    owner: str = ""
    """Who added it and alone may remove it; empty: anybody."""


class VoiceStore:
    """The voices in a directory, which need not exist yet; for any number of threads and processes."""

    def __init__(self, directory: str | Path, config: OmniConfig | None = None):
        self.directory, self.config = Path(directory), config
        self._known: Mapping[str, Enrolled] = {}
        self._files: dict[str, tuple[tuple[int, int, int], Enrolled | None]] = {}
        self._stamp: int | None = None  # the directory's time, when nothing can have changed since
        self._lock = threading.Lock()

    def read(self) -> Mapping[str, Enrolled]:
        """The voices by name; the very same object while nothing has changed, which costs one look at the directory."""
        with self._lock:
            now = time.time_ns()
            try:
                stamp = self.directory.stat().st_mtime_ns
            except OSError:
                stamp = 0
            if stamp != self._stamp:
                self._stamp = stamp if now - stamp > SETTLED_NS else None
                self._look()
            return self._known

    def add(self, enrolled: Enrolled) -> None:
        """Keep a voice. Errors: InputError when the name is taken, WeightsError, OSError; nothing has changed then."""
        voice, where = enrolled.voice, self.path(enrolled.voice.name)
        voice = check_voice(
            voice.name, voice.cond.cpu().contiguous(), voice.ref_mel.cpu().contiguous(), voice.bos_token,
            where=str(self.directory), config=self.config,
        )  # fmt: skip
        self.directory.mkdir(parents=True, exist_ok=True)
        told = {
            "created_at": str(enrolled.created_at),
            "experimental": str(int(enrolled.experimental)),
            "owner": enrolled.owner,
        }
        fresh = self.directory / f".{where.stem}.{secrets.token_hex(4)}"
        try:
            write_voice_file({voice.name: voice}, fresh, metadata=told)
            _link(fresh, where)
        except FileExistsError:
            raise InputError(f"voice {voice.name!r} is there already; choose another name or remove it first") from None  # fmt: skip
        finally:
            fresh.unlink(missing_ok=True)
        self._sync()

    def remove(self, name: str) -> None:
        """Forget a voice. Errors: InputError when there is none of that name, OSError."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            raise InputError(f"voice {name!r} is not enrolled; have {', '.join(self.read()) or 'none'}") from None  # fmt: skip
        self._sync()

    def check(self) -> None:
        """ConfigError for a directory that is none, or cannot be read."""
        try:
            with os.scandir(self.directory) as entries:
                next(entries, None)
        except FileNotFoundError:
            pass  # it is made with the first voice
        except OSError as error:
            raise ConfigError(f"{self.directory}: cannot be read ({error.strerror}), expected a directory of voices; choose another") from None  # fmt: skip

    def sweep(self) -> None:
        """Remove what writers that were killed have left, an hour after."""
        old = time.time_ns() - LEFT_NS
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(self.directory)):
                if OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_mtime_ns < old:  # fmt: skip
                    os.unlink(entry.path)

    def path(self, name: str) -> Path:
        """Where a voice of that name is kept."""
        plain = unicodedata.normalize("NFC", name).casefold()
        digest = hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:40]
        return self.directory / (digest + ENDING)

    # -------------------------------------------------------------------------------------------------------- parts

    def _look(self) -> None:
        files = {}
        try:
            entries = sorted(os.scandir(self.directory), key=lambda entry: entry.name)
        except FileNotFoundError:
            entries = []
        except OSError as error:  # what is known stays, until it can be read again
            log.warning("voices cannot be read: %s", error)
            self._stamp = None
            return
        for entry in entries:
            if not entry.name.endswith(ENDING) or entry.name.startswith("."):
                continue
            before = self._files.get(entry.name)
            try:
                now = entry.stat(follow_symlinks=False)
                mark = (now.st_ino, now.st_mtime_ns, now.st_size)
                files[entry.name] = before if before and before[0] == mark else (mark, self._read(Path(entry.path)))  # fmt: skip
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:  # of the disk, not of the file: it is tried again
                log.warning("a voice cannot be read: %s", error)
                self._stamp = None
                if before:
                    files[entry.name] = before
        if files != self._files:
            self._files = files
            found = [enrolled for _, enrolled in files.values() if enrolled is not None]
            found.sort(key=lambda enrolled: (enrolled.created_at, enrolled.voice.name))
            self._known = {enrolled.voice.name: enrolled for enrolled in found}

    def _read(self, path: Path) -> Enrolled | None:
        try:
            if path.is_symlink() or not path.is_file():
                raise WeightsError(f"{path}: is no plain file")
            voices = read_voice_file(path, self.config)
            ((name, voice),) = voices.items() if len(voices) == 1 else (("", None),)
            if voice is None or self.path(name) != path:
                raise WeightsError(f"{path}: holds other voices than its name says")
            told = read_voice_metadata(path)
            try:
                return Enrolled(voice, int(told["created_at"]), told["experimental"] != "0", str(told.get("owner", "")))  # fmt: skip
            except (KeyError, ValueError, TypeError):
                raise WeightsError(f"{path}: does not say when it was made") from None
        except WeightsError as error:
            log.warning("a voice is passed by: %s", " ".join(str(error).split()))
            return None

    def _sync(self) -> None:
        """The directory itself reaches the disk; where that cannot be asked for, in its own time."""
        with contextlib.suppress(OSError):
            handle = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _link(fresh: Path, where: Path) -> None:
    """Put a file in its place unless that is taken (FileExistsError)."""
    try:
        os.link(fresh, where)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if (
            where.exists()
        ):  # a file system without links: two processes at once may both find it free
            raise FileExistsError(where) from None
        os.replace(fresh, where)
