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
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, replace
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from thinktalk import pipeline
from thinktalk.config import GenerationConfig
from thinktalk.engine.alignment import Pace, word_seconds, words
from thinktalk.engine.answering import Answer, wait_for
from thinktalk.engine.engine import Engine
from thinktalk.engine.listening import Listener, ListenerState, plain
from thinktalk.engine.live import join_prompts
from thinktalk.engine.saving import Record, load_record, revive, save_session
from thinktalk.engine.seat import Seat
from thinktalk.engine.seat_state import Mark
from thinktalk.errors import ConfigError, InputError
from thinktalk.events import ContextLimit, Event
from thinktalk.pipeline import Options, Reading
from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM, Prompt

__all__ = ["Session"]


class Session:
    """One conversation. Errors: InputError for what cannot be taken in, Busy when the engine has no room."""

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
        self._engine = engine
        speech = voice is not None
        generation = engine.model.config.generation
        self._options = options or Options(generation=generation, speech=speech)
        if self._options.speech and not speech:
            raise ConfigError("voice None: a session without a voice cannot speak; name a voice")
        self._media = {"allow_urls": allow_urls, "use_audio_in_video": use_audio_in_video}
        self._listener = _listener(engine, fps, frame_tokens)
        if messages and system is not None:
            raise InputError("system: given beside messages, expected one of them; put it first in messages")  # fmt: skip
        said = list(messages or [{"role": "system", "content": system or (SPEECH_SYSTEM if speech else DEFAULT_SYSTEM)}])  # fmt: skip
        state = self._listener.init_state()
        opening, is_open = self._listener.messages(said, state, speech=self._options.speech, **self._media)  # fmt: skip
        history = [{"role": m["role"], "content": plain(m["content"])} for m in said]
        if is_open:
            state.parts = _parts(history.pop()["content"])
        else:
            opening += self._listener.begin("user", state)
        seat = engine.open(voice=voice)
        self._voice = voice
        self._sit(seat, state, opening, history, Pace())
        self._send([], opens=True)

    def _sit(
        self, seat: Seat, state: ListenerState, opening: list[Prompt], history: list, pace: Pace
    ) -> None:
        """All that changes in a session's life."""
        self._seat, self._state, self._history, self._pace = seat, state, history, pace
        self._answer: Answer | None = None  # the last reply, until something is read after it
        self._waiting: list[Callable[[], None]] = []  # what came during a reply
        self._opening = opening  # of this turn, not read yet
        self._mark: Mark | None = None  # the models' memories before this turn
        self._start = (state.fork(), list(opening), len(history))  # what goes with the mark

    # -------------------------------------------------------------------------------------------------------- listening

    def hear(self, pcm: Any, rate: int = 16_000) -> None:
        """Sound that follows what was heard before: mono (S,) floats in -1..1 or integers, numpy or torch.

        What the context has no room for is dropped; respond() tells (ContextLimit).
        """
        samples = _as_pcm(pcm)
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

    def _take(self, come: Callable[[], list[Prompt]]) -> None:
        """Take something in, now or when the reply has ended."""
        self._must_be_open()
        self._settle()
        if self._answer is not None and not self._answer.over:
            self._waiting.append(lambda: self._send(come()))
        else:
            self._send(come())

    def _send(self, pieces: list[Prompt], *, opens: bool = False) -> None:
        """Have the engine read pieces; the turn's opening goes before its first one, or with `opens` at once."""
        opens = bool(self._opening) and (opens or bool(pieces))
        if opens:
            pieces, self._opening = [*self._opening, *pieces], []
        if not pieces:
            return
        prompt, model = join_prompts(pieces), self._engine.model
        work: list[Callable[[], list[Reading] | None]] = [self._note] if opens else []
        work.append(lambda: pipeline.embed(model, [prompt]))
        if self._answer is not None and self._answer.settled:
            self._answer = None  # from now on it is past
        self._seat.read(work)

    def _note(self) -> None:
        """In the engine's thread, before a turn is read: the moment to come back to when something fails."""
        self._mark = self._seat.memory.mark()

    # ---------------------------------------------------------------------------------------------------------- replies

    def respond(self, *, noise: Tensor | None = None, **changes: Any) -> AsyncIterator[Event]:
        """End the turn and answer: TextDelta, AudioChunk as they come, then Done. Work begins at the call.

        `changes` replace options for this reply (greedy, seed, speech, flow_method, max_text_tokens, ...). A reply still
        under way is interrupted first. Leaving the loop early interrupts; after interrupt() it ends without Done.
        """
        return self._follow_async(*self._ask(noise, changes))

    def respond_sync(self, *, noise: Tensor | None = None, **changes: Any) -> Iterator[Event]:
        """The same for a plain `for`."""
        return self._follow(*self._ask(noise, changes))

    def _ask(
        self, noise: Tensor | None, changes: dict[str, Any]
    ) -> tuple[list[Event], Answer | None]:
        self._must_be_open()
        options = _changed(self._options, changes)
        if options.speech and self._voice is None:
            raise ConfigError("speech: this session has no voice; give it one when it begins")
        if self._answer is not None and not self._answer.over:
            self.interrupt()
        self._settle()
        listener, state = self._listener, self._state
        pieces = listener.finish(state) if state.timeline.tokens <= listener.limit else None
        limits: list[Event] = []
        if state.full or pieces is None:
            limits.append(ContextLimit(tokens=state.timeline.tokens, limit=listener.limit))
        if pieces is None:
            return limits, None
        self._history.append({"role": "user", "content": _content(state.parts)})
        state.parts = []
        self._send(pieces + listener.answer(state))
        room = listener.answer_room(state)
        most = min(room, options.generation.max_text_tokens)
        options = replace(options, generation=replace(options.generation, max_text_tokens=most))
        answer = self._answer = Answer(
            state.timeline.fork(), room, listener.context, options.speech
        )
        self._seat.reply(options, answer.emit, noise=noise)
        return limits, answer

    def _follow(self, limits: list[Event], answer: Answer | None) -> Iterator[Event]:
        try:
            yield from limits
            if answer is not None:
                yield from answer.take(self._engine)
        finally:
            self._part(answer)

    async def _follow_async(
        self, limits: list[Event], answer: Answer | None
    ) -> AsyncIterator[Event]:
        try:
            for event in limits:
                yield event
            if answer is not None:
                async for event in answer.take_async(self._engine):
                    yield event
        finally:
            self._part(answer)

    def _part(self, answer: Answer | None) -> None:
        """Whoever listened has gone."""
        if answer is not None and answer is self._answer and not self.closed:
            if not answer.over:
                self.interrupt()
            self._settle()

    def interrupt(self, *, heard_s: float | None = None) -> str:
        """Stop the reply; what was not heard was never said. Returns the words that stay in the history.

        heard_s: seconds of the reply's sound that were played; None: all that the loop has taken. May also come after Done,
        while the sound is still being played, as long as nothing that came since was read (2 s of sound or a whole other
        medium); afterwards it changes nothing. Words are found in the sound by estimate (alignment.py).
        """
        if heard_s is not None and not (isinstance(heard_s, int | float) and heard_s >= 0):
            raise InputError(f"heard_s: {heard_s!r}, expected seconds from 0 on")
        answer = self._answer
        if answer is None or answer.error is not None:
            last = self._history[-1] if self._history else {"role": ""}
            return last["content"] if last["role"] == "assistant" else ""
        said, late = self._seat.cancel(), answer.settled
        answer.close()
        begun = bool(said.token_ids) or said.thinking_done
        tokens = list(said.token_ids)
        if begun:
            complete = said.thinking_done and said.speaking_done
            tokens = self._heard(answer, tokens, heard_s, complete=complete)
            self._seat.keep(len(tokens))
        text = self._engine.tokenizer.decode(tokens)
        self._said(answer, len(tokens), text, late=late)
        if not late:
            self._catch_up()
        return text

    def _heard(
        self, answer: Answer, tokens: list[int], heard_s: float | None, *, complete: bool
    ) -> list[int]:
        """Those tokens of a reply that were heard, or read where nothing is spoken."""
        text = self._engine.tokenizer.decode(tokens)
        if not answer.speech:
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

    # ------------------------------------------------------------------------------------------------------------ turns

    def _settle(self) -> None:
        """When the reply has ended: it becomes history, and what came meanwhile is taken in."""
        answer = self._answer
        if answer is None or answer.settled or not answer.over:
            return
        if answer.error is not None:
            self._answer = None
            self._go_back()
        else:
            assert answer.done is not None
            reply = answer.done.reply
            if reply.finish == "stop" and answer.spoken.samples:
                expected = sum(word_seconds(reply.text[a:b]) for a, b in words(reply.text))
                self._pace.add(expected, answer.spoken.voiced_s())
            self._said(answer, len(reply.token_ids), reply.text, late=False)
        self._catch_up()

    def _said(self, answer: Answer, tokens: int, text: str, *, late: bool) -> None:
        """The assistant's turn holds `tokens`; the user's turn is open after it."""
        fresh = replace(self._listener.init_state(), timeline=answer.timeline.fork())
        self._opening = self._listener.replied(tokens, fresh)
        if late:  # something of the next turn is there, but nothing was read
            self._state.timeline = fresh.timeline
            self._history.pop()
        else:
            fresh.exact, fresh.full = self._state.exact, self._state.full
            self._state = fresh
        self._history.append({"role": "assistant", "content": text})
        answer.settled = True
        start = replace(fresh.fork(), text="user\n", live=None, parts=[])
        self._start = (start, list(self._opening), len(self._history))

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for come in waiting:
            come()

    def _go_back(self) -> None:
        """Something failed: to the beginning of the turn, in both memories and in the history."""
        if self._mark is not None:
            self._seat.rewind(self._mark)
        state, opening, turns = self._start
        self._state, self._opening = state.fork(), list(opening)
        del self._history[turns:]

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
        other._sit(
            self._seat.fork(), self._state.fork(), list(self._opening), deepcopy(self._history), replace(self._pace)
        )  # fmt: skip
        state, opening, turns = self._start
        other._mark, other._start = self._mark, (state.fork(), list(opening), turns)
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
        session._mark = seat.memory.mark()
        return session

    def _rest(self, what: str) -> None:
        """Wait until all that was sent is read."""
        self._must_be_open()
        self._settle()
        if self._answer is not None and not self._answer.over:
            raise InputError(f"session: replying, expected a pause before {what}; wait for Done or interrupt()")  # fmt: skip
        wait_for(lambda: self._seat.idle, self._engine)

    closed = False

    def close(self) -> None:
        """Hang up; the seat is free for another."""
        if not self.closed:
            self.closed = True
            if self._answer is not None:
                self._answer.close()
            self._seat.close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise InputError("session: it was closed; begin another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _listener(engine: Engine, fps: float | None, frame_tokens: int | None) -> Listener:
    config = engine.model.config
    reserve = min(256, config.thinker.text.max_positions // 8)
    return Listener(
        engine.tokenizer, config, fps=fps, frame_tokens=frame_tokens, reserve_tokens=reserve
    )


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message's content as parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as a message's content; text alone as a string."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _changed(options: Options, changes: dict[str, Any]) -> Options:
    """Options with some replaced, those of generation too."""
    own = {f.name for f in fields(Options)} - {"generation"}
    inner = {f.name for f in fields(GenerationConfig)}
    unknown = sorted(set(changes) - own - inner - {"generation"})
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such option; have {', '.join(sorted(own | inner))}")
    generation = changes.get("generation", options.generation)
    generation = replace(generation, **{k: v for k, v in changes.items() if k in inner})
    if generation.max_text_tokens < 1 or generation.max_codes < 1:
        raise ConfigError("max_text_tokens and max_codes: expected 1 or more")
    return replace(options, generation=generation, **{k: v for k, v in changes.items() if k in own})


def _as_pcm(pcm: Any) -> Tensor:
    """Mono float32 (S,) of our own, finite."""
    array = np.asarray(pcm.detach().cpu() if isinstance(pcm, Tensor) else pcm)
    if array.ndim != 1 or array.dtype.kind not in "if":
        raise InputError(f"pcm: {array.dtype} of shape {array.shape}, expected mono samples (S,)")
    if array.dtype.kind == "i":
        array = array.astype(np.float64) / (1 << (8 * array.dtype.itemsize - 1))
    with np.errstate(over="ignore"):
        array = np.array(array, np.float32)
    if not np.isfinite(array).all():
        raise InputError("pcm: holds NaN or infinity, expected finite samples")
    if len(array) and math.fabs(float(np.abs(array).max())) > 1e4:
        raise InputError("pcm: samples far outside -1..1; give integers as integers or scale them")
    return torch.from_numpy(array)
