"""Interruption: at whatever step a reply is ended, the conversation goes on as if the rest had never been said."""

from __future__ import annotations

import pytest
from engine_rig import (
    Ear,
    answer,
    make_engine,
    make_options,
    offline,
    random_ids,
    rig_model,
    text_reading,
)

from thinktalk.engine import Failed, Said, Seat
from thinktalk.engine.seat_state import SeatState
from thinktalk.engine.thinking import Thinking
from thinktalk.errors import InputError

PROMPT, MORE = random_ids(1, 9), random_ids(2, 5)
OPTIONS = make_options(greedy=False, seed=4, tokens=6, codes=12)


def speaking_seat(engine) -> tuple[Seat, Ear]:
    seat, ear = engine.open(voice="Chelsie"), Ear()
    seat.read(text_reading(PROMPT))
    seat.reply(OPTIONS, ear)
    return seat, ear


def every_step(company: int) -> int:
    """Units of work from the question until the seat is idle again."""
    engine = make_engine(rig_model(ends=False), prefill_chunk=4)
    seat, _ = speaking_seat(engine)
    others = [speaking_seat(engine)[0] for _ in range(company)]
    count = 0
    while engine.tick():
        count += 1
    assert seat.idle and all(other.idle for other in others)
    return count


def check_cancel(company: int, steps: range, keep=None) -> set[Said]:
    """Cancel after so many units of work, keep some tokens, go on; the others do not notice."""
    model, seen = rig_model(ends=False), set()
    expected = offline(text_reading(PROMPT), OPTIONS, model=model)
    for step in steps:
        engine = make_engine(model, prefill_chunk=4)
        seat, ear = speaking_seat(engine)
        others = [speaking_seat(engine) for _ in range(company)]
        for _ in range(step):
            engine.tick()
        said = seat.cancel()
        heard = len(ear.events)
        assert list(said.token_ids) == expected[0][: len(said.token_ids)]
        kept = len(said.token_ids) if keep is None else keep(len(said.token_ids))
        if keep is not None and said.token_ids:
            seat.keep(kept)
        if not said.token_ids:  # not begun: the prompt is still read
            kept = 0
        seen.add(said)
        seat.engine.run(until=lambda seat=seat: seat.idle)
        assert ear.events[heard:] == [], "nothing comes after cancel()"
        # with something new to read, and by itself
        go_on(seat, list(said.token_ids[:kept]), model, MORE if step % 2 else [])
        for _, other in others:
            engine.run(until=lambda other=other: other.over)
            assert other.result == expected
    return seen


def go_on(seat: Seat, kept: list[int], model, more: list[int] = MORE) -> None:
    """The next turn is what it would be had only `kept` been said."""
    assert seat.length == len(PROMPT) + len(kept) == seat.next_position
    assert seat.state.token_ids.tolist() == [PROMPT + kept]
    assert seat.state.talker.extent == seat.length
    if more:
        seat.read(text_reading(more, start=seat.next_position, model=model))
    result = answer(seat, OPTIONS).result
    assert result == offline(text_reading(PROMPT + kept + more, model=model), OPTIONS, model=model)


def test_cancel_at_every_possible_step() -> None:
    count = every_step(0)
    seen = check_cancel(0, range(count + 1))
    assert {len(said.token_ids) for said in seen} == set(range(7)), "each length was met"
    assert len({said.codes for said in seen}) > 8


def test_cancel_in_company() -> None:
    check_cancel(2, range(0, every_step(2), 5))


@pytest.mark.parametrize("keep", [lambda n: 0, lambda n: n // 2, lambda n: max(0, n - 1)])
def test_only_what_was_heard_was_said(keep) -> None:
    check_cancel(0, range(3, every_step(0) + 2, 3), keep)


def test_planted_faults_are_found(monkeypatch) -> None:
    honest = SeatState.go_back
    with monkeypatch.context() as patch:  # the last hidden state is another token's
        patch.setattr(
            SeatState, "go_back", lambda self, mark, ids, hidden: honest(self, mark, ids, [h.roll(1, -1) for h in hidden])
        )  # fmt: skip
        with pytest.raises(AssertionError):
            check_cancel(0, range(12, 17, 2), lambda n: n - 1)
    chunk = Thinking.recollection
    with monkeypatch.context() as patch:  # the Talker hears its reply without the Thinker's states
        patch.setattr(
            Thinking, "recollection", lambda self, ids, hidden, at: chunk(self, ids, [0 * h for h in hidden], at)
        )  # fmt: skip
        with pytest.raises(AssertionError):
            check_cancel(0, range(12, 30, 4))


def test_after_the_end_there_is_time_to_say_what_was_heard() -> None:
    """Sound is made faster than it is played: who interrupts often does so after Done."""
    model = rig_model(ends=False)
    for settled in (False, True):
        for keep in (0, 3, 6):
            engine = make_engine(model)
            seat, ear = speaking_seat(engine)
            engine.run(until=None if settled else lambda ear=ear: ear.over)
            said = seat.cancel()
            assert said.speaking_done and len(said.token_ids) == 6 == len(ear.reply.token_ids)
            seat.keep(keep)
            engine.run()
            go_on(seat, list(said.token_ids[:keep]), model)


def test_keep_comes_before_anything_else_is_read() -> None:
    engine = make_engine()
    seat, _ = speaking_seat(engine)
    engine.run()
    with pytest.raises(InputError, match="tokens"):
        seat.keep(1000)
    seat.read(text_reading(MORE, start=seat.next_position))
    with pytest.raises(InputError, match="queued"):
        seat.keep(0)
    engine.run()
    with pytest.raises(InputError, match="no reply"):
        seat.keep(0)


def test_rewind_undoes_turns() -> None:
    engine = make_engine()
    seat = engine.open(voice="Chelsie")
    seat.read(text_reading(PROMPT))
    engine.run()
    mark = seat.mark()
    first = answer(seat, OPTIONS).result
    engine.run()
    seat.read(text_reading(MORE, start=seat.next_position))
    ear = Ear()
    seat.reply(OPTIONS, ear)
    for _ in range(5):
        engine.tick()
    seat.rewind(mark)
    assert seat.idle and seat.length == len(PROMPT)
    assert answer(seat, OPTIONS).result == first
    assert not ear.over


def test_a_fork_goes_its_own_way() -> None:
    engine = make_engine()
    seat = engine.open(voice="Chelsie")
    seat.read(text_reading(PROMPT))
    engine.run()
    twin = seat.fork()
    other = make_options(greedy=False, seed=9, tokens=6, codes=12)
    ears = [Ear(), Ear()]
    seat.reply(OPTIONS, ears[0])
    twin.reply(other, ears[1])
    engine.run()
    assert ears[0].result == offline(text_reading(PROMPT), OPTIONS)
    assert ears[1].result == offline(text_reading(PROMPT), other)
    seat.reply(OPTIONS, Ear())
    with pytest.raises(InputError, match="idle"):
        seat.fork()


def test_cancel_from_inside_an_event() -> None:
    engine = make_engine(rig_model(ends=False))
    seat = engine.open(voice="Chelsie")
    heard = []

    def stop(event) -> None:
        assert not isinstance(event, Failed)
        heard.append(event)
        if len(heard) == 3:
            heard.append(seat.cancel())

    seat.read(text_reading(PROMPT))
    seat.reply(OPTIONS, stop)
    engine.run()
    assert isinstance(heard[-1], Said) and len(heard) == 4
    go_on(seat, list(heard[-1].token_ids), rig_model(ends=False))


def test_close_in_the_middle_frees_everything() -> None:
    engine = make_engine(rig_model(ends=False))
    for step in range(0, 40, 3):
        seat, ear = speaking_seat(engine)
        other, other_ear = speaking_seat(engine)
        for _ in range(step):
            engine.tick()
        seat.close()
        heard = len(ear.events)
        engine.run()
        assert len(ear.events) == heard and other_ear.over
        other.close()
        assert engine.num_bytes == 0 and not engine.seats
        with pytest.raises(InputError, match="closed"):
            seat.reply(OPTIONS, ear)
