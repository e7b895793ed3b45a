"""Items: a measurement's items, one by one -> one JSON line each, on disk before the next begins.

    Item(key, content) --work--> {"key", "seconds", ...numbers and texts}      or {"key", "seconds", "fault"}

An evaluation on two cores takes hours and gets killed. What was done stays done: the same call goes on at the first item that
has no line. Results of another model, seed or judge have another identity and so another file; nothing is ever overwritten.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from thinktalk.errors import InputError, ThinktalkError

__all__ = ["Item", "journal_path", "read_results", "run_items"]

Result = dict[str, Any]
Work = Callable[["Item"], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is asked."""

    key: str
    """Its name, unique in its measurement and the same on every machine."""
    content: Any
    """What `work` needs."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What its result says in any case, a fault too: the words that were to be heard."""


def run_items(
    items: Sequence[Item],
    work: Work,
    folder: str | os.PathLike[str],
    name: str,
    *,
    identity: Mapping[str, Any],
    watch: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """The result of each item, in their order; those in FOLDER/NAME-<hash of identity>.jsonl are not asked again.

    work:      gives numbers and texts that JSON can hold. A ThinktalkError of it is the item's result, as its "fault":
               what a model cannot answer must count against it, and must not end the night's run.
    identity:  all that a result depends on: weights, data, seed, options, the judge and its version.
    watch:     called with how many are done, and of how many.
    Errors: InputError (two items of one key, another process writes there, the disk is full).
    """
    keys = [item.key for item in items]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{name}: two items are called {twice!r}, expected a name for each; rename one")  # fmt: skip
    path = journal_path(folder, name, identity)
    try:
        with _opened(path, identity) as (file, done):
            for item in items:
                if item.key not in done:
                    done[item.key] = _asked(item, work)
                    _append(file, done[item.key])
                if watch is not None:
                    watch(sum(key in done for key in keys), len(keys))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}), expected room for results; make room and go on") from None  # fmt: skip
    return [done[key] for key in keys]


def journal_path(folder: str | os.PathLike[str], name: str, identity: Mapping[str, Any]) -> Path:
    """Where the results of a measurement with this identity are."""
    digest = hashlib.sha256(_line(identity)).hexdigest()[:10]
    return Path(folder) / f"{name.replace('/', '_')}-{digest}.jsonl"


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """All results of a file that are whole; none where there is no file."""
    path = Path(path)
    return list(_whole(path.read_bytes())[0].values()) if path.exists() else []


def _asked(item: Item, work: Work) -> Result:
    began = time.perf_counter()
    try:
        told = dict(work(item))
    except ThinktalkError as error:
        told = {"fault": " ".join(str(error).split())}
    return {"key": item.key, "seconds": round(time.perf_counter() - began, 4), **item.told, **told}


@contextmanager
def _opened(path: Path, identity: Mapping[str, Any]) -> Iterator[tuple[BinaryIO, dict[str, Result]]]:  # fmt: skip
    """The file, behind its last whole line, and what it holds; for one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: is written by another process, expected to be alone; wait for it or end it") from None  # fmt: skip
        file.seek(0)
        done, whole = _whole(file.read())
        file.truncate(whole)  # a kill may leave half a line: its item is asked again
        if whole == 0:
            _append(file, {"identity": dict(identity)})
        yield file, done


def _whole(content: bytes) -> tuple[dict[str, Result], int]:
    """Results by key, and the bytes up to the end of the last line that is whole."""
    done: dict[str, Result] = {}
    end = 0
    for line in content.splitlines(keepends=True):
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        end += len(line)
        if "key" in value:
            done.setdefault(value["key"], value)
    return done, end


def _append(file: BinaryIO, value: Mapping[str, Any]) -> None:
    file.write(_line(value))
    file.flush()
    os.fsync(file.fileno())  # a result may have cost a minute; a power cut should not cost it again


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False).encode() + b"\n"
