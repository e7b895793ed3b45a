"""Many conversations: who is let in, who goes first, and that nobody pays for another's trouble. The clock here is ours."""

from __future__ import annotations

import pkgutil

import pytest
import torch
from engine_rig import (
    Ear,
    answer,
    cut,
    make_engine,
    make_options,
    offline,
    random_ids,
    rig_model,
    text_reading,
)

from thinktalk.engine import Busy, Failed
from thinktalk.engine.replying import Stage
from thinktalk.engine.scheduler import Cost, Costs, next_unit
from thinktalk.engine.speaking import Speaking
from thinktalk.engine.thinking import Thinking
from thinktalk.events import AudioChunk, TextDelta

# ------------------------------------------------------------------------------------------------------------- admission


def test_so_many_and_no_more() -> None:
    engine = make_engine(max_sessions=2)
    first, _ = engine.open(voice=None), engine.open(voice="Chelsie")
    with pytest.raises(Busy, match="2 conversations of at most 2; close one"):
        engine.open(voice=None)
    first.close()
    engine.open(voice=None)


def test_admission_by_bytes() -> None:
    probe = make_engine()
    need = probe.admission.bytes_of(1024, speaks=True)
    engine = make_engine(max_bytes=2 * need + need // 2)
    seats = [engine.open(voice="Chelsie") for _ in range(2)]
    with pytest.raises(Busy, match=r"2 conversations hold \d+ MB of \d+ MB.*raise max_bytes"):
        engine.open(voice="Chelsie")
    engine.open(voice=None)  # one that does not speak needs less
    # what is open may not outgrow it either; the others are not touched
    seats[0].read(text_reading(random_ids(0, 2000)))
    seats[1].read(text_reading(random_ids(1, 9)))
    ears = [Ear(), Ear()]
    for seat, ear in zip(seats, ears, strict=True):
        seat.reply(make_options(), ear)
    engine.run()
    assert isinstance(ears[0].events[-1].error, Busy)
    assert ears[1].result == offline(text_reading(random_ids(1, 9)), make_options())


def test_admission_by_measured_capacity() -> None:
    engine = make_engine(max_load=0.9)
    engine.open(voice="Chelsie")
    engine.open(voice="Chelsie")  # nothing was measured yet: nobody is refused
    assert engine.admission.speakers is None
    rate = float(engine.model.config.code2wav.codes_per_second)
    for n in (
        1,
        2,
        3,
    ):  # a step takes what a quarter of real time leaves, and a tenth of that for each row
        engine.costs.add(Stage.TALK, n, (0.25 + 0.025 * n) / rate)
        engine.costs.add(Stage.THINK, n, 1e-9)
        engine.costs.add(Stage.SOUND, n, 0.15 * n, sound_s=1.0 * n)
    assert engine.admission.load(2) == pytest.approx(0.25 + 0.05 + 0.3, rel=1e-3)
    assert engine.admission.speakers == 3
    engine.open(voice="Chelsie")
    with pytest.raises(
        Busy, match=r"4 speakers would take 0\.95 s of work each second, at most 0\.9"
    ):
        engine.open(voice="Chelsie")
    engine.open(voice=None)


def test_costs_are_fitted() -> None:
    cost = Cost()
    assert cost.of(3) == 0
    cost.add(4, 2.0)
    assert cost.of(4) == pytest.approx(2.0)
    assert cost.of(8) == pytest.approx(3.0), "one size seen: half of it taken as fixed"
    for n in (1, 2, 8, 4):
        cost.add(n, 1.0 + 0.25 * n)
    assert cost.of(16) == pytest.approx(5.0)
    assert Costs().load(5, 50.0) == 0


# ------------------------------------------------------------------------------------------------------------ scheduling


COSTS = {
    Stage.READ: 0.03,
    Stage.BEGIN: 0.002,
    Stage.THINK: 0.005,
    Stage.OPEN: 0.01,
    Stage.TALK: 0.008,  # a code is 20 ms of sound
    Stage.SOUND: 0.04,  # a window is 120 ms of sound
}


class Clock:
    """Time goes by as work is done, and else not at all."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timed_engine(**options):
    """An engine whose units of work take the time of COSTS."""
    clock = Clock()
    engine = make_engine(rig_model(ends=False), clock=clock, **options)
    work = engine._work

    def slow(unit) -> None:
        clock.now += COSTS[unit.stage]
        work(unit)

    engine._work = slow
    return engine


def units(engine) -> list:
    """Work until nothing is left; what was done for whom."""
    done = []
    while True:
        unit = next_unit(engine._busy, engine.clock(), guard_s=engine._guard())
        if not engine.tick():
            return done
        done.append(unit)


def waited_ms(document: int) -> tuple[float, int]:
    """How long somebody who listens had to wait, beside somebody who reads so many tokens; and how many were read then."""
    engine = timed_engine(prefill_chunk=16)
    speaker, ear = engine.open(voice="Chelsie"), Ear()
    speaker.read(text_reading(random_ids(0, 8)))
    speaker.reply(make_options(tokens=20, codes=300), ear)
    engine.run(until=lambda: bool(ear.sound))
    reader, told = engine.open(voice=None), Ear()
    reader.read(text_reading(random_ids(1, document)))
    reader.reply(make_options(speech=False, tokens=3), told)
    engine.run(until=lambda: ear.over)
    read = reader.memory.length
    engine.run()
    assert told.reply.token_ids
    return ear.reply.latency.underrun_ms, read


def test_a_long_document_does_not_stall_a_speaker(monkeypatch) -> None:
    alone, _ = waited_ms(1)
    beside, read = waited_ms(3000)
    assert beside < alone + 1e3 * COSTS[Stage.READ], "one chunk may be in the way when he begins"
    assert 300 < read < 3000, "it is read in what time is left"
    monkeypatch.setattr("thinktalk.engine.scheduler._class", lambda *_: 2)  # a planted fault
    beside, _ = waited_ms(3000)
    with pytest.raises(AssertionError):
        assert beside < alone + 1e3 * COSTS[Stage.READ]


def test_who_runs_dry_first_goes_first() -> None:
    engine = timed_engine()
    seats = [engine.open(voice="Chelsie") for _ in range(3)]
    ears = [Ear() for _ in seats]
    for seat, ear in zip(seats, ears, strict=True):
        seat.read(text_reading(random_ids(0, 8)))
        seat.reply(make_options(codes=60), ear)
    engine.run(until=lambda: all(ear.sound for ear in ears))
    now = engine.clock()
    replies = [seat.replying for seat in seats]
    for reply, left in zip(replies, (0.5, 0.05, 5.0), strict=True):
        reply.ledger.dry_at = now + left
        reply.sounding = True
    unit = next_unit(engine._busy, now)
    assert unit.stage is Stage.SOUND and unit.seats == [seats[1], seats[0], seats[2]]
    assert next_unit(engine._busy, now, most_blocks=1).seats == [seats[1]]
    # one who is about to run dry goes before one who has waited for long
    late = engine.open(voice=None)
    late.read(text_reading(random_ids(0, 900)))
    late.reply(make_options(speech=False), Ear())
    late.replying.asked_at = now - 100
    assert next_unit(engine._busy, now).stage is Stage.SOUND
    replies[1].ledger.dry_at = now + 50
    assert next_unit(engine._busy, now).seats == [late]


def test_everybody_meets_in_one_step() -> None:
    engine = make_engine(rig_model(ends=False))
    ears = [Ear() for _ in range(5)]
    for i, ear in enumerate(ears):
        seat = engine.open(voice="Chelsie")
        seat.read(text_reading(random_ids(i, 4 + i)))
        seat.reply(make_options(tokens=12, codes=12), ear)
    done = units(engine)
    think = [len(unit.seats) for unit in done if unit.stage is Stage.THINK]
    talk = [len(unit.seats) for unit in done if unit.stage is Stage.TALK]
    assert len(think) <= 14 and think.count(5) >= 8, think
    assert len(talk) <= 14 and talk.count(5) >= 8, talk


def test_words_come_in_turn() -> None:
    engine = make_engine(rig_model(ends=False))
    ears = [Ear(), Ear()]
    for i, ear in enumerate(ears):
        seat = engine.open(voice=None)
        seat.read(text_reading(random_ids(i, 5)))
        seat.reply(make_options(speech=False, tokens=30), ear)
        for _ in range(6):
            engine.tick()
    engine.run(until=lambda: ears[0].over)
    assert sum(isinstance(event, TextDelta) for event in ears[1].events) > 5


# -------------------------------------------------------------------------------------------------------------- failures


def crowd(engine, count: int = 4) -> list[tuple]:
    out = []
    for i in range(count):
        seat, ear = engine.open(voice="Chelsie"), Ear()
        seat.read(text_reading(random_ids(i, 6 + i), model=engine.model))
        out.append((seat, ear))
    return out


def expected(i: int, options, model=None):
    return offline(text_reading(random_ids(i, 6 + i), model=model), options, model=model)


def test_a_function_that_fails_fails_its_own_reply() -> None:
    engine, options = make_engine(), make_options()
    people = crowd(engine)
    people[1][0].read(lambda: 1 / 0)
    for seat, ear in people:
        seat.reply(options, ear)
    engine.run()
    for i, (seat, ear) in enumerate(people):
        if i == 1:
            assert isinstance(ear.events[-1], Failed) and isinstance(seat.error, ZeroDivisionError)
        else:
            assert ear.result == expected(i, options)


def test_numbers_that_are_not_finite_fail_their_own_reply() -> None:
    engine, options = make_engine(), make_options(greedy=False)
    people = crowd(engine)
    poison = text_reading([1, 2])
    poison.embedded.embeds = torch.full_like(poison.embedded.embeds, float("nan"))
    people[2][0].read(poison)
    for seat, ear in people:
        seat.reply(options, ear)
    engine.run()
    for i, (_, ear) in enumerate(people):
        if i == 2:
            assert isinstance(ear.events[-1].error, ArithmeticError)
        else:
            assert ear.result == expected(i, options)


@pytest.mark.parametrize("kind", [TextDelta, AudioChunk])
def test_a_listener_that_fails_ends_his_own_reply(kind: type) -> None:
    model = rig_model(ends=False)
    engine, options = make_engine(model), make_options()
    people, seen = crowd(engine), []

    def broken(event) -> None:
        seen.append(event)
        if isinstance(event, kind):
            raise OSError("the line is dead")

    for i, (seat, ear) in enumerate(people):
        seat.reply(options, broken if i == 0 else ear)
    engine.run()
    assert isinstance(seen[-1], Failed) and isinstance(seen[-1].error, OSError)
    for i, (_, ear) in enumerate(people[1:], 1):
        assert ear.result == expected(i, options, model)
    seat = people[0][0]  # and he may ask again
    assert seat.idle and seat.error is None
    assert answer(seat, options).reply.token_ids


FAILING = [
    "thinktalk.engine.thinking.RowPool.step",
    "thinktalk.thinker.model.Thinker.logits",
    "thinktalk.talker.model.Talker.logits",
    "thinktalk.engine.speaking.feed_rows",
    "thinktalk.code2wav.streaming.Speech.run",
]


@pytest.mark.parametrize("where", FAILING)
def test_a_step_that_fails_for_many_is_done_one_by_one(where: str, monkeypatch) -> None:
    """As when there is no memory for all together: everybody's result is right all the same."""
    model, options = rig_model(ends=False), make_options()
    engine, failures = make_engine(model), []
    people = crowd(engine)
    for seat, ear in people:
        seat.reply(options, ear)
    name = where.rsplit(".", 1)[1]
    honest = pkgutil.resolve_name(where)

    def failing(*args):
        given = args[-1] if name in ("logits", "run") else args[1 if name == "step" else 0]
        if len(given) > 1:
            if name == "feed_rows":  # after it has taken what the Talker hears
                honest(*args)
            failures.append(len(given))
            raise MemoryError("too much at once")
        return honest(*args)

    monkeypatch.setattr(where, failing)
    engine.run()
    assert failures
    for i, (_, ear) in enumerate(people):
        assert ear.result == expected(i, options, model)


@pytest.mark.parametrize("stage", ["think", "talk", "sound"])
def test_only_the_guilty_one_fails(stage: str, monkeypatch) -> None:
    model = rig_model(ends=False)
    engine, options = make_engine(model), make_options()
    people = crowd(engine)
    for seat, ear in people:
        seat.reply(options, ear)
    home = Thinking if stage == "think" else Speaking
    honest, guilty = getattr(home, stage), people[3][0]

    def failing(self, replies):
        if any(reply.memory is guilty.memory for reply in replies) and len(people[3][1].events) > 1:
            raise MemoryError("too much")
        return honest(self, replies)

    monkeypatch.setattr(home, stage, failing)
    engine.run()
    for i, (_, ear) in enumerate(people):
        if i == 3:
            assert isinstance(ear.events[-1].error, MemoryError)
        else:
            assert ear.result == expected(i, options, model)
    for seat, _ in people:
        seat.close()
    assert engine.num_bytes == 0


def test_a_slow_reader_is_read_to_in_pieces() -> None:
    engine = make_engine(prefill_chunk=5)
    seat = engine.open(voice="Chelsie")
    seat.read(cut(text_reading(random_ids(0, 23)), [3]))
    done = [unit.stage for unit in units(engine)]
    assert done == [Stage.READ] * 5 and seat.idle  # 3, then 5 + 5 + 5 + 5
