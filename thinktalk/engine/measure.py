"""Measure: how long listeners wait, and how many can be talked with at once. What `thinktalk bench` prints.

    latency(engine, question)              turns one after the other, nobody else there   -> Waits
    load(engine, question, sessions=8)     many at once, and one alone to compare         -> Load

Both talk through Sessions, as a program would; the figures are the replies' own ledgers (events.Latency).
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from thinktalk.config import OmniConfig
from thinktalk.engine.admission import Busy
from thinktalk.engine.answering import wait_for
from thinktalk.engine.engine import Engine
from thinktalk.engine.session import Session
from thinktalk.errors import InputError
from thinktalk.events import Done, Latency, Reply
from thinktalk.pipeline import Options

__all__ = ["Load", "Question", "Waits", "babble", "latency", "load", "peak_mb"]

TEXT_TOKENS_PER_S = 4  # of speech: what people say in a second is 3 or 4 tokens
HEARD_PER_S = 16_000  # samples
PIECE = HEARD_PER_S // 5  # sound comes in 200 ms at a time
PARTS = ("input_ms", "text_to_code_ms", "code_to_sound_ms", "first_sound_ms", "steps_ms")
THINKING = (
    "BEGIN",
    "THINK",
    "OPEN",
    "TALK",
)  # steps of Thinker and Talker that make tokens and codes


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and how long an answer may be."""

    text: str = "Tell me a story about the sea, and take your time."
    """Written after what is heard; empty when the sound asks."""
    sound: np.ndarray | None = None
    """Heard before the text: float32 mono at 16 kHz."""
    seconds: float = 5.0
    """Longest answer; the model may end it sooner."""
    points: int | None = None
    """Times of the flow's walk; None: the model's own."""
    method: str | None = None
    """Solver of the flow: rk4, midpoint, euler; None: the model's own."""
    voice: str = "default"
    seed: int = 0

    def options(self, config: OmniConfig, seed: int) -> Options:
        """How it is to be answered."""
        if not self.seconds > 0:
            raise InputError(f"seconds {self.seconds}: expected a length above 0")
        generation = replace(
            config.generation,
            max_text_tokens=max(2, ceil(self.seconds * TEXT_TOKENS_PER_S)),
            max_codes=max(1, round(self.seconds * float(config.code2wav.codes_per_second))),
            flow_points=self.points or config.generation.flow_points,
            flow_method=self.method or config.generation.flow_method,
        )
        return Options(generation=generation, seed=seed)


def babble(seconds: float, *, seed: int = 0) -> np.ndarray:
    """Something to listen to: noise at 16 kHz that comes and goes four times a second, as syllables do."""
    t = np.arange(round(seconds * HEARD_PER_S)) / HEARD_PER_S
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.1 * (1.2 + np.sin(8 * np.pi * t)) * noise).clip(-1, 1).astype(np.float32)


def peak_mb() -> float:
    """Most memory (10^6 bytes) that this process has held at once.

    Linux lets a process begin with the ru_maxrss of the one that started it, whatever it held: there /proc tells its own.
    """
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


# -------------------------------------------------------------------------------------------------------------- latency


@dataclass(frozen=True, kw_only=True)
class Waits:
    """What turns of one conversation after the other had to wait for."""

    turns: list[Latency]
    replies: list[Reply]
    heard_s: float
    """Sound heard before each answer."""
    listening: float | None
    """Work of listening over the length of what was heard."""

    def of(self, part: str) -> float | None:
        """Median of a field of Latency."""
        return _median(getattr(turn, part) for turn in self.turns)

    def as_json(self) -> dict[str, Any]:
        """Medians in milliseconds and as factors; underruns are sums."""
        names = [*PARTS, "total_ms", "real_time_factor", "work_factor", "margin_ms"]
        return {
            "turns": len(self.turns),
            **{name: _rounded(self.of(name)) for name in names},
            "underruns": sum(turn.underruns for turn in self.turns),
            "underrun_ms": _rounded(sum(turn.underrun_ms for turn in self.turns)),
            "work_ms": {kind: _rounded(_median(t.work_ms[kind] for t in self.turns if kind in t.work_ms))
                        for kind in self.turns[0].work_ms},
            "heard_s": _rounded(self.heard_s),
            "listening_factor": _rounded(self.listening),
            "prompt_tokens": self.replies[0].prompt_tokens,
            "text_tokens": round(_median(len(reply.token_ids) for reply in self.replies) or 0),
            "codes": round(_median(len(reply.codes or ()) for reply in self.replies) or 0),
            "seconds": _rounded(_median(reply.seconds for reply in self.replies)),
        }  # fmt: skip


def latency(engine: Engine, question: Question, *, turns: int = 5) -> Waits:
    """Ask `turns` times, each in a new conversation, after one turn that is not counted. The engine must not be running."""
    assert not engine.running, "the caller's thread does the work here"
    replies, heard = [], []
    for _ in range(turns + 1):
        with _session(engine, question) as session:
            heard.append(_listen(session, engine, question))
            if question.text:
                session.text(question.text)
            replies.append(_answer(session))
    sound_s = 0.0 if question.sound is None else len(question.sound) / HEARD_PER_S
    listening = None if not sound_s else statistics.median(heard[1:]) / sound_s
    return Waits(
        turns=[_latency(reply) for reply in replies[1:]], replies=replies[1:], heard_s=sound_s, listening=listening
    )  # fmt: skip


def _listen(session: Session, engine: Engine, question: Question) -> float:
    """Hear the sound piece by piece, each read before the next comes; all but what the last one leaves. Seconds of work."""
    worked = 0.0
    wait_for(_idle(engine), engine)
    pieces = () if question.sound is None else range(0, len(question.sound), PIECE)
    for start in pieces:
        began = engine.clock()
        session.hear(question.sound[start : start + PIECE])
        if start + PIECE < len(
            question.sound
        ):  # the last piece and the end of the turn come together
            wait_for(_idle(engine), engine)
        worked += engine.clock() - began
    return worked


def _idle(engine: Engine) -> Callable[[], bool]:
    """Whether nobody in the engine has anything left to be done, as a function."""
    return lambda: all(seat.idle for seat in engine.seats)


# ----------------------------------------------------------------------------------------------------------------- load


@dataclass(frozen=True, kw_only=True)
class Load:
    """Many conversations at once."""

    sessions: int
    refused: int
    """Sessions that the engine had no room for."""
    turns: list[Latency]
    replies: list[Reply]
    wall_s: float
    """From the first question to the end of the last answer."""
    speakers: int | None
    """How many the engine thinks could be spoken to in real time, from what the steps cost."""

    @property
    def tokens(self) -> int:
        """Tokens of text and codes of speech."""
        return sum(len(reply.token_ids) + len(reply.codes or ()) for reply in self.replies)

    @property
    def tokens_per_s(self) -> float:
        """Tokens and codes a second of Thinker's and Talker's steps."""
        worked_ms = sum(turn.work_ms.get(kind, 0.0) for turn in self.turns for kind in THINKING)
        return 1e3 * self.tokens / worked_ms

    @property
    def sound_per_s(self) -> float:
        """Seconds of sound for all, a second: as many could be spoken to if nothing were lost."""
        return sum(reply.seconds for reply in self.replies) / self.wall_s

    def as_json(self) -> dict[str, Any]:
        """Medians and 95th percentiles over the sessions."""
        result: dict[str, Any] = {"sessions": self.sessions, "refused": self.refused}
        for name in (*PARTS, "real_time_factor"):
            result[name] = _rounded(_median(getattr(turn, name) for turn in self.turns))
            result[f"{name}_p95"] = _rounded(_high(getattr(turn, name) for turn in self.turns))
        return result | {
            "underruns": sum(turn.underruns for turn in self.turns),
            "underrun_ms": _rounded(sum(turn.underrun_ms for turn in self.turns)),
            "sessions_underrun": sum(turn.underruns > 0 for turn in self.turns),
            "tokens_per_s": _rounded(self.tokens_per_s),
            "sound_per_s": _rounded(self.sound_per_s),
            "text_tokens": sum(len(reply.token_ids) for reply in self.replies),
            "codes": sum(len(reply.codes or ()) for reply in self.replies),
            "seconds": _rounded(sum(reply.seconds for reply in self.replies)),
            "wall_s": _rounded(self.wall_s),
            "speakers": self.speakers,
        }


def load(engine: Engine, question: Question, *, sessions: int = 8, spread_s: float = 1.0) -> Load:
    """`sessions` conversations ask the question at moments drawn over `spread_s` seconds, all in one engine.

    Those for whom the engine has no room are counted and left out; Busy when it has room for none.
    """
    if sessions < 1:
        raise InputError(f"sessions {sessions}: expected 1 or more")
    assert not engine.running, "it is started here"
    talkers: list[Session] = []
    refusal: Busy | None = None
    for seed in range(sessions):
        try:
            talkers.append(_session(engine, question, seed=question.seed + seed))
        except Busy as busy:
            refusal = busy
    if not talkers:
        assert refusal is not None
        raise refusal
    moments = random.Random(question.seed)
    asks = sorted(moments.uniform(0.0, spread_s) for _ in talkers)
    with engine:
        for session in talkers:
            _listen(session, engine, question)
            if question.text:
                session.text(question.text)
        wait_for(_idle(engine), engine)
        start = time.perf_counter()
        answers = []
        for session, at_s in zip(talkers, asks, strict=True):
            time.sleep(max(0.0, at_s - asks[0] - (time.perf_counter() - start)))
            answers.append(session.respond_sync())
        replies = [_done(answer) for answer in answers]
        wall_s = time.perf_counter() - start
        for session in talkers:
            session.close()
    return Load(
        sessions=len(talkers), refused=sessions - len(talkers), turns=[_latency(reply) for reply in replies],
        replies=replies, wall_s=wall_s, speakers=engine.admission.speakers,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- together


def _session(engine: Engine, question: Question, *, seed: int | None = None) -> Session:
    options = question.options(engine.model.config, question.seed if seed is None else seed)
    return Session(engine, voice=question.voice, options=options)


def _answer(session: Session) -> Reply:
    return _done(session.respond_sync())


def _done(events: Iterable[Any]) -> Reply:
    """The reply at the end of events."""
    replies = [event.reply for event in events if isinstance(event, Done)]
    if not replies:
        raise InputError(
            "question: the conversation reached the model's context before the answer; hear less"
        )
    return replies[0]


def _latency(reply: Reply) -> Latency:
    assert reply.latency is not None, "a streamed reply has a ledger"
    return reply.latency


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _high(values: Iterable[float | None], part: float = 0.95) -> float | None:
    """The value that `part` of all are not above."""
    known: Sequence[float] = sorted(value for value in values if value is not None)
    return known[ceil(part * len(known)) - 1] if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
