"""The engine's own thread: wishes come from other threads, all work is done in one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from engine_rig import Ear, make_engine, make_options, offline, random_ids, rig_model, text_reading

from thinktalk.engine import Failed, Said
from thinktalk.engine.worker import Worker
from thinktalk.errors import InputError
from thinktalk.events import TextDelta

WAIT_S = 60  # only reached when something hangs


class LoudEar(Ear):
    """Says when it is over, and in which threads it was called."""

    def __init__(self):
        super().__init__()
        self.done, self.threads = threading.Event(), set()

    def __call__(self, event) -> None:
        super().__call__(event)
        self.threads.add(threading.current_thread().name)
        if self.over:
            self.done.set()


def test_many_threads_ask_one_works() -> None:
    model = rig_model()

    def converse(engine, i: int) -> tuple:
        seat, ear = engine.open(voice="Chelsie"), LoudEar()
        seat.read(text_reading(random_ids(i, 5 + i)))
        seat.reply(make_options(greedy=False, seed=i), ear)
        assert ear.done.wait(WAIT_S)
        seat.close()
        return ear.result, ear.threads

    with make_engine(model) as engine:
        assert engine.running
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda i: converse(engine, i), range(12)))
    assert not engine.running and not engine.seats and engine.num_bytes == 0
    for i, (result, names) in enumerate(results):
        assert result == offline(
            text_reading(random_ids(i, 5 + i)), make_options(greedy=False, seed=i)
        )
        assert names == {"thinktalk-engine"}


def test_cancel_from_another_thread_is_the_last_word() -> None:
    with make_engine(rig_model(ends=False)) as engine:
        seat, ear, begun = engine.open(voice="Chelsie"), Ear(), threading.Event()

        def listen(event) -> None:
            ear(event)
            begun.set()

        seat.read(text_reading(random_ids(0, 5)))
        seat.reply(make_options(tokens=500, codes=2000), listen)
        assert begun.wait(WAIT_S)
        said = seat.cancel()
        heard = len(ear.events)
        assert isinstance(said, Said) and not said.speaking_done
        other = LoudEar()  # the engine goes on with others
        seat.keep(0)
        seat.reply(make_options(), other)
        assert other.done.wait(WAIT_S)
    assert len(ear.events) == heard and not ear.over
    words = "".join(event.text for event in ear.events if isinstance(event, TextDelta))
    assert engine.tokenizer.decode(said.token_ids).startswith(words)


def test_it_stops_and_starts_again_in_the_middle() -> None:
    engine, ear = make_engine(), LoudEar()
    seat = engine.open(voice="Chelsie")
    seat.read(text_reading(random_ids(3, 9)))
    seat.reply(make_options(), ear)
    engine.start()
    engine.stop()
    engine.stop()
    for _ in range(3):
        engine.tick()
    with engine:
        assert ear.done.wait(WAIT_S)
    assert ear.result == offline(text_reading(random_ids(3, 9)), make_options())


def test_a_wish_that_fails_fails_where_it_was_made() -> None:
    with make_engine() as engine:
        seat = engine.open(voice=None)
        with pytest.raises(Exception, match="no reply"):
            seat.keep(3)
        assert engine.running


def test_whoever_waits_is_told_when_the_engine_itself_breaks(monkeypatch) -> None:
    engine, ear = make_engine(), LoudEar()
    seat = engine.open(voice="Chelsie")
    monkeypatch.setattr(engine.costs, "add", lambda *a, **k: 1 / 0)
    seat.read(text_reading(random_ids(3, 9)))
    seat.reply(make_options(), ear)
    engine.start()
    assert ear.done.wait(WAIT_S)
    assert isinstance(ear.events[-1], Failed)
    assert isinstance(ear.events[-1].error, ZeroDivisionError)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        engine.open(voice=None)
    engine.stop()


@pytest.mark.parametrize("planted", [False, True])
def test_who_speaks_to_a_busy_engine_does_not_wait_for_it(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """A long unit of work is under way; who comes in has his seat, what he asks is queued, in order, and he goes on."""
    reading, options, gate, ear = text_reading(random_ids(3, 9)), make_options(), threading.Event(), LoudEar()  # fmt: skip

    def waiting(wish):
        made = Worker.post(engine, wish)
        made.result()
        return made

    with make_engine(rig_model()) as engine, ThreadPoolExecutor(1) as threads:
        engine.post(gate.wait)
        if planted:
            monkeypatch.setattr(engine, "post", waiting)

        def ask() -> None:
            seat = engine.open(voice="Chelsie")
            seat.read(reading)
            seat.reply(options, ear)

        asking = threads.submit(ask)
        _, waits = wait([asking], timeout=1.0 if planted else WAIT_S)
        idle = engine.seats[0].idle
        gate.set()
        asking.result(WAIT_S)
        assert bool(waits) is planted
        assert idle is planted, "what was asked and not granted yet is work"
        assert ear.done.wait(WAIT_S)
    assert ear.result == offline(reading, options)


def test_a_reply_that_could_not_even_be_asked_for_fails() -> None:
    first, second, late = LoudEar(), LoudEar(), LoudEar()
    with make_engine(rig_model(ends=False)) as engine:
        seat = engine.open(voice="Chelsie")
        seat.read(text_reading(random_ids(3, 9)))
        seat.reply(make_options(codes=500, tokens=500), first)
        seat.reply(make_options(), second)
        assert second.done.wait(WAIT_S)
        seat.close()
        seat.reply(make_options(), late)
        assert late.done.wait(WAIT_S)
    assert not first.over
    for ear, why in ((second, "under way already"), (late, "closed")):
        with pytest.raises(InputError, match=why):
            _ = ear.reply
