"""Nursery: our end of the process that forks decoders; started when it is needed, and again when it has died.

    nursery().begin(socket) --S number, socket--> decoder.py forks a child that serves it      kill(number) --K number--> it ends

One for all guards of a process. Children are numbered; whoever began one may end it, at any moment and more than once.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

__all__ = ["ORDER", "Nursery", "nursery"]

log = logging.getLogger("thinktalk.server")

START_S = 120.0  # the libraries take seconds to import, on a busy machine more
START = "import sys; from thinktalk.server.decoder import main; sys.exit(main())"

ORDER = struct.Struct("<cQ")
"""A message to the parent of children: what to do, with which one."""


class Nursery:
    """See above; every method may be called from any thread."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._ready = False
        self._lock = threading.Lock()  # never held for long: the event loop takes it, too
        self._loading = threading.Lock()
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Begin to load; does not wait."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            log.warning("the decoders' parent process has died; another is started")
        self._end()
        ours, theirs = socket.socketpair()
        # one thread, or a fork could meet a lock that nobody opens; two arenas, since reserved memory counts as memory
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
                env=_bare(os.environ) | single | {"MALLOC_ARENA_MAX": "2", "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        self._control, self._ready = ours, False

    def wait(self) -> None:
        """Until children can be had; for threads. Errors: RuntimeError."""
        with self._loading:
            with self._lock:
                self._start()
                control = self._control
                if self._ready:
                    return
            assert control is not None
            control.settimeout(START_S)
            try:
                begun = control.recv(1) == b"+"
            except OSError:
                begun = False
            if not begun:
                raise RuntimeError(
                    "the decoders' parent process did not start; its last words are above"
                )
            control.settimeout(5.0)
            with self._lock:
                self._ready = self._control is control

    def begin(self, theirs: socket.socket) -> int:
        """A child that serves this socket; its number. Errors: OSError when the parent has just died."""
        number = next(self._numbers)
        with self._lock:
            if self._control is None or not self._ready:
                raise OSError("the decoders' parent process is gone")
            socket.send_fds(self._control, [ORDER.pack(b"S", number)], [theirs.fileno()])
        return number

    def kill(self, number: int) -> None:
        """End that child if it lives."""
        with self._lock:
            if self._control is not None and self._ready:
                with contextlib.suppress(OSError):
                    self._control.sendall(ORDER.pack(b"K", number))

    def close(self) -> None:
        """All of them end."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self.process is not None:
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:  # still importing: it holds nothing
                self.process.kill()
                self.process.wait()
            self.process = None


@functools.cache
def nursery() -> Nursery:
    """The one of this process; it ends with it."""
    made = Nursery()
    atexit.register(made.close)
    return made


def _bare(environ: Any) -> dict[str, str]:
    """Decoders learn no secret: neither our keys nor those of others."""
    secret = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
    return {k: v for k, v in environ.items() if not any(word in k.upper() for word in secret)}
