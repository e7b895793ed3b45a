"""Dialogue: the turns of one conversation over a seat. What comes is sent to be read; a reply becomes history; failures are undone.

    pieces of prompt --send--> [opening of the turn, piece, ...] --> Seat.read
    ask      the user's turn ends, the seat answers                 settle   the answer stands in the history
    cut      only what was heard of it ever stood there             go_back  as if the turn had never begun
    peek     what an answer would begin with, if the turn ended now

Between turns nothing of the next one is read until something of it is there: so long the last reply can still be cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from thinktalk import pipeline
from thinktalk.engine.alignment import Pace, word_seconds, words
from thinktalk.engine.answering import Answer, wait_for
from thinktalk.engine.engine import Engine
from thinktalk.engine.listening import Listener, ListenerState
from thinktalk.engine.live import join_prompts
from thinktalk.engine.peeking import peek
from thinktalk.engine.seat import Seat
from thinktalk.engine.seat_state import Mark
from thinktalk.engine.wording import Wording
from thinktalk.errors import InputError, ThinktalkError
from thinktalk.events import ContextLimit, Event
from thinktalk.pipeline import Options, Reading
from thinktalk.prompt import Prompt

__all__ = ["Dialogue"]


class Dialogue:
    """What a session does between what comes in and what goes out."""

    _engine: Engine
    _listener: Listener
    closed = False

    def _sit(
        self, seat: Seat, state: ListenerState, opening: list[Prompt], history: list, pace: Pace
    ) -> None:
        """All that changes in a conversation's life."""
        self._seat, self._state, self._history, self._pace = seat, state, history, pace
        self._answer: Answer | None = None  # the last reply, until something is read after it
        self._waiting: list[Callable[[], None]] = []  # what came during a reply
        self._error: ThinktalkError | None = None  # of what came during a reply
        self._opening = opening  # of this turn, not read yet
        self._begin_turn(state)

    def _begin_turn(self, state: ListenerState) -> None:
        """Remember this moment, to come back to when something fails; the memories' mark is set before they read more."""
        self._start = (state.fork(), list(self._opening), len(self._history))
        self._mark: Mark | None = None
        self._marked = False

    # ------------------------------------------------------------------------------------------------------- coming in

    def _take(self, come: Callable[[], list[Prompt]]) -> None:
        """Take something in, now or when the reply has ended."""
        self._must_be_open()
        self._settle()
        if self._answer is not None and not self._answer.over:
            self._waiting.append(lambda: self._take_now(come))
        else:
            self._raise_late()
            self._take_now(come)

    def _take_now(self, come: Callable[[], list[Prompt]]) -> None:
        if not self._state.role:
            self._opening += self._listener.begin("user", self._state)
        self._send(come())

    def _send(self, pieces: list[Prompt], *, opens: bool = False) -> None:
        """Have the engine read pieces; the turn's opening goes before its first one, or with `opens` at once."""
        if opens or pieces:
            pieces, self._opening = [*self._opening, *pieces], []
        if not pieces:
            return
        prompt, model = join_prompts(pieces), self._engine.model
        work: list[Callable[[], list[Reading] | None]] = [] if self._marked else [self._note]
        self._marked = True
        work.append(lambda: pipeline.embed(model, [prompt]))
        if self._answer is not None and self._answer.settled:
            self._answer = None  # from now on it is past
        self._seat.read(work)

    def _note(self) -> None:
        """In the engine's thread, before any of the turn is read."""
        self._mark = self._seat.memory.mark()

    def _raise_late(self) -> None:
        """Tell of what came during a reply and could not be taken in."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def peek(self, question: str) -> Tensor:
        """Log-probabilities (V,) of the first token of an answer, if the turn ended here with `question` written after it.

        Waits until all that came is read; then nothing has happened. Errors: InputError during a reply, before anything was
        said in this turn, or when the context has no room.
        """
        self._rest("peek")
        if not self._state.role:
            raise InputError("session: nothing was said in this turn, expected something to judge")
        listener, state = self._listener, self._state.fork()
        pieces = [*self._opening, *listener.add(question, state), *listener.finish(state), *listener.answer(state)]  # fmt: skip
        prompt, model = join_prompts(pieces), self._engine.model
        return peek(self._seat, [lambda: pipeline.embed(model, [prompt])])

    # --------------------------------------------------------------------------------------------------------- replies

    def _ask(
        self, options: Options, noise: Tensor | None, wording: Wording | None
    ) -> tuple[list[Event], Answer | None]:
        """End the user's turn, if one is open, and have the seat answer; None when no answer fits."""
        listener, state = self._listener, self._state
        fits = state.timeline.tokens <= listener.limit
        limits: list[Event] = []
        if state.full or not fits:
            limits.append(ContextLimit(tokens=state.timeline.tokens, limit=listener.limit))
        if not fits:
            return limits, None
        pieces = []
        if state.role:
            pieces = listener.finish(state)
            self._history.append({"role": "user", "content": _content(state.parts)})
        self._send(pieces + listener.answer(state))
        room = listener.answer_room(state)
        most = min(room, options.generation.max_text_tokens)
        options = replace(options, generation=replace(options.generation, max_text_tokens=most))
        answer = Answer(state.timeline.fork(), room, listener.context, options.speech)
        self._answer = answer
        self._seat.reply(options, answer.emit, noise=noise, wording=wording)
        return limits, answer

    def _settle(self) -> None:
        """When the reply has ended: it becomes history, and what came meanwhile is taken in."""
        answer = self._answer
        if answer is None or answer.settled or not answer.over:
            return
        if answer.closed:  # another thread is just cutting it: the listener's loop has ended before interrupt() has
            return
        if answer.error is not None:
            self._go_back()
        else:
            assert answer.done is not None
            reply = answer.done.reply
            if reply.finish == "stop" and answer.spoken.samples:
                expected = sum(word_seconds(reply.text[a:b]) for a, b in words(reply.text))
                self._pace.add(expected, answer.spoken.voiced_s())
            self._stand(answer, len(reply.token_ids), reply.text)
        self._catch_up()

    def _stand(self, answer: Answer, tokens: int, text: str) -> None:
        """The assistant's turn stands in the conversation with so many tokens."""
        fresh = replace(self._listener.init_state(), timeline=answer.timeline.fork())
        self._opening = self._listener.replied(tokens, fresh)
        fresh.exact = self._state.exact
        fresh.full = fresh.timeline.tokens > self._listener.limit
        if answer.settled:
            self._history.pop()
        self._history.append({"role": "assistant", "content": text})
        self._begin_turn(fresh)
        if answer.settled and self._state.role:  # something of the next turn came, nothing was read
            self._opening += self._listener.begin("user", fresh)
            self._state.timeline = fresh.timeline
        else:
            self._state = fresh
        answer.settled = True

    def _cut(self, answer: Answer, heard_s: float | None, *, read: bool = False) -> str:
        """Stop a reply, or cut one that has ended, to what was heard; what stays of it."""
        late = answer.settled
        said = self._seat.cancel()
        answer.close()
        tokens = list(said.token_ids)
        if tokens or said.thinking_done:  # else it had not begun
            complete = said.thinking_done and said.speaking_done
            tokens = self._heard(answer, tokens, heard_s, read=read, complete=complete)
            self._seat.keep(len(tokens))
        text = self._engine.tokenizer.decode(tokens)
        self._stand(answer, len(tokens), text)
        if not late:
            self._catch_up()
        return text

    def _heard(
        self,
        answer: Answer,
        tokens: list[int],
        heard_s: float | None,
        *,
        read: bool,
        complete: bool,
    ) -> list[int]:
        """Those tokens of a reply that were heard, or read where nothing is spoken."""
        text = self._engine.tokenizer.decode(tokens)
        if read or not answer.speech:
            characters = answer.taken_text
        else:
            heard_s = answer.taken_s if heard_s is None else heard_s
            characters = answer.spoken.characters(text, heard_s, self._pace, complete=complete)
        if complete and characters >= len(text):
            return tokens
        stream, so_far, keep = self._engine.tokenizer.decode_stream(), 0, 0
        for count, token in enumerate(tokens, 1):
            so_far += len(stream.push(token))
            if so_far > characters:
                break
            if not stream.pending:  # not in the middle of a character
                keep = count
        return tokens[:keep]

    def _catch_up(self) -> None:
        """Take in what came during the reply; an error of it is told at the next call."""
        waiting, self._waiting = self._waiting, []
        for come in waiting:
            try:
                come()
            except ThinktalkError as error:
                self._error = self._error or error

    def _go_back(self) -> None:
        """Something failed: to the beginning of the turn, in both memories and in the history."""
        self._answer = None
        if self._mark is not None:
            self._seat.rewind(self._mark)
        state, opening, turns = self._start
        self._state, self._opening = state.fork(), list(opening)
        del self._history[turns:]

    def _rest(self, what: str) -> None:
        """Wait until all that was sent is read."""
        self._must_be_open()
        self._settle()
        if self._answer is not None and not self._answer.over:
            raise InputError(f"session: replying, expected a pause before {what}; wait for Done or interrupt()")  # fmt: skip
        wait_for(lambda: self._seat.idle, self._engine)

    def _must_be_open(self) -> None:
        if self.closed:
            raise InputError("session: it was closed; begin another one")


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as a message's content; text alone as a string."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts
