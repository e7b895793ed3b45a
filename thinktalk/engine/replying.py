"""Replying: one reply as it is made. Tokens and codes come in one by one; TextDelta, AudioChunk, Done go out.

    Thinker      token 0   token 1   token 2   token 3   ...  end
    Talker                 code 0    code 1    code 2    ...           code t follows once Thinker token t was read
    code2wav                                          [first blocks]   [more blocks] ...

Stages ask a reply what it `wants` and hand their results to `accept_token`, `hear`, `accept_code`, `accept_sound`. It holds no
network and runs none: that is stages.py, for many replies at once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, SpeechState
from thinktalk.engine.drawing import Choice
from thinktalk.engine.ledger import Ledger
from thinktalk.engine.pool import Row
from thinktalk.engine.seat_state import Mark, SeatState
from thinktalk.engine.wording import Watch, Wording
from thinktalk.events import AudioChunk, Done, Event, Reply, TextDelta
from thinktalk.media.text import TextStream
from thinktalk.pipeline import Options
from thinktalk.talker.prepare import TalkerFeed

__all__ = ["Failed", "Replying", "Said", "Stage"]

FIRST_SOUND_S = 0.25  # a new reply is due this long after it was asked for
TEXT_PER_S = 20  # tokens that nobody reads faster than: when the next word of a silent reply is due


class Stage(enum.IntEnum):
    """A kind of work; its value counts for nothing."""

    READ = 0  # a piece of prompt
    BEGIN = 1  # the first token of a reply
    THINK = 2  # the next token of replies
    OPEN = 3  # the first code of a reply
    TALK = 4  # the next code of replies
    SOUND = 5  # the next stretch of sound of replies


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The reply could not be made or finished; the conversation may be taken back to a mark and go on."""

    error: Exception
    """What happened."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """How far a reply had come."""

    token_ids: tuple[int, ...] = ()
    """Tokens written, without the end token."""
    codes: int = 0
    """Codes spoken."""
    seconds: float = 0.0
    """Sound given out."""
    thinking_done: bool = True
    """Whether the text had reached its end."""
    speaking_done: bool = True
    """Whether all sound was given out."""


@dataclass(eq=False)
class Replying:
    """The state of one reply; lives from seat.reply() until Done, Failed or cancel()."""

    options: Options
    emit: Callable[[Any], None]  # gets every Event, or Failed
    asked_at: float  # engine clock
    clock: Callable[[], float]
    memory: SeatState  # of its conversation
    noise: Tensor | None = None
    wording: Wording = field(default_factory=Wording)
    begun: bool = False
    live: bool = True  # False once it is over, however it ended

    # Thinker
    mark: Mark | None = None  # the moment before it
    prompt_tokens: int = 0
    text: TextStream | None = None
    text_choice: Choice | None = None
    text_limit: int = 0
    text_row: Row | None = None  # its place in the Thinker's pool while it thinks
    thinking: bool = False
    token_ids: list[int] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)  # (1, 1, D) of each token read
    finish: str = "length"
    words: list[str] = field(default_factory=list)
    given: deque[int] = field(init=False)  # tokens it must still begin with
    watch: Watch = field(init=False)  # where its text and its speech end

    # Talker
    feed: TalkerFeed | None = None  # None without speech
    code_choice: Choice | None = None
    code_limit: int = 0
    code_row: Row | None = None  # its place in the Talker's pool while it talks
    codes: list[int] = field(default_factory=list)
    talking: bool = False  # codes are still to come
    speaking: bool = False  # codes or sound are still to come

    # code2wav
    voice: Voice | None = None
    speech: Speech | None = None  # how codes become sound
    spoken: SpeechState | None = None  # and where that stands
    unvoiced: list[int] = field(default_factory=list)  # codes it has not got yet
    wanted: int = 1  # codes it waits for
    sounding: bool = False  # it can go on now
    sound: list[np.ndarray] = field(default_factory=list)
    samples: int = 0
    sample_rate: int = 24_000  # of code2wav
    ledger: Ledger = field(init=False)  # when all this happened

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.asked_at)
        self.given, self.watch = deque(self.wording.given), Watch(self.wording)

    # ------------------------------------------------------------------------------------------------------- what next

    def wants(self) -> Stage | None:
        """The stage that the next sound (or else the next word) waits for."""
        if not self.begun:
            return Stage.BEGIN
        if self.sounding:
            return Stage.SOUND
        if self.talking and self.feed is not None and self.feed.ready:
            return Stage.OPEN if self.code_choice is None else Stage.TALK
        return Stage.THINK if self.thinking else None

    def can(self, stage: Stage) -> bool:
        """Whether it could take part in a step of this stage now."""
        if stage is Stage.THINK:
            return self.text_row is not None
        if stage is Stage.TALK:
            return self.code_row is not None and self.feed is not None and self.feed.ready
        return self.sounding if stage is Stage.SOUND else self.wants() is stage

    @property
    def dry_at(self) -> float | None:
        """When the listener has heard all that was given out."""
        return self.ledger.dry_at

    @property
    def blocks(self) -> int:
        """Blocks that its next window computes."""
        assert self.speech is not None and self.spoken is not None
        start, stop = self.speech.windows.computed(self.spoken.window)
        return stop - start

    @property
    def due(self) -> float:
        """When its next sound or word should be there."""
        if self.speaking:
            return self.asked_at + FIRST_SOUND_S if self.dry_at is None else self.dry_at
        return self.asked_at + FIRST_SOUND_S + len(self.token_ids) / TEXT_PER_S

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.begun and not self.thinking and not self.speaking

    # --------------------------------------------------------------------------------------------------------- results

    def begin(self, mark: Mark, text: TextStream, limit: int) -> None:
        """All is read: up to `limit` tokens may follow `mark`."""
        self.begun = self.thinking = True
        self.mark, self.prompt_tokens = mark, mark.thinker
        self.text, self.text_limit = text, limit
        if self.options.speech:
            assert self.memory.feed is not None
            self.feed = self.memory.feed.fork()
            self.talking = self.speaking = True

    def accept_token(self, token: int, ends: tuple[int, ...]) -> None:
        """The Thinker's next token; the last one, which ends the text or fills it, is never read."""
        if token in ends:
            self.thinking, self.finish = False, "stop"
        else:
            self.token_ids.append(token)
            self.moment("first_token")
            self.thinking = len(self.token_ids) < self.text_limit
            assert self.text is not None
            self._write(self.text.push(token))
        if not self.thinking:
            self.moment("text")
            if self.live:
                self._write(self.text.flush() if self.text is not None else "")
                self.say(self.watch.flush())
            if self.feed is not None and not self.hidden:
                self.talking = self.speaking = (
                    False  # nothing was read: there is nothing to speak of
                )
            elif self.talking and self.feed is not None and not self.feed.ended:
                self.feed.end()

    def _write(self, piece: str) -> None:
        """The text goes on, up to where it is to stop or to fall silent."""
        self.say(self.watch.push(piece))
        if self.watch.stopped:
            self.thinking, self.finish = False, "stop"
        if self.watch.silent and self.talking and self.feed is not None:
            if not self.hidden:
                self.talking = self.speaking = False  # nothing comes before it
            elif not self.feed.ended:
                self.feed.end()

    def hear(self, hidden: Tensor, heard: Tensor | None) -> None:
        """The last token was read: its hidden state (1, 1, D), and what the Talker hears of it (1, 1, D)."""
        self.hidden.append(hidden)
        if heard is not None and self.feed is not None and self.talking and not self.feed.ended:
            self.feed.waiting.append(heard)

    def accept_code(self, code: int, ends: tuple[int, ...]) -> bool:
        """The Talker's next code; False when it was the last one."""
        if code in ends:
            return False
        self.codes.append(code)
        self.unvoiced.append(code)
        self.moment("first_code")
        return len(self.codes) < self.code_limit

    def voice_codes(self, *, last: bool = False) -> None:
        """Hand the codes on when enough have come, unless sound is to be made of the earlier ones first."""
        assert self.speech is not None and self.spoken is not None
        if last or (len(self.unvoiced) >= self.wanted and not self.sounding):
            self.speech.collect(self.spoken, self.unvoiced, last=last)
            self.unvoiced = []
            self.wanted = self.speech.wants(self.spoken)
            self.sounding = self.speech.ready(self.spoken)

    def accept_sound(self, wave: np.ndarray) -> None:
        """The next stretch of sound."""
        assert self.speech is not None and self.spoken is not None
        self.sounding = self.speech.ready(self.spoken)
        self.wanted = self.speech.wants(self.spoken)
        self.speaking = not self.spoken.done
        if self.talking:
            self.voice_codes()
        if not len(wave):
            return
        now = self.clock()
        start_s = self.samples / self.sample_rate
        self.sound.append(wave)
        self.samples += len(wave)
        self.ledger.sound(len(wave) / self.sample_rate, now)
        self.emit(
            AudioChunk(
                pcm=wave, start_s=start_s, at_s=now - self.asked_at, sample_rate=self.sample_rate
            )
        )

    def say(self, piece: str) -> None:
        """The next piece of text."""
        if piece:
            self.words.append(piece)
            self.emit(TextDelta(text=piece, at_s=self.clock() - self.asked_at))

    def moment(self, name: str) -> None:
        """Note when something happened first."""
        self.ledger.note(name, self.clock())

    # ------------------------------------------------------------------------------------------------------------- end

    def said(self) -> Said:
        """How far it has come."""
        return Said(
            token_ids=tuple(self.token_ids), codes=len(self.codes), seconds=self.samples / self.sample_rate,
            thinking_done=self.begun and not self.thinking, speaking_done=self.begun and not self.speaking,
        )  # fmt: skip

    def done(self) -> Event:
        """Everything that was said."""
        speech = self.feed is not None
        self.moment("done")
        moments = self.ledger.moments
        reply = Reply(
            text="".join(self.words),
            token_ids=self.token_ids,
            audio=(np.concatenate(self.sound) if self.sound else np.zeros(0, np.float32)) if speech else None,
            codes=self.codes if speech else None,
            sample_rate=self.sample_rate,
            prompt_tokens=self.prompt_tokens,
            finish=self.finish,
            timing={name: s * 1e3 for name, s in moments.items()} | {"total": moments["done"] * 1e3},
            latency=self.ledger.latency(self.clock()),
        )  # fmt: skip
        return Done(reply=reply)
