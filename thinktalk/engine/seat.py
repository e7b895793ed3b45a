"""Seat: one conversation in the engine. Pieces of prompt and wishes go in from any thread; the engine's thread does the work.

seat.read(readings)         queue pieces of prompt, or functions that make some; does not wait for the engine
seat.reply(options, emit)   answer once all is read: emit(TextDelta | AudioChunk | Done | Failed); does not wait either
seat.cancel()               stop answering within one step; Said tells how far it came
seat.keep(n)                of the last reply only n tokens were said, as far as this conversation will ever know
seat.mark(), rewind(mark)   as if nothing had happened since
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.engine.replying import Failed, Replying, Said, Stage
from thinktalk.engine.seat_state import Mark, SeatState
from thinktalk.engine.turn import Piece, Turn
from thinktalk.engine.wording import Wording
from thinktalk.errors import InputError
from thinktalk.pipeline import Options, Reading

if TYPE_CHECKING:
    from thinktalk.engine.engine import Engine

__all__ = ["Seat"]

LISTEN_S = 1.0  # what was heard is due to be read this long after it came
READ_PER_S = 1000  # tokens of a long prompt, read while others speak, that are due each second
SETTLE_S = 2.0  # after a reply, the Talker has this long to read it


@dataclass(eq=False)
class Seat:
    """One conversation. Made by Engine.open; every method may be called from any thread."""

    engine: Engine
    voice: Voice | None
    memory: SeatState
    pieces: deque[Piece] = field(default_factory=deque)
    replying: Replying | None = None
    turn: Turn | None = None
    error: Exception | None = None
    """Why it stands still: a piece that could not be read. rewind() clears it."""
    closed: bool = False
    posted: Future | None = None  # the last wish that nobody waited for
    closing: Future | None = None

    # ---------------------------------------------------------------------------------------------------- what it knows

    @property
    def speech(self) -> bool:
        """Whether it can speak."""
        return self.voice is not None

    @property
    def idle(self) -> bool:
        """Whether all is read and said."""
        # asked first: what was wished shows from then on
        granted = self.posted is None or self.posted.done()
        return granted and self.replying is None and not self.pieces

    @property
    def state(self) -> SeatState:
        """What it remembers, to fork or to save; the seat must be idle."""
        self._must_be_idle("its state can be taken")
        return self.memory

    @property
    def length(self) -> int:
        """Tokens read so far."""
        for _ in range(100):
            reply, thinker = self.replying, self.memory.thinker
            if reply is not None and reply.mark is not None:
                return reply.mark.thinker + len(reply.hidden)
            if thinker is not None:
                return thinker.extent
            time.sleep(0.001)  # another thread asks while it is on its way to the pool, or home
        raise AssertionError("a seat without a memory")

    @property
    def next_position(self) -> int:
        """Position of the next token."""
        return self.memory.next_position

    # ---------------------------------------------------------------------------------------------------------- wishes

    def read(self, pieces: Reading | Callable | Iterable[Reading | Callable]) -> None:
        """Queue pieces of prompt; a function is called by the engine when its turn comes and gives readings, or None.

        A piece that fails (ContextFull, or a function's own error) stops the seat: the next reply gives Failed.
        """
        listed = [pieces] if isinstance(pieces, Reading) or callable(pieces) else list(pieces)
        now = self.engine.clock()
        self.posted = self.engine.post(lambda: self._queue(listed, now))

    def reply(
        self,
        options: Options,
        emit: Callable[[Any], None],
        *,
        noise: Tensor | None = None,
        wording: Wording | None = None,
    ) -> None:
        """Answer when all that is queued has been read. `emit` is called by the engine's thread and must not wait.

        `wording` fixes some of its words. Errors: InputError when a reply is under way already (Failed is emitted where another
        thread works), or when speech is asked of a seat that has no voice.
        """
        if options.speech and not self.speech:
            raise InputError("reply: speech asked of a seat without a voice, expected options.speech=False")  # fmt: skip
        now = self.engine.clock()
        self.posted = self.engine.post(
            lambda: self._ask(options, emit, now, noise, wording or Wording())
        )
        self.posted.add_done_callback(lambda asked: _tell(asked.exception(), emit))

    def cancel(self) -> Said:
        """Stop answering; no event comes after this. What was said is kept until keep() or rewind() says otherwise.

        After a reply that was finished already, and before anything else is read: how far that one came.
        """
        return self.engine.do(self._cancel)

    def keep(self, tokens: int) -> None:
        """Of the last reply keep the first `tokens`; InputError when something was read since, or it never had so many."""
        self.engine.do(lambda: self._keep(tokens))

    def mark(self) -> Mark:
        """This moment, to rewind to; the seat must be idle."""
        return self.engine.do(self._mark)

    def rewind(self, mark: Mark) -> None:
        """Back to a moment: a reply is cancelled, what is queued is dropped, an error is forgotten."""
        self.engine.do(lambda: self._rewind(mark))

    def fork(self) -> Seat:
        """Another seat that goes on from here on its own; this one must be idle. Errors: Busy."""
        return self.engine.open(voice=self.voice, state=self.engine.do(lambda: self.state.fork()))

    def close(self, *, wait: bool = True) -> None:
        """Give the place up; a reply is cancelled. Without `wait` that is so soon, and another close() waits for it."""
        if self.closing is None:
            self.closing = self.engine.post(self._close)
        if wait:
            self.closing.result()

    # ------------------------------------------------------------------------------------- in the engine's thread alone

    def next_stage(self) -> tuple[Stage, float] | None:
        """What it waits for, and when that is due."""
        reply = self.replying
        if reply is not None and reply.begun:
            stage = reply.wants()
            return None if stage is None else (stage, reply.due)
        if self.pieces:
            piece = self.pieces[0]
            due = piece.due + piece.done / READ_PER_S
            return Stage.READ, due if reply is None else min(due, reply.due)
        return None if reply is None else (Stage.BEGIN, reply.due)

    def _queue(self, listed: list, now: float) -> None:
        self._must_be_open()
        if self.error is not None:
            return
        self.pieces.extend(Piece(what, now + LISTEN_S) for what in listed)
        self.engine._stir(self)

    def _ask(
        self,
        options: Options,
        emit: Callable[[Any], None],
        now: float,
        noise: Tensor | None,
        wording: Wording,
    ) -> None:
        self._must_be_open()
        if self.replying is not None:
            raise InputError("reply: one is under way already; wait for its end or cancel it")
        self.replying = Replying(
            options,
            emit,
            now,
            self.engine.clock,
            self.memory,
            noise=noise,
            wording=wording,
            voice=self.voice,
            sample_rate=self.engine.sample_rate,
        )
        if self.error is not None:
            self._fail(self.error)
        self.engine._stir(self)

    def _cancel(self) -> Said:
        reply = self.replying
        if reply is None:
            return Said() if self.turn is None else self.turn.said
        self._stop(reply)
        return reply.said()

    def _stop(self, reply: Replying) -> None:
        """End a reply, finished or not: memory comes home, and the Talker is to hear what was said."""
        self.replying, reply.live = None, False
        self.engine.stages.part(reply)
        if reply.mark is None:
            return
        self.turn = Turn(reply.mark, list(reply.token_ids), list(reply.hidden), reply.said())
        self._keep(len(reply.token_ids))
        reply.sounding, reply.speech, reply.spoken = False, None, None

    def _keep(self, tokens: int) -> None:
        turn, memory, thinking = self.turn, self.memory, self.engine.stages.thinking
        if turn is None or not 0 <= tokens <= len(turn.token_ids):
            have = "no reply" if turn is None else f"a reply of {len(turn.token_ids)} tokens"
            raise InputError(
                f"keep: {tokens} tokens of {have}; it must be the last thing that happened"
            )
        if any(piece.turn is not turn for piece in self.pieces):
            raise InputError("keep: more is queued already; say what was heard before it")
        self.pieces.clear()
        read = min(tokens, len(turn.hidden))
        memory.go_back(turn.mark, turn.token_ids[:read], turn.hidden[:read])
        due = self.engine.clock() + SETTLE_S
        if read and memory.feed is not None:
            chunk = thinking.recollection(
                turn.token_ids[:read], turn.hidden[:read], turn.mark.next_position
            )
            if turn.recalled:  # it was read as a whole: its beginning stays
                memory.talker.trim(turn.mark.talker + read)
                memory.feed.prompt(chunk)
            else:
                memory.talker.trim(turn.mark.talker)
                self.pieces.append(Piece(chunk, due, turn))
        elif memory.talker is not None:
            memory.talker.trim(turn.mark.talker)
        if tokens > read:
            self.pieces.append(
                Piece(
                    thinking.reading(turn.token_ids[read:tokens], turn.mark.next_position + read),
                    due,
                    turn,
                )
            )
        self.engine._stir(self)

    def _mark(self) -> Mark:
        self._must_be_idle("a mark can be set")
        return self.memory.mark()

    def _rewind(self, mark: Mark) -> None:
        self._must_be_open()
        if self.replying is not None:
            self._stop(self.replying)
        self.pieces.clear()
        self.turn = self.error = None
        self.memory.rewind(mark)

    def _close(self) -> None:
        if self.replying is not None:
            self.replying.live = False
            self.engine.stages.part(self.replying)
        self.replying = self.turn = None
        self.pieces.clear()
        self.closed = True
        self.engine._leave(self)

    def _fail(self, error: Exception) -> None:
        """Something of its own went wrong: the reply fails, or the next one will."""
        reply = self.replying
        if reply is None or not reply.begun:
            self.error, self.turn = error, None
            self.pieces.clear()
        if reply is not None:
            self._stop(reply)
            with suppress(Exception):  # whoever listens has failed too: nobody is left to tell
                reply.emit(Failed(error=error))

    def _must_be_open(self) -> None:
        if self.closed:
            raise InputError("seat: it was closed; open another one")

    def _must_be_idle(self, what: str) -> None:
        self._must_be_open()
        if not self.idle:
            raise InputError(f"seat: still reading or speaking, expected it idle before {what}")


def _tell(error: BaseException | None, emit: Callable[[Any], None]) -> None:
    """A reply that could not even be asked for."""
    if isinstance(error, Exception):
        emit(Failed(error=error))
