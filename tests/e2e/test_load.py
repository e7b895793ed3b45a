"""Many clients at once, good and bad ones: each good one gets its own answer or is told to come again, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from crowd import FEW, MANY, Answer, Told, alone, crowd, same
from serving import Server, serving

LOAD_S = float(os.environ.get("THINKTALK_LOAD_SECONDS", "180"))
SEATS, LINE = 6, 8
ROOM = ["--max-sessions", str(SEATS), "--queue-size", str(LINE), "--queue-seconds", "3", "--max-codes", "60"]  # fmt: skip


def states(server: Server) -> dict[str, float]:
    """The server's counters and gauges."""
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}  # fmt: skip


def settled(server: Server) -> None:
    """Nobody is left in it, or in its line."""
    until = time.monotonic() + 60
    while True:
        now = states(server)
        if now["thinktalk_sessions"] == now["thinktalk_waiting"] == 0:
            return
        assert time.monotonic() < until, now
        time.sleep(0.05)


def all_differ(expected: dict[str, list[Answer]]) -> None:
    """Else a mix-up would not be seen."""
    for answers in expected.values():
        for n in range(len(answers)):
            assert answers[n].words and answers[n].sound
            assert not any(same(answers[n], other) for other in answers[:n])


def test_each_of_a_few_gets_his_own_answer_whatever_the_others_do(server: Server) -> None:
    expected = asyncio.run(alone(server, 2))
    all_differ(expected)
    told = asyncio.run(crowd(server, expected, FEW, lambda visits: visits < 1))
    assert not told.wrong and told.of("done") == sum(FEW.values())
    settled(server)


def test_an_answer_to_another_question_is_found(server: Server) -> None:
    """Planted: two of the answers are expected in each other's place."""

    async def main() -> Told:
        answers = [Answer("a", b"\0\0"), Answer("b", b"\0\0")]
        expected = {"chat": answers}
        return await crowd(server, expected, {"chatter": 1}, lambda visits: visits < 1)

    (wrong,) = asyncio.run(main()).wrong
    assert "not its own answer" in wrong


class Watch(threading.Thread):
    """What a server's process holds, and how many it talks with, now and then."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self.server, self.process = server, psutil.Process(server.process.pid)
        self.megabytes: list[float] = []
        self.sessions, self.waiting, self.ended = 0, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(1.0):
            now = states(self.server)
            self.sessions = max(self.sessions, int(now["thinktalk_sessions"]))
            self.waiting = max(self.waiting, int(now["thinktalk_waiting"]))
            self.megabytes.append(self.process.memory_info().rss / 1e6)

    def held(self) -> tuple[int, int]:
        """Open files and threads."""
        return self.process.num_fds(), self.process.num_threads()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_two_clients_for_minutes(tiny_checkpoint: str, tmp_path: Path) -> None:
    with serving(tiny_checkpoint, *ROOM, log=tmp_path / "log") as server:
        expected = asyncio.run(alone(server))
        all_differ(expected)
        asyncio.run(crowd(server, expected, MANY, lambda visits: visits < 1))  # all that grows once
        settled(server)
        watch = Watch(server)
        before = watch.held()
        watch.start()
        until = time.monotonic() + LOAD_S
        told = asyncio.run(crowd(server, expected, MANY, lambda _: time.monotonic() < until, seed=1))  # fmt: skip
        settled(server)
        watch.ended.set()
        watch.join()
        files, threads = watch.held()
        text = server.text()
        again = asyncio.run(alone(server))  # the next user is served as the first one was
    third = max(1, len(watch.megabytes) // 3)
    grown = max(watch.megabytes[-third:]) - max(watch.megabytes[:third])
    print(f"{dict(told.counts)}\n{told.of('refused')} refused, {max(watch.megabytes):.0f} MB at most, {grown:+.0f} MB from first third to last")  # fmt: skip
    assert not told.wrong, told.wrong[:5]
    assert not told.of("cut")
    assert told.of("refused"), "32 clients and 14 places: some must be turned away"
    for kind in MANY:
        assert told.counts[kind, "done"], f"no {kind} was ever served"
    assert watch.sessions <= SEATS and watch.waiting <= LINE
    assert grown < 40
    assert files <= before[0] + 8 and threads <= before[1] + SEATS + 16
    assert "Traceback" not in text and "failed" not in text
    for name, answers in expected.items():
        assert all(same(a, b) for a, b in zip(answers, again[name], strict=True))
