"""Soak: random people come, listen, talk, interrupt, rewind, fail and go; memory is flat and every reply is right."""

from __future__ import annotations

import gc
import random
import resource
import weakref

import pytest
from engine_rig import (
    Ear,
    cut,
    make_engine,
    make_options,
    offline,
    random_ids,
    rig_model,
    text_reading,
)

from thinktalk.engine import Busy, Engine, Failed, Seat

ALIVE: weakref.WeakSet = weakref.WeakSet()  # places of conversations


class Person:
    """One random conversation; knows what it should hear."""

    def __init__(self, engine: Engine, draw: random.Random):
        self.engine, self.draw = engine, draw
        self.speaks = draw.random() < 0.8
        self.seat: Seat = engine.open(voice="Chelsie" if self.speaks else None)
        ALIVE.add(self.seat)
        self.known: list[int] = []  # tokens of the conversation so far
        self.turns = draw.randint(1, 3)
        self.ear: Ear | None = None
        self.gone = False
        self.check = draw.random() < 0.2  # offline takes longer than talking

    def live(self, results: dict[str, int]) -> None:
        """A moment of its life."""
        draw, seat = self.draw, self.seat
        if self.ear is None:
            if not seat.idle:
                return
            if self.turns == 0 or draw.random() < 0.05:
                return self.leave(results, "left")
            self.ask()
        elif self.ear.over:
            self.heard(results)
        elif draw.random() < 0.004:
            said = seat.cancel()
            if said.token_ids:
                keep = draw.randint(0, len(said.token_ids))
                seat.keep(keep)
                self.known += said.token_ids[:keep]
            elif not seat.idle:
                self.leave(results, "left")  # what was asked is still being read
            self.ear = None
            results["interrupted"] += 1
        elif draw.random() < 0.001:
            self.leave(results, "hung up")

    def ask(self) -> None:
        draw, seat = self.draw, self.seat
        self.turns -= 1
        ids = random_ids(draw.randint(0, 1 << 30), draw.randint(1, 60))
        self.mark, self.before = seat.mark(), list(self.known)
        sizes = [draw.randint(0, 20) for _ in range(draw.randint(0, 3))]
        seat.read(cut(text_reading(ids, start=seat.next_position), sizes))
        self.breaks = draw.random() < 0.05
        if self.breaks:
            seat.read(lambda: 1 / 0)
        self.known += ids
        self.options = make_options(
            greedy=draw.random() < 0.5, seed=draw.randint(0, 9), tokens=draw.randint(1, 12), codes=draw.randint(1, 24),
            speech=self.speaks and draw.random() < 0.9,
        )  # fmt: skip
        self.asked, self.ear = list(self.known), Ear()
        seat.reply(self.options, self.ear)

    def heard(self, results: dict[str, int]) -> None:
        failed = isinstance(self.ear.events[-1], Failed)
        assert failed == self.breaks
        if failed:
            self.seat.rewind(self.mark)
            self.known = self.before
            results["failed"] += 1
        else:
            if self.check:
                assert self.ear.result == offline(text_reading(self.asked), self.options)
                results["checked"] += 1
            self.known += self.ear.reply.token_ids
            results["answered"] += 1
        self.ear = None

    def leave(self, results: dict[str, int], how: str) -> None:
        self.seat.close()
        self.gone = True
        results[how] += 1


def soak(sessions: int, seed: int, crowd: int = 12) -> dict[str, int]:
    """So many sessions, at most `crowd` at once; memory as at the start when they have gone."""
    draw = random.Random(seed)
    results = dict.fromkeys(("answered", "checked", "failed", "interrupted", "hung up", "left", "refused"), 0)  # fmt: skip
    engine = make_engine(rig_model(), max_sessions=crowd, prefill_chunk=16)
    inside: list[Person] = []
    came = 0
    levels = []
    while came < sessions or inside:
        if came < sessions and draw.random() < 0.2:
            try:
                inside.append(Person(engine, draw))
                came += 1
            except Busy:
                results["refused"] += 1
        engine.tick()
        for person in inside:
            person.live(results)
        inside = [person for person in inside if not person.gone]
        if came and came % max(1, sessions // 10) == 0 and (not levels or levels[-1][0] != came):
            levels.append((came, len(engine.seats), rss_mb(), len(ALIVE)))
    engine.run()
    assert engine.num_bytes == 0 and not engine.seats and not engine._busy
    person = None
    gc.collect()
    assert not ALIVE, "no conversation is remembered"
    print(results, levels)
    return results | {"first_mb": levels[1][2], "last_mb": levels[-1][2]}


def rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def test_forty_sessions() -> None:
    results = soak(40, seed=1)
    assert results["answered"] > 40 and results["checked"] and results["failed"]
    assert results["interrupted"] and results["left"]


@pytest.mark.slow
def test_two_thousand_sessions() -> None:
    soak(100, seed=0)  # everything that is kept for good is there now
    results = soak(2000, seed=2)
    assert all(results.values())
    # the allocator's own play; 1,000 sessions of 20 kB each would be seen
    assert results["last_mb"] < results["first_mb"] + 20


def test_planted_leak_is_found(monkeypatch) -> None:
    kept = []
    honest = Engine._leave
    monkeypatch.setattr(
        Engine, "_leave", lambda self, seat: (kept.append(seat), honest(self, seat))
    )
    with pytest.raises(AssertionError, match="remembered"):
        soak(6, seed=3)
    kept.clear()
