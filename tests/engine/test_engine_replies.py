"""One conversation in the engine: what it says is what the offline path says, and comes as it is made."""

from __future__ import annotations

import numpy as np
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
    rig_tokenizer,
    text_reading,
)

from thinktalk import pipeline
from thinktalk.engine import ContextFull, Failed, drawing
from thinktalk.errors import InputError
from thinktalk.events import AudioChunk, Done, TextDelta
from thinktalk.prompt import build_prompt
from thinktalk.talker.prepare import TalkerFeed


def check_streamed_equals_offline(reading, options) -> Ear:
    engine = make_engine()
    seat = engine.open(voice="Chelsie")
    seat.read(reading)
    ear = answer(seat, options)
    assert ear.result == offline(reading, options)
    return ear


@pytest.mark.parametrize("greedy", [True, False])
def test_the_same_ids_and_codes_as_offline(greedy: bool) -> None:
    finishes, lengths, code_counts = set(), set(), set()
    for seed in range(8):
        reading = text_reading(random_ids(seed, 9 + seed))
        ear = check_streamed_equals_offline(reading, make_options(greedy=greedy, seed=seed))
        finishes.add(ear.reply.finish)
        lengths.add(len(ear.reply.token_ids))
        code_counts.add(len(ear.reply.codes))
    # the fixture covers every way to end
    assert finishes == {"stop", "length"}
    assert len(lengths) > 2 and len(code_counts) > 2


def nothing_ready(self) -> bool:
    return True


def silent_end(self) -> None:
    self.ended = True


@pytest.mark.parametrize(
    "fault", ["a token too early", "end of the text forgotten", "another seed"]
)
def test_equality_with_offline_finds_planted_faults(fault: str, monkeypatch) -> None:
    options = [make_options(greedy=False, seed=seed) for seed in range(8)]
    readings = [text_reading(random_ids(seed, 9 + seed)) for seed in range(8)]
    expected = [offline(*both) for both in zip(readings, options, strict=True)]
    if fault == "a token too early":  # the Talker does not wait for the Thinker
        monkeypatch.setattr(TalkerFeed, "ready", property(nothing_ready))
    elif fault == "end of the text forgotten":
        monkeypatch.setattr(TalkerFeed, "end", silent_end)
    else:
        start = drawing.Choice.start
        other = lambda cls, *a, seed, **k: start(*a, seed=seed + 1, **k)  # noqa: E731
        monkeypatch.setattr(drawing.Choice, "start", classmethod(other))
    got = []
    for reading, option in zip(readings, options, strict=True):
        seat = make_engine().open(voice="Chelsie")
        seat.read(reading)
        got.append(answer(seat, option).result)
    with pytest.raises(AssertionError):
        assert got == expected


def test_the_same_as_answer_for_a_whole_conversation() -> None:
    model, tokenizer = rig_model(ends=False), rig_tokenizer()
    prompt = build_prompt(
        [{"role": "user", "content": "Grüße, 世界 👋!"}], tokenizer=tokenizer, config=model.config, speech=True
    )  # fmt: skip
    options = make_options(greedy=False, seed=3)
    answering = pipeline.answer(model, tokenizer, [prompt], options, voices=[model.voices["Ethan"]])
    while True:
        try:
            next(answering)
        except StopIteration as stop:
            (expected,) = stop.value
            break
    seat = make_engine(model).open(voice="Ethan")
    seat.read(pipeline.embed(model, [prompt]))
    reply = answer(seat, options).reply
    for name in ("text", "token_ids", "codes", "prompt_tokens", "finish", "sample_rate"):
        assert getattr(reply, name) == getattr(expected, name), name
    assert len(reply.text) and len(reply.codes) == 20
    assert len(reply.audio) == len(expected.audio)  # other samples: windows, see docs/streaming.md


def test_events_come_as_they_are_made_and_add_up() -> None:
    engine = make_engine(rig_model(ends=False))
    seat = engine.open(voice="Chelsie")
    seat.read(text_reading(random_ids(1, 12)))
    ear = answer(seat, make_options(tokens=30, codes=40))
    reply = ear.reply
    assert ear.text == reply.text == rig_tokenizer().decode(reply.token_ids)
    assert len(ear.sound) > 3, "sound comes in several stretches"
    np.testing.assert_array_equal(np.concatenate([c.pcm for c in ear.sound]), reply.audio)
    per_code = engine.model.config.code2wav.code_samples
    assert len(reply.audio) == per_code * len(reply.codes)
    start = 0.0
    for chunk in ear.sound:
        assert chunk.start_s == pytest.approx(start)
        start += len(chunk.pcm) / chunk.sample_rate
    kinds = [type(event) for event in ear.events]
    # lock-step: sound begins long before the text has ended
    assert kinds.index(AudioChunk) < len(kinds) - 1 - kinds[::-1].index(TextDelta)
    assert kinds[-1] is Done and kinds.count(Done) == 1
    assert [e.at_s for e in ear.events[:-1]] == sorted(e.at_s for e in ear.events[:-1])


def test_the_wave_is_the_windowed_one_whatever_the_company() -> None:
    engine = make_engine()
    options = make_options(greedy=False, seed=5, codes=30)
    seats = [engine.open(voice="Chelsie") for _ in range(3)]
    ears = [Ear() for _ in seats]
    for i, (seat, ear) in enumerate(zip(seats, ears, strict=True)):
        seat.read(text_reading(random_ids(20 + i, 8 + 3 * i)))
        seat.reply(options, ear)
    engine.run()
    assert any(len(ear.reply.codes) > 9 for ear in ears)
    for ear in ears:
        speech, reply = engine.stages.speaking.speech(options), ear.reply
        if not reply.codes:
            continue
        whole = speech(torch.tensor([reply.codes]), voice=rig_model().voices["Chelsie"], seed=5)
        # float32 through two networks, batches of other sizes
        np.testing.assert_allclose(reply.audio, whole[0].numpy(), atol=1e-5)


def test_noise_can_be_given() -> None:
    model = rig_model(ends=False)
    bands = model.config.code2wav.dit.num_mels
    waves = []
    for gain in (1.0, 1.0, 0.5):
        seat = make_engine(model).open(voice="Chelsie")
        seat.read(text_reading(random_ids(0, 5)))
        noise = gain * torch.randn(80, bands, generator=torch.Generator().manual_seed(1))
        waves.append(answer(seat, make_options(codes=12), noise=noise).reply.audio)
    np.testing.assert_array_equal(waves[0], waves[1])
    assert np.abs(waves[0] - waves[2]).max() > 1e-3


def test_without_speech() -> None:
    engine = make_engine()
    reading, options = text_reading(random_ids(4, 10)), make_options(speech=False)
    for voice in (None, "Chelsie"):  # a seat that could speak may be asked for words alone
        seat = engine.open(voice=voice)
        seat.read(reading)
        reply = answer(seat, options).reply
        assert (reply.token_ids, [], reply.finish) == offline(reading, options)
        assert reply.audio is None and reply.codes is None
        engine.run()
        assert seat.idle
    silent = engine.open(voice=None)
    with pytest.raises(InputError, match="without a voice"):
        silent.reply(make_options(), Ear())
    with pytest.raises(InputError, match="nobody"):
        engine.open(voice="nobody")


def test_prompts_in_any_pieces_give_the_same_reply() -> None:
    reading, options = text_reading(random_ids(7, 40)), make_options(greedy=False, seed=1)
    expected = offline(reading, options)
    for chunk, sizes in ((256, [1, 1, 30]), (7, []), (1, [0, 20]), (16, [16, 0, 16])):
        engine = make_engine(prefill_chunk=chunk)
        seat = engine.open(voice="Chelsie")
        seat.read(cut(reading, sizes))
        assert answer(seat, options).result == expected


def test_functions_make_readings_when_their_turn_comes() -> None:
    reading, options = text_reading(random_ids(8, 20)), make_options()
    called = []

    def encode(part):
        def work():
            called.append(part)
            return [part]

        return work

    engine = make_engine()
    seat = engine.open(voice="Chelsie")
    seat.read([encode(part) for part in cut(reading, [5, 5])])
    seat.read(lambda: None)  # work that gives nothing to read
    assert not called
    assert answer(seat, options).result == offline(reading, options)
    assert len(called) == 3


def test_turns_go_on_where_the_last_one_ended() -> None:
    """No Thinker token is read twice, and the Talker hears replies as the next prompt has them."""
    for seed in range(6):
        first, more = random_ids(seed, 8), random_ids(50 + seed, 6)
        options = make_options(greedy=False, seed=seed)
        engine = make_engine()
        seat = engine.open(voice="Chelsie")
        seat.read(text_reading(first))
        said = answer(seat, options).reply.token_ids
        engine.run()
        assert seat.idle and seat.length == len(first) + len(said) == seat.next_position
        seat.read(text_reading(more, start=seat.next_position))
        result = answer(seat, options).result
        # as if prompt, reply and next turn had been one prompt
        assert result == offline(text_reading(first + said + more), options)


def test_a_full_context_is_said_clearly() -> None:
    engine = make_engine()
    context = engine.model.config.thinker.text.max_positions
    seat = engine.open(voice=None)
    seat.read(text_reading(random_ids(0, context - 3)))
    reply = answer(seat, make_options(tokens=100, speech=False)).reply
    assert len(reply.token_ids) <= 3
    engine.run()
    mark = seat.mark()
    seat.read(text_reading(random_ids(1, 9), start=seat.next_position))
    ear = Ear()
    seat.reply(make_options(speech=False), ear)
    engine.run()
    (event,) = ear.events
    assert isinstance(event, Failed) and isinstance(event.error, ContextFull)
    assert str(context) in str(event.error) and "\n" not in str(event.error)
    with pytest.raises(ContextFull):  # it stands still until it is taken back
        _ = answer(seat, make_options(speech=False)).reply
    seat.rewind(mark)
    assert seat.error is None and seat.length == mark.thinker
    empty = engine.open(voice=None)
    with pytest.raises(InputError, match="nothing was said"):
        _ = answer(empty, make_options(speech=False)).reply
