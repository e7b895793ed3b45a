"""Limits and failures: a full context is an event, a failure is an error at its own respond(), and life goes on."""

from __future__ import annotations

import numpy as np
import pytest
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

from thinktalk import pipeline
from thinktalk.engine.session import Session
from thinktalk.errors import InputError
from thinktalk.events import ContextLimit, Done
from thinktalk.prompt import DEFAULT_SYSTEM

SMALL = 300


def small(**changes) -> Session:
    return Session(engine(SMALL), options=options(speech=False, **changes))


# ----------------------------------------------------------------------------------------------------------- context


def test_sound_beyond_the_context_is_dropped_and_told():
    session = small()
    for n in range(20):
        session.hear(speech(1.0, n))  # 500 tokens
    events = list(session.respond_sync())
    assert isinstance(events[0], ContextLimit) and isinstance(events[-1], Done)
    assert events[0].tokens <= events[0].limit < SMALL
    assert session.tokens < SMALL
    assert session.room < 50


def test_a_conversation_that_is_full_ends_with_an_event_each_time():
    session, turns = small(), 0
    while True:
        session.hear(speech(0.8, turns))
        events = list(session.respond_sync())
        turns += 1
        assert session.tokens <= SMALL
        if not isinstance(events[-1], Done):
            break
        assert turns < 40
    assert [type(event) for event in events] == [ContextLimit]
    before = session.history
    assert [type(event) for event in session.respond_sync()] == [ContextLimit]
    assert session.history == before
    with pytest.raises(InputError, match="context"):
        session.text("Still there?")


def test_a_reply_that_meets_the_context_tells_before_it_is_done():
    """It stops early enough for the turns' own marks: the conversation stays sound."""
    session = small(seed=1)
    session.text("Hello")
    events = list(session.respond_sync(max_text_tokens=100_000))
    reply = events[-1].reply
    if reply.finish == "length":
        assert isinstance(events[-2], ContextLimit)
    assert session.tokens <= SMALL
    assert [type(event) for event in session.respond_sync()][-1] in (Done, ContextLimit)


def test_text_that_does_not_fit_changes_nothing():
    session = small()
    session.text("Hello")
    with pytest.raises(InputError, match="context"):
        session.text("word " * 2000)
    script = Script(DEFAULT_SYSTEM).turn("user", "Hello")
    assert_same_reply(reply_of(session.respond_sync()), offline(script.prompt(), options(speech=False)))  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- failures


def test_a_turn_that_fails_never_was(monkeypatch):
    """The encoder fails in one conversation: its respond() says so, another goes on, and it may try again."""
    house = engine()
    first, second = (Session(house, options=options()) for _ in range(2))
    script = Script()
    for session in (first, second):
        session.text("Hello")
    reply = reply_of(first.respond_sync())
    assert_same_reply(reply_of(second.respond_sync()), reply)
    embed, broken = pipeline.embed, True

    def fails(model, prompts):
        if broken and any(p.audio for p in prompts):
            raise RuntimeError("no memory for it")
        return embed(model, prompts)

    monkeypatch.setattr(pipeline, "embed", fails)
    first.hear(speech(2.5))
    second.text("And you?")
    with pytest.raises(RuntimeError, match="no memory"):
        list(first.respond_sync())
    assert len(first.history) == 3  # system, user, assistant: the turn that failed is not there
    script.turn("user", "Hello").turn("assistant", reply.token_ids)
    theirs = offline(Script().turn("user", "Hello").turn("assistant", reply.token_ids).turn("user", "And you?").prompt(), options())  # fmt: skip
    assert_same_reply(reply_of(second.respond_sync()), theirs)
    broken = False
    first.hear(speech(2.5))
    expected = offline(script.turn("user", speech(2.5)).prompt(), options())
    assert_same_reply(reply_of(first.respond_sync()), expected)


def test_a_first_turn_that_fails_never_was(monkeypatch):
    session = Session(engine(), options=options())
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "embed", lambda *_: 1 / 0)
        session.hear(speech(2.5))
        with pytest.raises(ZeroDivisionError):
            list(session.respond_sync())
    session.text("Hello")
    expected = offline(Script().turn("user", "Hello").prompt(), options())
    assert_same_reply(reply_of(session.respond_sync()), expected)


def test_a_reply_that_fails_in_the_middle(monkeypatch):
    session = Session(engine(), options=options())
    session.text("Hello")
    talker = session._engine.model.talker
    logits = talker.logits
    calls = []

    def fails(hidden):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("broken")
        return logits(hidden)

    with monkeypatch.context() as patch:
        patch.setattr(talker, "logits", fails)
        with pytest.raises(RuntimeError, match="broken"):
            list(session.respond_sync())
    session.text("Hello")
    expected = offline(Script().turn("user", "Hello").prompt(), options())
    assert_same_reply(reply_of(session.respond_sync()), expected)


def test_what_cannot_be_taken_in_during_a_reply_is_told_at_the_next_call():
    session = Session(engine(), options=options())
    session.text("Hello")
    events = session.respond_sync()
    next(events)
    session.see(np.zeros((4, 4), np.float32), 0.0)
    session.hear(speech(0.5))
    assert isinstance(list(events)[-1], Done)
    with pytest.raises(InputError, match="frame"):
        session.text("And now?")
    session.text("And now?")
    assert isinstance(list(session.respond_sync())[-1], Done)
    assert [part["type"] for part in session.history[3]["content"]] == ["audio", "text"]


def test_answering_without_a_users_turn():
    """As with messages that end with the system's: the assistant speaks first."""
    session = Session(engine(), options=options())
    expected = offline(Script().prompt(), options())
    assert_same_reply(reply_of(session.respond_sync()), expected)
    assert [m["role"] for m in session.history] == ["system", "assistant"]


def test_seats_are_given_back():
    house = engine(max_sessions=2)
    with Session(house, options=options()) as session:
        fork = session.fork()
        with pytest.raises(Exception, match="conversations of at most 2"):
            session.fork()
        fork.close()
        fork = session.fork()
        fork.close()
        events = session.respond_sync()
        next(events)
    assert list(events) == []
    assert not house.seats
    assert omni()[0] is house.model
