"""Guard: media that clients sent are decoded in processes that may be killed at any moment; what comes back is checked numbers.

    bytes --socket--> a child of decoder.py: memory, time and files limited --socket--> JSON, arrays -> checked -> PIL, numpy, Video

One child a medium, a few at a time. A child that takes too long or too much, or dies of what it reads, costs its sender an
error and nobody else anything. Sockets, not shared memory: who wrote into memory that we read could cut it off under us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from thinktalk.errors import InputError
from thinktalk.media.fetch import one_line
from thinktalk.media.video import Video
from thinktalk.server.decoding import VOICE, Guard, Limits, decode
from thinktalk.server.nursery import nursery
from thinktalk.server.settings import Settings

__all__ = ["LENGTH", "Job", "ProcessGuard", "ThreadGuard", "make_guard"]

log = logging.getLogger("thinktalk.server")

GRACE_S = 2.0  # the kernel ends a child at its time; after this we do
MAX_HEAD = 1 << 16
EXPECTED = {"audio": [("float32", 1)], "voice": [("float32", 1)], "image": [("uint8", 3)], "video": [("uint8", 4), ("float32", 1)]}  # fmt: skip
LENGTH = struct.Struct("<Q")
"""What comes next through the socket is so long."""


@dataclass(frozen=True)
class Job:
    """What a child is asked to do; the medium's bytes follow it."""

    kind: str
    name: str
    size: int
    limits: Limits
    seconds: float
    mib: int


class Died(Exception):  # noqa: N818  (an event, not our error)
    """The child ended without an answer."""


class ProcessGuard:
    """See Guard in decoding.py. `workers`: media at a time; `seconds`, `mib`: limits of one."""

    def __init__(self, limits: Limits, *, workers: int, seconds: float, mib: int):
        self.limits, self.seconds, self.mib = limits, seconds, mib
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="thinktalk-decode")
        self._exchanges: set[_Exchange] = set()

    async def start(self) -> None:
        """The decoders' parent begins to load, once for all guards of this process."""
        nursery().start()

    async def decode(self, kind: str, data: bytes, *, name: str = "") -> Any:
        """See Guard. Who is cancelled leaves no child behind."""
        name = name or kind
        self.limits.check_bytes(kind, len(data), name)
        exchange = _Exchange(self, kind, data, name)
        self._exchanges.add(exchange)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, exchange.run)
        finally:
            exchange.stop()
            self._exchanges.discard(exchange)

    async def close(self) -> None:
        """No child of this guard is left."""
        for exchange in list(self._exchanges):
            exchange.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


class ThreadGuard:
    """Decodes in threads of this process: limits hold, but a file that makes a decoder hang keeps its thread."""

    def __init__(self, limits: Limits, *, threads: int):
        self.limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thinktalk-decode")

    async def start(self) -> None:
        """Nothing to do."""

    async def decode(self, kind: str, data: bytes, *, name: str = "") -> Any:
        """See Guard."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: decode(kind, data, self.limits, name=name))  # fmt: skip

    async def close(self) -> None:
        """No thread takes anything new."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def make_guard(limits: Limits, settings: Settings) -> Guard:
    """Processes where the system can fork them, threads elsewhere."""
    if not hasattr(os, "fork"):
        log.warning(
            "this system cannot fork: media are decoded by threads, and a hostile file may keep one"
        )
        return ThreadGuard(limits, threads=settings.decode_workers)
    return ProcessGuard(
        limits, workers=settings.decode_workers, seconds=settings.decode_seconds, mib=settings.decode_mib
    )  # fmt: skip


class _Exchange:
    """One medium on its way through a child; runs in a thread."""

    def __init__(self, guard: ProcessGuard, kind: str, data: bytes, name: str):
        self.guard, self.kind, self.data, self.name = guard, kind, data, name
        self.socket: socket.socket | None = None
        self.number: int | None = None
        self.stopped = False
        self._lock = threading.Lock()

    def run(self) -> Any:
        """The decoded medium. Errors: InputError."""
        guard = self.guard
        began = time.monotonic()
        try:
            with self._begin() as ours:
                began = time.monotonic()
                until = began + guard.seconds + GRACE_S
                self._send(ours, until)
                head = self._head(ours, until)
                if "error" in head:
                    raise InputError(one_line(str(head["error"]), 500))
                return self._result(head, ours, until)
        except (Died, OSError) as death:
            if time.monotonic() - began >= guard.seconds:
                raise InputError(f"{self.name}: took longer than {guard.seconds:g} s to decode; send a shorter or simpler file") from None  # fmt: skip
            raise InputError(
                f"{self.name}: its decoder ended without a result (damaged, or it needs over {guard.mib} MiB); send another file"
            ) from death
        finally:
            self.stop()

    def _begin(self) -> socket.socket:
        for attempt in (1, 2):
            nursery().wait()
            ours, theirs = socket.socketpair()
            with theirs, self._lock:
                if self.stopped:
                    ours.close()
                    raise Died("not wanted any more")
                try:
                    self.number = nursery().begin(theirs)
                except OSError:  # killed for memory, perhaps: wait() starts another
                    ours.close()
                    if attempt == 2:
                        raise
                    continue
                self.socket = ours
                return ours
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the child, whatever it does; harmless when it has ended."""
        with self._lock:
            self.stopped = True
            if self.number is not None:
                nursery().kill(self.number)
                self.number = None
            if self.socket is not None:
                with contextlib.suppress(OSError):  # wakes the thread that waits on it
                    self.socket.shutdown(socket.SHUT_RDWR)
                self.socket = None

    def _send(self, ours: socket.socket, until: float) -> None:
        guard = self.guard
        job = pickle.dumps(Job(self.kind, self.name, len(self.data), guard.limits, guard.seconds, guard.mib))  # fmt: skip
        for part in (LENGTH.pack(len(job)) + job, self.data):
            ours.settimeout(max(0.01, until - time.monotonic()))
            ours.sendall(part)

    # --------------------------------------------------------------------- what comes back is as little trusted as the file

    def _head(self, ours: socket.socket, until: float) -> dict[str, Any]:
        (length,) = LENGTH.unpack(_receive(ours, LENGTH.size, until))
        if length > MAX_HEAD:
            raise Died("a head too long")
        try:
            head = json.loads(bytes(_receive(ours, length, until)))
        except ValueError:
            raise Died("no JSON") from None
        if not isinstance(head, dict):
            raise Died("no object")
        return head

    def _result(self, head: dict[str, Any], ours: socket.socket, until: float) -> Any:
        described, expected = head.get("arrays"), EXPECTED[self.kind]
        if not isinstance(described, list) or not 1 <= len(described) <= len(expected):
            raise Died("not the arrays that were expected")
        shapes = [_shape(one, *want) for one, want in zip(described, expected, strict=False)]
        bytes_each = [int(np.prod(s, dtype=object)) * np.dtype(e[0]).itemsize for s, e in zip(shapes, expected, strict=False)]  # fmt: skip
        if sum(bytes_each) > self.guard.mib << 20:
            raise Died("more than its memory")
        arrays = [
            _receive(ours, count, until).view(kind).reshape(shape)
            for count, (kind, _), shape in zip(bytes_each, expected, shapes, strict=False)
        ]
        for array in arrays:
            if array.dtype == np.float32 and not np.isfinite(array).all():
                raise Died("no numbers")
        return self._built(head, arrays)

    def _built(self, head: dict[str, Any], arrays: list[np.ndarray]) -> Any:
        limits = self.guard.limits
        if self.kind in ("audio", VOICE):
            return arrays[0], limits.rate(self.kind)
        if arrays[0].shape[-1] != 3 or not arrays[0].size:
            raise Died("no colours")
        if self.kind == "image":
            if arrays[0].size > 3 * limits.image_pixels:
                raise Died("a picture too large")
            return Image.fromarray(arrays[0])
        fps, seconds = head.get("fps"), head.get("seconds")
        if not all(isinstance(x, int | float) and 0 < x < 1e6 for x in (fps, seconds)):
            raise Died("no clock")
        if seconds > limits.video_seconds * 1.02 + 1:  # what it declared was checked before
            raise InputError(f"{self.name}: is {seconds:.0f} s long, expected at most {limits.video_seconds:g} s; cut it")  # fmt: skip
        return Video(arrays[0], float(fps), float(seconds), arrays[1] if len(arrays) > 1 else None)


def _shape(described: Any, kind: str, dims: int) -> tuple[int, ...]:
    shape = described.get("shape") if isinstance(described, dict) else None
    if not isinstance(shape, list) or len(shape) != dims or described.get("dtype") != kind:
        raise Died("another array")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40 for n in shape):
        raise Died("a strange shape")
    return tuple(shape)


def _receive(ours: socket.socket, count: int, until: float) -> np.ndarray:
    """Exactly so many bytes, before the clock says `until`."""
    data = np.empty(count, np.uint8)
    view = memoryview(data)
    while len(view):
        ours.settimeout(max(0.01, until - time.monotonic()))
        step = ours.recv_into(view)
        if not step:
            raise Died("the end")
        view = view[step:]
    return data
