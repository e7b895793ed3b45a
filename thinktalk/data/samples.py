"""Samples: the members of a sample (bytes) <-> Sample: a checked record and its media.

    KEY.json        {"messages": [...], "text", "voice", "seconds", "phones", "durations", "codes", ...}, every field optional
    KEY.opus, ...   media; a message names them by member: {"type": "audio", "audio": "opus"}

The fields are in docs/data.md. What a record says is checked when it is read: what a stage gets can be used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinktalk.data.shards import Entry
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio
from thinktalk.prompt import Medium, render

__all__ = ["ANSWER", "AUDIO_NAMES", "FRAME_SECONDS", "IMAGE_NAMES", "VIDEO_NAMES", "Sample", "check_record", "parse", "read_record"]  # fmt: skip

AUDIO_NAMES = ("opus", "wav", "flac", "mp3", "ogg", "m4a")
IMAGE_NAMES = ("png", "jpg", "jpeg", "webp", "gif", "avif", "bmp")
VIDEO_NAMES = ("mp4", "webm", "mkv", "mov")
"""Endings of members, by kind."""

FRAME_SECONDS = 0.025
"""What `durations` counts, where a record has no `frame_seconds`."""
MAX_CODE = 1 << 20
ANSWER = "answer."
"""How the member with an answer's speech begins: it is what the model shall say, not what it hears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a shard, checked."""

    where: str
    """Shard and key, for messages."""
    record: Mapping[str, Any]
    """Its JSON, fields that we do not know included."""
    media: Mapping[str, bytes] = field(default_factory=dict)
    """Members by name, json excluded."""

    @property
    def text(self) -> str:
        """What is said, or written; empty where nothing is."""
        return self.record.get("text", "")

    @property
    def voice(self) -> str | None:
        """Who speaks."""
        return self.record.get("voice")

    @property
    def seconds(self) -> float:
        """Length of the sound as the record says it; 0 where it does not."""
        return float(self.record.get("seconds", 0.0))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """ChatML messages, media by member name; [] where the record has none (prompts.py makes them)."""
        return self.record.get("messages", [])

    @property
    def phones(self) -> list[str]:
        """One phone an entry; a string is one phone a character."""
        return list(self.record.get("phones", ()))

    @property
    def durations(self) -> np.ndarray:
        """Frames of `frame_seconds` (int64): silence before, one a phone, silence after."""
        return np.asarray(self.record.get("durations", ()), np.int64)

    @property
    def frame_seconds(self) -> float:
        """Length of a frame of `durations`."""
        return float(self.record.get("frame_seconds", FRAME_SECONDS))

    @property
    def codes(self) -> np.ndarray | None:
        """Speech codes (int64) of its sound."""
        codes = self.record.get("codes")
        return None if codes is None else np.asarray(codes, np.int64)

    def member(self, *names: str) -> str | None:
        """The first member whose name or ending is one of `names`; an answer's ("answer.opus") only by its whole name."""
        own = (m for m in self.media if not m.startswith(ANSWER))
        return next((m for m in self.media if m in names), None) or next(
            (m for m in own if m.rpartition(".")[2] in names), None
        )

    def pcm(self, sample_rate: int, *, member: str | None = None) -> np.ndarray:
        """Its sound, mono float32 (samples,). Errors: InputError names sample and member."""
        name = member or self.member(*AUDIO_NAMES)
        if name is None:
            have = ", ".join(self.media) or "no media"
            raise InputError(f"{self.where}: has {have}, expected sound ({', '.join(AUDIO_NAMES)}); use another source")  # fmt: skip
        return load_audio(self.media[name], sample_rate=sample_rate, name=f"{self.where}.{name}")

    def resolved(self, messages: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The messages with the bytes of each medium in the place of its name, as prompt.build_prompt takes them."""

        def part(p: dict[str, Any]) -> dict[str, Any]:
            kind = p["type"]
            named = kind != "text" and isinstance(p[kind], str)
            return {**p, kind: self.media[p[kind]]} if named else p

        return [
            m
            if isinstance(m["content"], str)
            else {**m, "content": [part(p) for p in m["content"]]}
            for m in (self.messages if messages is None else messages)
        ]


def read_record(entry: Entry) -> dict[str, Any]:
    """The JSON of a sample, checked. Errors: InputError names the sample."""
    return check_record(
        entry.read("json")["json"], {m.name for m in entry.members}, where=entry.where
    )


def parse(entry: Entry) -> Sample:
    """Read a sample, media included (not yet decoded). Errors: InputError names the sample."""
    members = entry.read()
    record = check_record(members.pop("json"), set(members), where=entry.where)
    return Sample(where=entry.where, record=record, media=members)


def check_record(content: bytes, members: set[str], *, where: str) -> dict[str, Any]:
    """A record whose known fields are of their types and fit together, else InputError naming sample and field."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{where}.json: is no JSON ({reason}); make the sample again") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}.json: is {type(record).__name__}, expected an object; write one")
    for name, (fits, wanted) in FIELDS.items():
        if record.get(name) is None:
            record.pop(name, None)  # null is absent
        elif not fits(record[name]):
            got = repr(record[name])[:60]
            raise InputError(f"{where}.json: {name} is {got}, expected {wanted}; mend the record")
    _check_durations(record, where)
    if "messages" in record:
        _check_messages(record["messages"], members, where)
    return record


def _check_durations(record: dict[str, Any], where: str) -> None:
    """Phones, durations and seconds tell of one sound."""
    if "durations" not in record:
        return
    durations, phones = record["durations"], record.get("phones", ())
    if len(durations) != len(phones) + 2:
        raise InputError(f"{where}.json: {len(durations)} durations for {len(phones)} phones, expected two more than phones (silence before and after); mend the record")  # fmt: skip
    frame = record.get("frame_seconds", FRAME_SECONDS)
    told, counted = record.get("seconds"), sum(durations) * frame
    # half a frame: the record rounds seconds to milliseconds at best
    if told is not None and abs(told - counted) > frame / 2 + 1e-3:
        raise InputError(f"{where}.json: durations sum to {counted:.3f} s, seconds is {told}; mend the record")  # fmt: skip


def _check_messages(messages: Any, members: set[str], where: str) -> None:
    """What the chat template takes, and every medium is a member of the sample."""
    try:
        segments = render(messages, answer=False)
    except InputError as error:
        raise InputError(f"{where}.json: {error}") from None
    for segment in segments:
        if isinstance(segment, Medium) and segment.source not in members - {"json"}:
            have = ", ".join(sorted(members - {"json"})) or "none"
            raise InputError(f"{where}.json: {segment.where} names the member {str(segment.source)[:60]!r}, the sample has {have}; name one of them")  # fmt: skip


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _are_counts(x: Any) -> bool:
    return isinstance(x, list) and all(type(i) is int and 0 <= i < MAX_CODE for i in x)


def _is_text(x: Any) -> bool:
    return isinstance(x, str)


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "messages": (lambda x: isinstance(x, list), "a list of messages"),
    "text": (_is_text, "a string"),
    "voice": (_is_text, "a string"),
    "language": (_is_text, "a string"),
    "source": (_is_text, "a string"),
    "task": (_is_text, "a string"),
    "seconds": (lambda x: _is_number(x) and x >= 0, "seconds, 0 or more"),
    "speed": (lambda x: _is_number(x) and x > 0, "a factor above 0"),
    "frame_seconds": (lambda x: _is_number(x) and x > 0, "seconds above 0"),
    "phones": (
        lambda x: isinstance(x, str) or (isinstance(x, list) and all(map(_is_text, x))),
        "a string or a list of strings",
    ),
    "durations": (_are_counts, "a list of counts"),
    "codes": (_are_counts, "a list of codes, each 0 or more"),
    "answer_codes": (_are_counts, "a list of codes, each 0 or more"),
    "answer_voice": (_is_text, "a string"),
    "answer_seconds": (lambda x: _is_number(x) and x >= 0, "seconds, 0 or more"),
}
"""Fields that mean something here: what they must be, in code and in words."""
