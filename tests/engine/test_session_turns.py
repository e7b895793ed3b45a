"""A session's replies are those of the offline path for the same conversation, however it came; nothing is read twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_house import (
    Script,
    assert_same_reply,
    engine,
    offline,
    omni,
    options,
    reply_of,
    speech,
)

from thinktalk.engine.session import Session
from thinktalk.errors import ConfigError, InputError
from thinktalk.events import AudioChunk, Done, TextDelta
from thinktalk.media.image import patchify
from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM, PromptBuilder, build_prompt

QUESTION = "What is it?"


def begin(house=None, **changes) -> Session:
    return Session(house or engine(), options=options(), **changes)


# --------------------------------------------------------------------------------------------------- equals offline


def test_text():
    session = begin()
    session.text("Hello, ")
    session.text("you.")
    events = list(session.respond_sync())
    assert_same_reply(reply_of(events), offline(Script().turn("user", "Hello, you.").prompt(), options()))  # fmt: skip
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    sound = np.concatenate([e.pcm for e in events if isinstance(e, AudioChunk)])
    assert text == events[-1].reply.text
    assert np.array_equal(sound, events[-1].reply.audio)
    assert session.history == [
        {"role": "system", "content": SPEECH_SYSTEM},
        {"role": "user", "content": "Hello, you."},
        {"role": "assistant", "content": text},
    ]


def test_a_recording_given_whole():
    pcm = speech(3.3)
    session = begin()
    session.add([{"type": "audio", "audio": pcm}, {"type": "text", "text": QUESTION}])
    expected = offline(Script().turn("user", pcm, QUESTION).prompt(), options())
    assert_same_reply(reply_of(session.respond_sync()), expected)
    assert session.history[1]["content"][1] == {"type": "text", "text": QUESTION}


@settings(max_examples=6)
@given(seconds=st.sampled_from([0.3, 2.0, 4.7]), cuts=st.lists(st.floats(0, 1), max_size=8))
def test_hearing_in_any_chunking(seconds, cuts):
    pcm = speech(seconds)
    script = Script(DEFAULT_SYSTEM).turn("user", pcm, QUESTION)
    expected = offline(script.prompt(), options(speech=False))
    session = Session(engine(), options=options(speech=False))
    for part in np.split(pcm, sorted(round(c * len(pcm)) for c in cuts)):
        session.hear(part)
        session._engine.run()
    session.text(QUESTION)
    assert_same_reply(reply_of(session.respond_sync()), expected)
    assert session.exact


def test_integers_are_scaled_and_other_rates_resampled():
    pcm = speech(2.5)
    first, second = begin(), begin()
    first.hear(np.round(pcm * 32767).astype(np.int16))
    second.hear(torch.from_numpy(np.round(pcm * 32767) / 32768))
    first, second = (reply_of(s.respond_sync(speech=False)) for s in (first, second))
    assert_same_reply(first, second)
    slow = begin()
    slow.hear(pcm, rate=48_000)
    assert reply_of(slow.respond_sync(speech=False)).prompt_tokens < first.prompt_tokens


def test_seeing_and_hearing_is_a_video_with_sound():
    pcm = speech(4.4)
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (56, 56, 3), dtype=np.uint8) for _ in range(9)]
    session = begin()
    for n, frame in enumerate(frames):
        session.see(frame, n / 2)
        session.hear(pcm[n * 8000 : (n + 1) * 8000])
    session.text(QUESTION)
    model, tokenizer = omni()
    builder = PromptBuilder(tokenizer, model.config)
    builder.mark("im_start")
    builder.text(f"system\n{SPEECH_SYSTEM}")
    builder.mark("im_end")
    builder.text("\n")
    builder.mark("im_start")
    builder.text("user\n")
    mel = Script().turn("user", pcm).audio[0]
    builder.video(*patchify(np.stack(frames), model.config.thinker.vision, model.config.visual), 1.0, mel=mel)  # fmt: skip
    builder.text(QUESTION)
    builder.mark("im_end")
    builder.text("\n")
    builder.mark("im_start")
    builder.text("assistant\n")
    expected = offline(builder.prompt(), options())
    assert_same_reply(reply_of(session.respond_sync()), expected)
    part = session.history[1]["content"][0]
    assert part == {"type": "video", "seconds": 4.4, "frames": 9, "use_audio": True}


def test_a_conversation_given_at_once():
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": "And now?"},
    ]
    model, tokenizer = omni()
    prompt = build_prompt(messages, tokenizer=tokenizer, config=model.config, speech=True)
    session = begin(messages=messages)
    assert_same_reply(reply_of(session.respond_sync()), offline(prompt, options()))
    assert [m["role"] for m in session.history] == ["user", "assistant", "user", "assistant"]
    assert session.history[2] == messages[2]


def test_several_turns_are_one_conversation():
    """Text, sound, sound: each reply is that of the offline path on all that was said, the replies' own ids included."""
    session, script = begin(), Script()
    first, second = speech(2.6, 1), speech(4.1, 2)
    turns = [("Hello",), (first, "Who is that?"), ("Listen: ", second)]
    for turn in turns:
        for part in turn:
            session.text(part) if isinstance(part, str) else session.hear(part)
        script.turn("user", *turn)
        ours, theirs = reply_of(session.respond_sync()), offline(script.prompt(), options())
        assert_same_reply(ours, theirs)
        script.turn("assistant", ours.token_ids)
    assert session.tokens == len(script.ids) - 1  # the line end waits for the next turn


def test_sampled_replies_too():
    opts = options(greedy=False, seed=11)
    session, script = Session(engine(), options=opts), Script()
    for turn in ("Hello", "And now?"):
        session.text(turn)
        script.turn("user", turn)
        ours = reply_of(session.respond_sync())
        assert_same_reply(ours, offline(script.prompt(), opts))
        script.turn("assistant", ours.token_ids)


# -------------------------------------------------------------------------------------------------- nothing twice


def test_nothing_is_encoded_or_read_twice(monkeypatch):
    house = engine()
    model = house.model
    count = Counter()
    thinker_step, encode = model.thinker.step, model.audio.encode

    def step(x, state, **kwargs):
        count["tokens"] += x.length
        return thinker_step(x, state, **kwargs)

    def listen(mels):
        count["frames"] += sum(mel.shape[1] for mel in mels)
        return encode(mels)

    monkeypatch.setattr(model.thinker, "step", step)
    monkeypatch.setattr(model.audio, "encode", listen)
    session = begin(house)
    for n in range(3):
        for part in np.array_split(speech(3.0, n), 7):
            session.hear(part)
            house.run()
        before = count["tokens"]
        reply = reply_of(session.respond_sync())
        written = len(reply.token_ids)
        # what is left at the end of a turn: one partial block of 25 tokens, its end, the turn's, the opening
        assert count["tokens"] - before <= 25 + 20 + written
    house.run()
    unread = session.tokens - count["tokens"]
    assert 0 <= unread <= 20  # the opening of the next turn waits for its first word
    assert count["frames"] == 900


# --------------------------------------------------------------------------------------------------- during a reply


def test_what_comes_during_a_reply_belongs_to_the_next_turn():
    pcm = speech(2.3)
    before, during = begin(), begin()
    replies = []
    for session in (before, during):
        session.text("Hello")
        events = session.respond_sync()
        if session is during:
            next(events)
            session.hear(pcm[:20_000])
            session.hear(pcm[20_000:])
            session.text(QUESTION)
        list(events)
        if session is before:
            session.hear(pcm)
            session.text(QUESTION)
        replies.append(reply_of(session.respond_sync()))
    assert_same_reply(*replies)
    assert before.history == during.history


def test_asking_again_interrupts():
    session = begin()
    session.text("Hello")
    events = session.respond_sync()
    next(events)
    session.text("No, wait.")
    list(session.respond_sync())
    assert list(events) == []
    assert [m["role"] for m in session.history[1:]] == ["user", "assistant"] * 2


def test_leaving_the_loop_interrupts():
    session = begin()
    session.text("Hello")
    for event in session.respond_sync():
        if isinstance(event, TextDelta):
            break
    del event
    session.text("And now?")
    assert isinstance(list(session.respond_sync())[-1], Done)


# ----------------------------------------------------------------------------------------------------------- async


def test_async_without_and_with_a_thread():
    pcm, expected = speech(2.2), None

    async def talk(house):
        async def one(name):
            session = begin(house)
            for part in np.array_split(pcm, 5):
                session.hear(part)
                await asyncio.sleep(0)
            session.text(name)
            return [event async for event in session.respond()][-1].reply

        return await asyncio.gather(*(one(name) for name in ("a", "b", "c")))

    alone = asyncio.run(talk(engine()))
    with engine() as house:
        threaded = asyncio.run(talk(house))
    for name, ours, theirs in zip("abc", alone, threaded, strict=True):
        expected = offline(Script().turn("user", pcm, name).prompt(), options())
        assert_same_reply(ours, expected)
        assert_same_reply(theirs, expected)


def test_interrupted_from_another_task():
    async def talk():
        with engine() as house:
            session = begin(house)
            session.text("Hello")
            heard = []

            async def listen():
                async for event in session.respond():
                    heard.append(event)

            task = asyncio.create_task(listen())
            while not heard:
                await asyncio.sleep(0.001)
            kept = session.interrupt(heard_s=0.0)
            await asyncio.wait_for(task, 5)
            session.text("And now?")
            last = [event async for event in session.respond()][-1]
            return kept, last

    kept, last = asyncio.run(talk())
    assert kept == "" and isinstance(last, Done)


def test_with_a_thread_and_a_plain_loop():
    with engine() as house:
        session = begin(house)
        session.hear(speech(2.2))
        session.text("a")
        ours = reply_of(session.respond_sync())
    expected = offline(Script().turn("user", speech(2.2), "a").prompt(), options())
    assert_same_reply(ours, expected)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "pcm", [np.zeros((2, 5)), np.array(["a"]), np.array([np.nan]), np.array([1e9], np.float64), "x"]
)
def test_sound_that_is_none(pcm):
    with pytest.raises(InputError, match="pcm"):
        begin().hear(pcm)


def test_words_pictures_times_and_options_are_checked():
    session = begin()
    with pytest.raises(InputError, match="text"):
        session.text(b"bytes")
    with pytest.raises(InputError, match="rate"):
        session.hear(np.zeros(5), rate="fast")
    with pytest.raises(InputError, match="at_s"):
        session.see(np.zeros((8, 8, 3), np.uint8), "now")
    with pytest.raises(InputError):
        session.see("no-such.png", 0.0)
    with pytest.raises(InputError, match="heard_s"):
        session.interrupt(heard_s=-1)
    with pytest.raises(ConfigError, match="top_q"):
        session.respond_sync(top_q=3)
    with pytest.raises(ConfigError, match="voice"):
        Session(engine(), voice=None, options=options())
    session.text("Hello")
    assert isinstance(list(session.respond_sync())[-1], Done)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.hear(np.zeros(5))


# ------------------------------------------------------------------------------------------------------ planted faults


def test_planted_faults_are_caught(monkeypatch):
    """A session whose reply is not counted, or whose turn is not ended, does not equal the offline conversation."""
    from thinktalk.engine.listening import Listener

    def forgets_positions(self, tokens, state):
        return self.finish(state)

    def forgets_the_end(self, tokens, state):
        state.timeline.place_ids(tokens)
        return []

    test_several_turns_are_one_conversation()
    for fault in (forgets_positions, forgets_the_end):
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "replied", fault)
            with pytest.raises(AssertionError):
                test_several_turns_are_one_conversation()
