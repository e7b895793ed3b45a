"""A peek is the offline path's distribution of the first token, and afterwards nothing has happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from session_house import Script, engine, omni, options, reply_of, speech

from thinktalk import pipeline
from thinktalk.engine import peeking
from thinktalk.engine.answering import wait_for
from thinktalk.engine.engine import Engine
from thinktalk.engine.seat import Seat
from thinktalk.engine.session import Session
from thinktalk.errors import InputError

QUESTION = "Is it over?"


def listening(seconds: float = 2.7) -> Session:
    session = Session(engine(), options=options())
    pcm = speech(seconds)
    session.hear(pcm[:9000])
    session.hear(pcm[9000:])
    return session


def test_it_is_what_the_whole_conversation_gives():
    model, _ = omni()
    found = listening().peek(QUESTION)
    (reading,) = pipeline.embed(model, [Script().turn("user", speech(2.7), QUESTION).prompt()])
    with torch.inference_mode():
        hidden = model.thinker.step(reading.embedded, model.thinker.init_state(1))
        expected = model.thinker.logits(hidden[:, -1])[0].log_softmax(-1)
    assert (found - expected).abs().max() < 1e-5
    assert found.exp().sum() == pytest.approx(1)
    other = listening().peek("Is it not over?")
    assert (other - expected).abs().max() > 1e-4, "the planted fault, another question, must show"


@pytest.mark.parametrize("forgets", [True, False])
def test_nothing_has_happened(monkeypatch: pytest.MonkeyPatch, forgets: bool):
    twin, session = listening(), listening()
    tokens = session.tokens
    with monkeypatch.context() as patch:
        if not forgets:  # the planted fault: what was read for the peek stays
            patch.setattr(Seat, "rewind", lambda *_: None)
        session.peek(QUESTION)
        session.peek(QUESTION)
    assert session.tokens == tokens
    for each in (twin, session):
        each.hear(speech(0.5, seed=1))
    theirs, ours = (reply_of(list(each.respond_sync())) for each in (twin, session))
    same = (theirs.prompt_tokens, theirs.token_ids, theirs.codes) == (ours.prompt_tokens, ours.token_ids, ours.codes)  # fmt: skip
    assert same is forgets
    assert not forgets or session.history == twin.history


@pytest.mark.parametrize("restores", [True, False])
def test_the_reply_before_can_still_be_cut(monkeypatch: pytest.MonkeyPatch, restores: bool):
    def cut(glance: Callable[[Session], object]) -> tuple:
        session = Session(engine(), options=options())
        session.text("Hello")
        list(session.respond_sync())
        session.hear(speech(0.5))  # too short to be read yet
        glance(session)
        kept = session.interrupt(heard_s=0.1)
        return kept, reply_of(list(session.respond_sync())).token_ids

    expected = cut(lambda _: None)
    if restores:
        assert cut(lambda session: session.peek(QUESTION)) == expected
        return

    # the planted fault: the last reply is past once something was peeked at
    def peek_and_forget(seat: Seat, work: object) -> object:
        found = peeking.peek(seat, work)
        seat.turn = None
        return found

    monkeypatch.setattr("thinktalk.engine.dialogue.peek", peek_and_forget)
    with pytest.raises(InputError, match="keep"):
        cut(lambda session: session.peek(QUESTION))


def test_what_cannot_be_judged_is_told():
    session = Session(engine(), options=options())
    with pytest.raises(InputError, match="nothing was said"):
        session.peek(QUESTION)
    session.text("Hello")
    with pytest.raises(InputError, match="context"):
        session.peek("word " * 3000)
    events = session.respond_sync()
    next(events)
    with pytest.raises(InputError, match="replying"):
        session.peek(QUESTION)
    reply = reply_of(list(events))
    assert reply.text


def popped_first(house: Engine, seat: Seat) -> None:
    """The planted fault: a piece that is being made stands in no queue."""
    piece = seat.pieces.popleft()
    made = piece.what() if callable(piece.what) else [piece.what]
    for reading in made:
        house.stages.read(seat.memory, reading)


@pytest.mark.parametrize("fault", [False, True])
def test_a_seat_is_not_idle_while_a_piece_is_being_made(
    monkeypatch: pytest.MonkeyPatch, fault: bool
):
    """Whoever waits until all is read (peek, fork, save) must not go on while a sound is still encoded."""
    (reading,) = pipeline.embed(omni()[0], [Script().prompt()])
    if fault:
        monkeypatch.setattr(Engine, "_read", popped_first)
    with engine() as house:
        seat, seen = house.open(), []

        def encode() -> list:
            seen.append(seat.idle)
            return [reading]

        seat.read([encode])
        wait_for(lambda: bool(seen) and seat.idle, house)
        assert seen == [fault]
        if not fault:
            assert seat.length == reading.embedded.length, "idle means read"
