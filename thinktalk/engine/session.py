"""Session: one conversation that listens while you speak and speaks while it thinks.

    session = Session(engine, voice="default")
    session.hear(pcm)                              read at once, 2 s by 2 s
    async for event in session.respond(): ...      TextDelta, AudioChunk, ..., Done
    session.interrupt(heard_s=1.2)                 only what was heard was ever said

    hear, see, text, add --Listener--> Prompts --pipeline.embed, in the engine--> Readings --Seat--> the models' memories

Nothing is encoded and no Thinker token read twice, however long the conversation. A session belongs to one thread or one loop;
the engine's thread may be another. What comes in during a reply waits until that reply has ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from os import PathLike
from typing import Any, Self

from torch import Tensor

from thinktalk.engine.alignment import Pace
from thinktalk.engine.answering import Answer
from thinktalk.engine.dialogue import Dialogue
from thinktalk.engine.engine import Engine
from thinktalk.engine.listening import Listener, plain
from thinktalk.engine.saving import Record, load_record, revive, save_session
from thinktalk.engine.taking import as_pcm, changed
from thinktalk.engine.wording import Wording
from thinktalk.errors import ConfigError, InputError
from thinktalk.events import Event
from thinktalk.pipeline import Options
from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM

__all__ = ["Session"]


class Session(Dialogue):
    """One conversation. Errors: InputError for what cannot be taken in, Busy when the engine has no room.

    >>> with Session(engine) as session:
    ...     session.text("Hello")
    ...     print(list(session.respond_sync())[-1].reply.text)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        voice: str | None = "default",
        options: Options | None = None,
        system: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        fps: float | None = None,
        frame_tokens: int | None = None,
        allow_urls: bool = False,
        use_audio_in_video: bool | None = None,
    ):
        """`voice` None: it writes only. `system` replaces the default system prompt; `messages` is a conversation so far,
        the last user's turn still open. `fps` and `frame_tokens` (most tokens a pair of pictures gets) fix how see() samples.
        """
        generation = engine.model.config.generation
        options = options or Options(generation=generation, speech=voice is not None)
        _check(options, voice)
        self._engine, self._voice, self._options = engine, voice, options
        self._media = {"allow_urls": allow_urls, "use_audio_in_video": use_audio_in_video}
        self._listener = _listener(engine, fps, frame_tokens)
        if messages and system is not None:
            raise InputError("system: given beside messages, expected one of them; put it first in messages")  # fmt: skip
        if not messages:
            default = SPEECH_SYSTEM if options.speech else DEFAULT_SYSTEM
            messages = [{"role": "system", "content": default if system is None else system}]
        state = self._listener.init_state()
        opening = self._listener.messages(messages, state, speech=options.speech, **self._media)
        history = [{"role": m["role"], "content": plain(m["content"])} for m in messages]
        if state.role:
            history.pop()  # it stands in state.parts until its turn ends
        self._sit(engine.open(voice=voice), state, opening, history, Pace())
        self._send([], opens=True)

    # -------------------------------------------------------------------------------------------------------- listening

    def hear(self, pcm: Any, rate: int = 16_000) -> None:
        """Sound that follows what was heard before: mono (S,) floats in -1..1 or integers, numpy or torch.

        What the context has no room for is dropped; respond() tells (ContextLimit).
        """
        samples = as_pcm(pcm)
        if not isinstance(rate, int):
            raise InputError(f"rate: {rate!r}, expected whole samples a second")
        self._take(lambda: self._listener.hear(samples, rate, self._state))

    def see(self, frame: Any, at_s: float) -> None:
        """A picture (PIL image, uint8 (H, W, 3), ...) on the screen from `at_s` on; None: still the same one.

        `at_s` counts from the first sound or picture of this turn. Pictures are sampled `fps` times a second and stand
        beside the sound as in a video file.
        """
        if isinstance(at_s, bool) or not isinstance(at_s, int | float):
            raise InputError(f"at_s: {at_s!r}, expected seconds as a number")
        self._take(lambda: self._listener.see(frame, at_s, self._state))

    def text(self, text: str) -> None:
        """Written words, at this place of the turn."""
        if not isinstance(text, str):
            raise InputError(f"text: {type(text).__name__}, expected a string")
        self.add(text)

    def add(self, content: Any) -> None:
        """Content as in a message: a string, or a list of text, image, audio and video parts."""
        self._take(lambda: self._listener.add(content, self._state, **self._media))

    # ---------------------------------------------------------------------------------------------------------- replies

    def respond(
        self,
        *,
        noise: Tensor | None = None,
        wording: Wording | None = None,
        interrupts: bool = True,
        **changes: Any,
    ) -> AsyncIterator[Event]:
        """End the turn and answer: TextDelta, AudioChunk as they come, then Done. Work begins at the call.

        `changes` replace options for this reply (greedy, seed, speech, flow_method, max_text_tokens, ...); `noise` (frames,
        mel bands) fixes the flow's start, `wording` some of the words. A reply still under way is interrupted first. Leaving
        the loop early interrupts; after interrupt() it ends without Done. ContextLimit comes first when not all fitted, or
        alone when no answer does. To interrupt waits for the engine's step under way: with `interrupts` False whoever leaves
        early calls interrupt() or close() himself, where waiting harms nobody.
        """
        return self._follow_async(*self._begin(noise, wording, changes), interrupts)

    def respond_sync(
        self, *, noise: Tensor | None = None, wording: Wording | None = None, **changes: Any
    ) -> Iterator[Event]:
        """The same for a plain `for`."""
        return self._follow(*self._begin(noise, wording, changes))

    def _begin(
        self, noise: Tensor | None, wording: Wording | None, changes: dict[str, Any]
    ) -> tuple[list[Event], Answer | None]:
        self._must_be_open()
        options = changed(self._options, changes)
        _check(options, self._voice)
        self._stop_speaking()
        self._settle()
        self._raise_late()
        return self._ask(options, noise, wording)

    def _follow(self, limits: list[Event], answer: Answer | None) -> Iterator[Event]:
        try:
            yield from limits
            if answer is not None:
                yield from answer.take(self._engine)
        finally:
            self._left(answer)

    async def _follow_async(
        self, limits: list[Event], answer: Answer | None, interrupts: bool
    ) -> AsyncIterator[Event]:
        try:
            for event in limits:
                yield event
            if answer is not None:
                async for event in answer.take_async(self._engine):
                    yield event
        finally:
            if interrupts:
                self._left(answer)

    def _left(self, answer: Answer | None) -> None:
        """Whoever listened has gone."""
        if answer is not None and answer is self._answer and not self.closed:
            self._stop_speaking()
            self._settle()

    def interrupt(self, *, heard_s: float | None = None, read: bool = False) -> str:
        """Stop the reply; what was not heard was never said. Returns the words that stay in the history.

        heard_s: seconds of the reply's sound that were played; None: all that the loop has taken. May also come after Done,
        while the sound is still being played, as long as nothing that came since was read (2 s of sound or a whole other
        medium); afterwards it changes nothing. Words are found in the sound by estimate (alignment.py).
        `read`: nobody listened, the text that the loop has taken was read.
        """
        if heard_s is not None and not (isinstance(heard_s, int | float) and heard_s >= 0):
            raise InputError(f"heard_s: {heard_s!r}, expected seconds from 0 on")
        self._must_be_open()
        answer = self._answer
        if answer is None or answer.error is not None:
            last = self._history[-1] if self._history else {"role": ""}
            return last["content"] if last["role"] == "assistant" else ""
        return self._cut(answer, heard_s, read=read)

    def _stop_speaking(self) -> None:
        """interrupt() when a reply is under way, else nothing."""
        if self._answer is not None and not self._answer.over:
            self.interrupt()

    # ----------------------------------------------------------------------------------------------------- what is known

    @property
    def history(self) -> list[dict[str, Any]]:
        """The messages as they were heard; of live sound and pictures their kind and seconds. A copy."""
        self._settle()
        return deepcopy(self._history)

    @property
    def tokens(self) -> int:
        """Tokens of the conversation so far."""
        self._settle()
        return self._state.timeline.tokens

    @property
    def replying(self) -> bool:
        """Whether a reply is under way."""
        return self._answer is not None and not self._answer.over

    @property
    def room(self) -> int:
        """Tokens that can still be taken in."""
        self._settle()
        return max(0, self._listener.limit - self._state.timeline.tokens)

    @property
    def exact(self) -> bool:
        """Whether all that was heard came out as the whole recordings would (docs/conversation.md)."""
        live = self._state.live
        return self._state.exact and (live is None or live.exact)

    # -------------------------------------------------------------------------------------------------- copies and ends

    def fork(self) -> Session:
        """Another session that goes on from here on its own. Errors: Busy; InputError during a reply."""
        self._rest("fork")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        history, pace = deepcopy(self._history), replace(self._pace)
        other._sit(self._seat.fork(), self._state.fork(), list(self._opening), history, pace)
        state, opening, turns = self._start
        other._start = (state.fork(), list(opening), turns)
        other._mark, other._marked = self._mark, self._marked
        return other

    def save(self, path: str | PathLike[str]) -> None:
        """Write the conversation to one file (safetensors with JSON); load() goes on from it, to the bit.

        Errors: InputError during a reply, or when the place cannot be written.
        """
        self._rest("save")
        if any(p.audio or p.images or p.videos for p in self._opening):  # media are saved as read
            self._send([], opens=True)
            self._rest("save")
        save_session(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], engine: Engine) -> Self:
        """A saved conversation, in this process or another; the model must be the same. Errors: InputError, Busy."""
        return cls._revive(engine, load_record(path, engine))

    @classmethod
    def _revive(cls, engine: Engine, record: Record) -> Self:
        session = object.__new__(cls)
        session._engine, session._voice, session._options = engine, record.voice, record.options
        session._media = {"allow_urls": record.allow_urls, "use_audio_in_video": record.use_audio_in_video}  # fmt: skip
        session._listener = _listener(engine, record.fps, record.frame_tokens)
        seat = revive(record, engine)
        session._sit(seat, record.state, record.opening, json.loads(record.history), record.pace)
        session._mark, session._marked = seat.memory.mark(), True
        return session

    def close(self, *, wait: bool = True) -> None:
        """Hang up; the seat is free for another, without `wait` as soon as the engine's step under way has ended."""
        if not self.closed:
            self.closed = True
            if self._answer is not None:
                self._answer.close()
        self._seat.close(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check(options: Options, voice: str | None) -> None:
    if options.speech and voice is None:
        raise ConfigError("speech: a session with voice=None cannot speak; name a voice when it begins")  # fmt: skip


def _listener(engine: Engine, fps: float | None, frame_tokens: int | None) -> Listener:
    config = engine.model.config
    reserve = min(256, config.thinker.text.max_positions // 8)
    return Listener(
        engine.tokenizer, config, fps=fps, frame_tokens=frame_tokens, reserve_tokens=reserve
    )
