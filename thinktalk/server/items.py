"""Items: what a Realtime conversation consists of, in order -> Lines, what the model is to have read.

    message, function_call, function_call_output --Items.lines()--> Line(key, role, parts), ...

An item has two faces: what the client is shown (`wire`) and what the model reads (`parts`). They differ where sound is
concerned: of an answer that was cut off, the model keeps the words that were heard.
"""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from thinktalk.engine.alignment import Pace, Spoken
from thinktalk.server.calls import call_text, result_text
from thinktalk.server.problems import Problem

__all__ = ["Item", "Items", "Line", "Media", "Sound", "new_id"]

RATE = 16_000


def new_id(kind: str) -> str:
    """A fresh id.

    >>> new_id("item").startswith("item_")
    True
    """
    return f"{kind}_{secrets.token_hex(10)}"


@dataclass(frozen=True, eq=False)
class Media:
    """A decoded picture, recording or video, as a message's part takes it."""

    kind: Literal["audio", "image", "video"]
    value: Any

    @property
    def part(self) -> dict[str, Any]:
        """As a part of a message."""
        return {"type": self.kind, self.kind: self.value}


class Sound:
    """Sound at 16 kHz that may still grow, kept in 16 bits; and pictures that were seen meanwhile."""

    def __init__(self) -> None:
        self.samples = 0
        self.pictures: list[tuple[int, Any]] = []  # (sample, picture), in order
        self._pieces: list[np.ndarray] = []
        self._lock = threading.Lock()  # one thread hears, another has it read

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples / RATE

    def add(self, pcm: np.ndarray) -> None:
        """It goes on: float32 (S,)."""
        piece = np.round(np.clip(pcm, -1, 1) * 32767).astype(np.int16)
        with self._lock:
            self._pieces.append(piece)
            self.samples += len(pcm)

    def see(self, picture: Any) -> None:
        """A picture that is on the screen from now on."""
        self.pictures.append((self.samples, picture))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """float32 (S,) of a stretch."""
        with self._lock:
            whole = np.concatenate([np.zeros(0, np.int16), *self._pieces])
            self._pieces = [whole]
        return whole[start:stop].astype(np.float32) / 32767


Part = str | Media | Sound


@dataclass(frozen=True)
class Line:
    """What the model reads of one item. Two with the same key say the same; a sound may have grown."""

    key: tuple[str, int]
    role: str
    parts: tuple[Part, ...]


@dataclass(eq=False)
class Item:
    """One item."""

    type: str
    id: str = field(default_factory=lambda: new_id("item"))
    role: str = "user"
    status: str = "completed"
    content: list[dict[str, Any]] = field(default_factory=list)
    """What the client is shown; sound is added when it is asked for."""
    parts: list[Part] = field(default_factory=list)
    """What the model reads."""
    call_id: str = ""
    name: str = ""
    text: str = ""
    """Arguments of a call, or what came back."""
    version: int = 0
    """Grows when what the model is to read has changed."""
    seen_in: Sound | None = None
    """A picture that was seen while this was heard: the model reads it there."""
    spoken: Spoken | None = None
    """The sound of an answer, for finding words in it."""
    reply: str = ""
    """The response that made it."""

    def wire(self, *, audio: bool = False) -> dict[str, Any]:
        """As events show it; with the sound, where asked."""
        shown: dict[str, Any] = {"id": self.id, "object": "realtime.item", "type": self.type, "status": self.status}  # fmt: skip
        if self.type == "message":
            return shown | {"role": self.role, "content": [self._shown(part, audio) for part in self.content]}  # fmt: skip
        if self.type == "function_call":
            return shown | {"call_id": self.call_id, "name": self.name, "arguments": self.text}
        return shown | {"call_id": self.call_id, "output": self.text}

    def _shown(self, part: dict[str, Any], audio: bool) -> dict[str, Any]:
        sounds = [p for p in self.parts if isinstance(p, Sound)]
        if not audio or part["type"] != "input_audio" or not sounds:
            return part
        pcm = sounds[0].read()
        return part | {"audio": b64encode(np.round(pcm * 32767).astype("<i2").tobytes()).decode()}

    def line(self) -> Line | None:
        """What the model reads of it; None when that stands elsewhere, or is nothing."""
        if self.type == "message":
            parts = tuple(p for p in self.parts if p != "")
            return Line((self.id, self.version), self.role, parts) if parts and self.seen_in is None else None  # fmt: skip
        if self.type == "function_call":
            return Line((self.id, self.version), "assistant", (call_text(self.name, self.text),))
        return Line((self.id, self.version), "user", (result_text(self.text),))

    def cut(self, heard_s: float) -> str:
        """Of an answer only so many seconds were heard: the words that stay, found by estimate."""
        text = "".join(p for p in self.parts if isinstance(p, str))
        if self.spoken is not None:
            text = text[: self.spoken.characters(text, heard_s, Pace(), complete=True)]
        return text

    def keep(self, text: str, *, changed: bool) -> None:
        """Only these words of it were said. `changed`: whoever has read it has read more."""
        self.parts = [text]
        for part in self.content:  # what was not heard is not shown any more either
            part["transcript" if part["type"] == "output_audio" else "text"] = text
        self.version += changed


class Items:
    """All items of a conversation, in order."""

    def __init__(self, most: int = 4096):
        self._items: list[Item] = []
        self.most = most

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last_id(self) -> str | None:
        """The last item's."""
        return self._items[-1].id if self._items else None

    def get(self, id: str) -> Item:
        """One of them. Errors: Problem."""
        for item in self._items:
            if item.id == id:
                return item
        raise Problem(404, f"item {id!r} is not in this conversation", param="item_id", code="item_not_found")  # fmt: skip

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put it after another ("root": first; None: last); the id of the one before it. Errors: Problem."""
        if any(other.id == item.id for other in self._items):
            raise Problem(400, f"item {item.id!r} exists already; ids are used once", param="item.id", code="item_exists")  # fmt: skip
        if len(self._items) >= self.most:
            raise Problem(400, f"the conversation has {self.most} items, expected no more; delete some", code="too_many_items")  # fmt: skip
        if after is None:
            place = len(self._items)
        else:
            place = 0 if after == "root" else self._items.index(self.get(after)) + 1
        before = self._items[place - 1].id if place else None
        self._items.insert(place, item)
        return before

    def remove(self, id: str) -> Item:
        """Take one out. Errors: Problem."""
        item = self.get(id)
        self._items.remove(item)
        return item

    def lines(self, extra: Sequence[Line] = ()) -> tuple[Line, ...]:
        """What the model is to have read, and `extra` after it."""
        return tuple([line for item in self._items if (line := item.line()) is not None] + [*extra])
