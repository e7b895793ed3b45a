"""Supervisor: several processes on one socket. It loads no model; it starts workers, replaces those that die, ends them all.

socket --inherited--> worker, worker, ...      whoever is free takes the next connection; a connection stays with its worker
SIGTERM, SIGINT       every worker drains, then it ends with status 0; a second signal kills
a worker dies         another takes its place, after a pause that doubles while they die young
the supervisor dies   its workers see their standard input end, and drain
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from thinktalk.server.settings import Settings

__all__ = ["supervise"]

log = logging.getLogger("thinktalk.supervisor")

COMMAND = [sys.executable, "-m", "thinktalk.server.worker"]
LOOK_S = 0.1
YOUNG_S = 30.0
PAUSES_S = (0.2, 30.0)  # shortest and longest pause before a worker is replaced
GRACE_S = 10.0  # beyond drain_seconds, until a worker is killed
MEND = 2  # exit status of a worker that another one would not do better than


@dataclass
class Worker:
    """One process."""

    process: subprocess.Popen
    ready_pipe: int
    born: float
    ready: bool = False


def supervise(settings: Settings, sock: socket.socket, *, on_ready: Callable[[], None]) -> int:
    """Keep settings.workers processes serving until a signal; the exit status. `on_ready`: when all answer requests."""
    with tempfile.TemporaryDirectory(prefix="thinktalk-metrics-") as metrics:
        return _Supervisor(settings, sock, metrics, on_ready).run()


class _Supervisor:
    def __init__(self, settings: Settings, sock: socket.socket, metrics: str, on_ready: Callable):
        self.settings, self.sock, self.metrics, self.on_ready = settings, sock, metrics, on_ready
        self.workers: list[Worker] = []
        self.signals = 0
        self.told = False
        self.pause_s, self.next_start = PAUSES_S[0], 0.0
        self.selector = selectors.DefaultSelector()

    def run(self) -> int:
        before = {sig: signal.signal(sig, self._signal) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = self._keep()
            return self._end() if status is None else status
        finally:
            self._kill()
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _signal(self, *_: object) -> None:
        self.signals += 1

    def _keep(self) -> int | None:
        """Until a signal (None), or an exit status where no worker can serve."""
        while not self.signals:
            missing = self.settings.workers - len(self.workers)
            if missing and time.monotonic() >= self.next_start:
                self.workers += [self._start() for _ in range(missing)]
            self._listen()
            for worker in [w for w in self.workers if w.process.poll() is not None]:
                status = self._bury(worker)
                if status == MEND and not worker.ready:
                    return MEND
            if not self.told and len(self.workers) == self.settings.workers and all(w.ready for w in self.workers):  # fmt: skip
                self.told = True
                self.on_ready()
        return None

    def _start(self) -> Worker:
        read, write = os.pipe()
        number = self.sock.fileno()
        process = subprocess.Popen(
            [*COMMAND, str(number), str(write)],
            stdin=subprocess.PIPE,
            pass_fds=(number, write),
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": self.metrics},
        )
        os.close(write)
        with contextlib.suppress(BrokenPipeError):  # it is dead already: _keep will see
            process.stdin.write(self.settings.to_json().encode() + b"\n")
            process.stdin.flush()  # and left open: its end tells the worker that we are gone
        self.selector.register(read, selectors.EVENT_READ)
        return Worker(process, read, time.monotonic())

    def _listen(self) -> None:
        """Wait a moment; who has told that it answers?"""
        if not self.selector.get_map():
            time.sleep(LOOK_S)
            return
        for key, _ in self.selector.select(LOOK_S):
            worker = next(w for w in self.workers if w.ready_pipe == key.fd)
            worker.ready = os.read(key.fd, 1) == b"."
            self.selector.unregister(key.fd)  # said, or dead: nothing more will come
            if not worker.ready:
                time.sleep(LOOK_S)

    def _bury(self, worker: Worker) -> int:
        """One is dead: its counters no longer live, and when may the next one start?"""
        self.workers.remove(worker)
        with contextlib.suppress(KeyError):
            self.selector.unregister(worker.ready_pipe)
        os.close(worker.ready_pipe)
        with contextlib.suppress(OSError):
            worker.process.stdin.close()
        _mark_dead(self.metrics, worker.process.pid)
        status = worker.process.returncode
        young = time.monotonic() - worker.born < YOUNG_S
        self.pause_s = min(2 * self.pause_s, PAUSES_S[1]) if young else PAUSES_S[0]
        self.next_start = time.monotonic() + self.pause_s
        if not self.signals:
            log.error("worker %d ended with status %d; another starts in %.1f s", worker.process.pid, status, self.pause_s)  # fmt: skip
        return status

    def _end(self) -> int:
        """Everybody drains."""
        self.sock.close()
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self.settings.drain_seconds + GRACE_S
        while self.workers and self.signals < 2 and time.monotonic() < until:
            time.sleep(LOOK_S)
            for worker in [w for w in self.workers if w.process.poll() is not None]:
                self._bury(worker)
        return 0

    def _kill(self) -> None:
        for worker in list(self.workers):
            worker.process.kill()
            worker.process.wait()
            self._bury(worker)
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.selector.close()


def _mark_dead(directory: str, pid: int) -> None:
    """Gauges of a dead process no longer count; its counters stay."""
    for name in os.listdir(directory):
        if name.startswith("gauge_live") and name.endswith(f"_{pid}.db"):
            os.remove(os.path.join(directory, name))
