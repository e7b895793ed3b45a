"""The supervisor, with workers that load no model: each accepts on the shared socket and says its number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

WORKER = """
import json, os, signal, socket, sys, threading
sock, ready = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
settings = json.loads(sys.stdin.readline())
mode = open(settings["model"]).read()
if mode == "mend":
    sys.exit(2)
if mode == "die":
    sys.exit(7)
if mode != "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

def follow():
    while sys.stdin.read(1):
        pass
    os._exit(0)

threading.Thread(target=follow, daemon=True).start()
gauge = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"gauge_livesum_{os.getpid()}.db")
open(gauge, "w").close()
sock.setblocking(True)
os.write(ready, b"."); os.close(ready)
while True:
    peer, _ = sock.accept()
    seen = " ".join(sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
    peer.sendall(f"{os.getpid()} {seen}".encode())
    peer.close()
"""

SUPERVISOR = """
import socket, sys
from thinktalk.server import supervisor
from thinktalk.server.settings import Settings
supervisor.COMMAND = [sys.executable, sys.argv[1]]
sock = socket.create_server(("127.0.0.1", 0))
settings = Settings(workers=2, model=sys.argv[2], drain_seconds=float(sys.argv[3]))
sys.exit(supervisor.supervise(settings, sock, on_ready=lambda: print(sock.getsockname()[1], flush=True)))
"""


@contextmanager
def supervised(folder: Path, mode: str = "", drain_s: float = 5.0) -> Iterator[subprocess.Popen]:
    """A supervisor with two workers of a kind."""
    (folder / "worker.py").write_text(WORKER)
    (folder / "mode").write_text(mode)
    words = [sys.executable, "-c", SUPERVISOR, str(folder / "worker.py"), str(folder / "mode"), str(drain_s)]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ask(port: int) -> tuple[int, str]:
    """The number of the worker that answers, and what lies in the folder of metrics.

    A worker that is killed may have taken the call already: who is cut off calls again.
    """
    until = time.monotonic() + 20
    while time.monotonic() < until:
        where = ("127.0.0.1", port)
        with suppress(ConnectionResetError), socket.create_connection(where, timeout=10) as sock:
            pid, _, seen = sock.makefile().read().partition(" ")
            if pid:
                return int(pid), seen
    raise AssertionError("nobody answers")


def those_who_answer(port: int, count: int, *, without: int = 0) -> set[int]:
    """Ask until so many different ones have answered."""
    until, found = time.monotonic() + 20, set()
    while len(found) < count:
        assert time.monotonic() < until, f"only {found} answer"
        pid, _ = ask(port)
        if pid != without:
            found.add(pid)
    return found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def wait_until(condition) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_a_killed_worker_is_replaced_and_sigterm_ends_them_all(tmp_path: Path):
    with supervised(tmp_path) as process:
        port = int(process.stdout.readline())
        first, second = those_who_answer(port, 2)
        os.kill(first, signal.SIGKILL)
        pids = those_who_answer(port, 2, without=first)
        assert second in pids and first not in pids
        _, seen = ask(port)
        assert f"_{first}.db" not in seen and f"_{second}.db" in seen  # its gauges no longer count
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert all(gone(pid) for pid in pids)
        assert f"worker {first} ended with status -9" in process.stderr.read()


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path):
    with supervised(tmp_path) as process:
        pids = those_who_answer(int(process.stdout.readline()), 2)
        process.kill()
        wait_until(lambda: all(gone(pid) for pid in pids))


def test_a_worker_that_will_not_end_is_killed_by_a_second_signal(tmp_path: Path):
    with supervised(tmp_path, "stubborn", drain_s=60) as process:
        pids = those_who_answer(int(process.stdout.readline()), 2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None  # it waits for its workers
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        wait_until(lambda: all(gone(pid) for pid in pids))


def test_what_only_the_user_can_mend_ends_it(tmp_path: Path):
    with supervised(tmp_path, "mend") as process:
        assert process.wait(20) == 2


def test_workers_that_die_young_are_started_ever_more_slowly(tmp_path: Path):
    with supervised(tmp_path, "die") as process:
        pauses = []
        for line in process.stderr:
            pauses.append(float(line.rsplit("starts in ", 1)[1].split()[0]))
            if len(pauses) == 4:
                break
        assert pauses == sorted(pauses) and pauses[-1] >= 4 * pauses[0]
        (tmp_path / "mode").write_text("")  # what ailed them is over
        those_who_answer(int(process.stdout.readline()), 2)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anybody_is_ready_ends_it(tmp_path: Path, sig: signal.Signals):
    with supervised(tmp_path, "die") as process:
        process.stderr.readline()
        process.send_signal(sig)
        assert process.wait(20) == 0
