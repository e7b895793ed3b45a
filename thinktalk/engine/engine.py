"""Engine: one model, many conversations. Seats are opened, wishes come in, and tick() does one unit of work after the other.

    with Engine(model, tokenizer) as engine:        # a thread of its own; without `with`: engine.run() works in yours
        seat = engine.open(voice="default")
        seat.read(readings)
        seat.reply(options, emit=print)

All state is touched by one thread only, the one that ticks: what other threads want is queued and done between two units. Only to
come in one need not wait for it.
A unit that fails is tried again conversation by conversation; only those fail whose own part failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Windows
from thinktalk.engine.admission import Admission
from thinktalk.engine.replying import Failed, Stage
from thinktalk.engine.scheduler import Costs, Unit, next_unit
from thinktalk.engine.seat import Seat
from thinktalk.engine.seat_state import SeatState
from thinktalk.engine.stages import Stages
from thinktalk.engine.turn import Piece
from thinktalk.engine.worker import Worker
from thinktalk.errors import ConfigError
from thinktalk.messages import ThinkerChunk
from thinktalk.pipeline import Reading
from thinktalk.prompt import Tokenizer
from thinktalk.weights.hf import OmniModel
from thinktalk.weights.voices import find_voice

__all__ = ["Engine"]


class Engine(Worker):
    """Many conversations over one model; each gets what it would get alone."""

    def __init__(
        self,
        model: OmniModel,
        tokenizer: Tokenizer,
        *,
        max_sessions: int = 64,
        max_bytes: int | None = None,
        max_load: float | None = None,
        windows: Windows | None = None,
        prefill_chunk: int = 256,
        most_blocks: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """max_sessions, max_bytes (of keys and values; None: half of what is free), max_load (seconds of work each second
        beyond which no new speaker is let in; None: no limit) decide who is let in. `windows` is how codes become sound
        (code2wav.streaming.Windows). `prefill_chunk`: tokens of prompt a unit of work reads. `most_blocks`: blocks of
        sound that several replies' windows may have in one unit; None: 8 on a CPU, which is busy with that many, else 256.
        """
        super().__init__()
        if prefill_chunk < 1:
            raise ConfigError(f"prefill_chunk {prefill_chunk}: expected 1 token or more")
        self.model, self.tokenizer, self.clock = model, tokenizer, clock
        self.prefill_chunk = prefill_chunk
        on_cpu = model.dit is None or model.dit.input.weight.device.type == "cpu"
        self.most_blocks = most_blocks or (8 if on_cpu else 256)
        self.stages = Stages(model, tokenizer, windows=windows)
        self.seats: list[Seat] = []
        self.costs = Costs()
        self.admission = Admission(
            self, max_sessions=max_sessions, max_bytes=max_bytes, max_load=max_load
        )
        self._door = threading.Lock()  # one comes in at a time
        self._busy: dict[Seat, None] = {}  # seats that may have work, in order of coming

    # ----------------------------------------------------------------------------------------------------------- seats

    def open(
        self, *, voice: Voice | str | None = "default", state: SeatState | None = None
    ) -> Seat:
        """A new conversation, which speaks with a voice, or not at all (None); `state` is another one's to go on from.

        Errors: Busy when there is no room for it, ConfigError for an unknown voice.
        """
        if isinstance(voice, str):
            voice = find_voice(self.model.voices, voice)
        if voice is not None and self.stages.speaking is None:
            raise ConfigError("voice: the model was loaded without talker and code2wav; use voice=None")  # fmt: skip
        if self.broken is not None:
            raise RuntimeError(f"the engine has stopped: {self.broken!r}") from self.broken
        with (
            self._door,
            torch.inference_mode(),
        ):  # nothing of it is at work yet: no need to wait for the engine's step
            return self._open(voice, state)

    def _open(self, voice: Voice | None, state: SeatState | None) -> Seat:
        if state is not None and (state.feed is None) != (voice is None):
            raise ConfigError("state: made with speech and opened without, or the other way round")
        self.admission.check(0 if state is None else state.length, speaks=voice is not None)
        seat = Seat(self, voice, state or self.stages.fresh_state(voice))
        self.seats.append(seat)
        return seat

    def _leave(self, seat: Seat) -> None:
        if seat in self.seats:
            self.seats.remove(seat)
        self._busy.pop(seat, None)

    def _stir(self, seat: Seat) -> None:
        """The seat may have work."""
        self._busy[seat] = None

    @property
    def sample_rate(self) -> int:
        """Samples a second of the sound it makes."""
        code2wav = self.model.config.code2wav
        return 24_000 if code2wav is None else code2wav.sample_rate

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values held now."""
        return self.stages.pool_bytes + sum(self.stages.own_bytes(s.memory) for s in self.seats)

    # ------------------------------------------------------------------------------------------------------------ work

    @torch.inference_mode()
    def tick(self) -> bool:
        """Do one unit of work; False when there is none."""
        self.grant()
        now = self.clock()
        unit = next_unit(self._busy, now, guard_s=self._guard(), most_blocks=self.most_blocks)
        if unit is None:
            self._busy.clear()
            self.stages.rest()
            return False
        replies = [seat.replying for seat in unit.seats if seat.replying is not None]
        before = sum(reply.ledger.sound_s for reply in replies)
        for reply in replies:
            reply.ledger.enter(unit.stage.name, now, len(replies))
        self._work(unit)
        after = self.clock()
        for reply in replies:
            reply.ledger.leave(after)
        sound_s = sum(reply.ledger.sound_s for reply in replies) - before
        self.costs.add(unit.stage, len(unit.seats), after - now, sound_s)
        return True

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Work in the caller's thread until `until()` or until nothing is left to do."""
        assert not self.running, "a thread is at work already"
        while (until is None or not until()) and self.tick():
            pass

    def _guard(self) -> float:
        """How close to running dry somebody must be to go before everybody else: what his next sound may take."""
        return 0.1 + 2 * self.costs.longest + self.costs.steps[Stage.SOUND].of(1)

    def _work(self, unit: Unit) -> None:
        stage, thinking, speaking = unit.stage, self.stages.thinking, self.stages.speaking
        if stage is Stage.READ:
            self._alone(unit.seats[0], self._read)
        elif stage is Stage.BEGIN:
            self._alone(unit.seats[0], lambda seat: thinking.begin(seat.replying))
        elif stage is Stage.OPEN:
            self._alone(unit.seats[0], lambda seat: speaking.open(seat.replying))
        else:
            step = {Stage.TALK: "talk", Stage.SOUND: "sound"}
            work = thinking.think if stage is Stage.THINK else getattr(speaking, step[stage])
            self._together(unit.seats, work)

    def _alone(self, seat: Seat, work: Callable[[Seat], Any]) -> None:
        reply = seat.replying
        try:
            work(seat)
        except Exception as error:
            if seat.replying is reply and not seat.closed:
                seat._fail(error)
        else:
            self._look(seat, reply)

    def _together(self, seats: list[Seat], step: Callable[[list], list]) -> None:
        replies = [seat.replying for seat in seats]
        try:
            errors = step(replies)
        except Exception as error:
            if len(seats) == 1:
                seats[0]._fail(error)
                return
            for seat, reply in zip(seats, replies, strict=True):
                if seat.replying is reply:  # nobody ended it meanwhile
                    self._together([seat], step)
            return
        for seat, reply, error in zip(seats, replies, errors, strict=True):
            if seat.replying is not reply:
                continue
            if error is not None:
                seat._fail(error)
            else:
                self._look(seat, reply)

    def _look(self, seat: Seat, reply: Any) -> None:
        """Is the reply over? Then the last event goes out, after the seat is free for what comes next."""
        if reply is None or seat.replying is not reply or not reply.is_over:
            return
        done = reply.done()
        seat._stop(reply)
        with suppress(Exception):  # whoever listens has failed too: nobody is left to tell
            reply.emit(done)

    def _read(self, seat: Seat) -> None:
        """The next piece of prompt, or a part of it when it is long."""
        piece = seat.pieces[0]
        what, turn, size = piece.what, piece.turn, self.prefill_chunk
        if callable(what):
            made: list[Piece] = []
            try:
                made = [Piece(reading, piece.due) for reading in what() or ()]
            finally:
                for each in reversed(made):
                    seat.pieces.insert(1, each)
                seat.pieces.popleft()  # last: others ask meanwhile whether the seat is idle
            return
        if turn is None:
            seat.turn = None  # what was said before is past: keep() comes too late
        whole = what.length if isinstance(what, ThinkerChunk) else what.embedded.length
        size = min(size, whole - piece.done)
        if isinstance(what, ThinkerChunk):
            self.stages.recall(seat.memory, what.narrow(piece.done, size))
        else:
            self.admission.check_growth(seat, whole - piece.done)
            hidden = self.stages.read(seat.memory, part_of(what, piece.done, size))
            if turn is not None:
                turn.hidden.extend(hidden.split(1, 1))
        piece.done += size
        if piece.done >= whole:
            seat.pieces.popleft()
            if turn is not None:
                turn.recalled = True

    def abandon(self, error: Exception) -> None:
        """A fault of the engine itself: nobody is left waiting."""
        for seat in list(self.seats):
            reply, seat.replying, seat.error = seat.replying, None, error
            if reply is not None:
                reply.live = False
                with suppress(Exception):
                    reply.emit(Failed(error=error))


def part_of(reading: Reading, start: int, length: int) -> Reading:
    """Some of its tokens; views."""
    if start == 0 and length == reading.embedded.length:
        return reading
    return Reading(
        reading.embedded.narrow(start, length),
        reading.token_ids[:, start : start + length],
        reading.heard[:, start : start + length],
        reading.next_position,
    )
