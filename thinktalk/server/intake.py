"""Intake: media in a client's messages -> arrays, decoded by the guard, within limits that are checked before the work.

[{"role": "user", "content": [{"type": "image", "image": "data:..."}]}] --prepared--> the same with a PIL picture
bytes | data: URL | http(s) where allowed --decoded--> (float32 (S,), 16000) | PIL picture | Video
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from thinktalk.errors import InputError
from thinktalk.media.fetch import is_url, read_source
from thinktalk.media.video import Video
from thinktalk.omni import Omni
from thinktalk.server.decoding import KINDS, VOICE, Guard, Limits
from thinktalk.server.fetching import Fetcher
from thinktalk.server.guard import make_guard
from thinktalk.server.host import Host
from thinktalk.server.metrics import Metrics
from thinktalk.server.settings import Settings

__all__ = ["Intake", "all_decoded"]


class Intake(Host):
    """A host that takes media in. `guard` None: the one that this system allows (make_guard)."""

    def __init__(self, settings: Settings, omni: Omni | None = None, guard: Guard | None = None):
        super().__init__(settings, omni)
        self.metrics = Metrics()
        self._guard, self._fetcher = guard, Fetcher(settings)

    async def _start(self) -> None:
        await super()._start()
        if self._guard is None:
            self._guard = make_guard(Limits.of(self.settings, self.omni.config), self.settings)
        await self._guard.start()

    async def close(self) -> None:
        """End the engine's thread and the guard."""
        await super().close()
        if self._guard is not None:
            await self._guard.close()
        self._fetcher.close()

    @property
    def guard(self) -> Guard:
        """Who decodes."""
        assert self._guard is not None, "start() comes first"
        return self._guard

    async def prepared(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Messages whose media (bytes, data: URLs, http(s) where allowed) are decoded by the guard, ready for a session.

        Arrays, pictures and Videos stay. A path is never opened. Errors: InputError, Problem.
        """
        self._check_size(messages)
        work: dict[tuple[int, int], asyncio.Task] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for i, j, part in _media(messages):
                    where = f"messages[{i}].content[{j}]"
                    job = self.decoded(part["type"], part[part["type"]], name=where)
                    work[i, j] = group.create_task(job)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        ready = [dict(message) for message in messages]
        for (i, j), task in work.items():
            parts = ready[i]["content"] = list(ready[i]["content"])
            parts[j] = parts[j] | {parts[j]["type"]: task.result()}
        return ready

    async def decoded(self, kind: str, source: Any, *, name: str = "") -> Any:
        """One medium: (float32 (S,), 16000), a PIL picture, or a Video; of "voice" sound at the rate that is spoken.

        Errors: InputError, Problem.
        """
        assert kind in (*KINDS, VOICE), kind
        name = name or kind
        if _is_decoded(source):
            return source
        data = await self._bytes(kind, source, name)
        try:
            result = await self.guard.decode(kind, data, name=name)
        except InputError:
            self.metrics.decoded.labels(kind, "refused").inc()
            raise
        self.metrics.decoded.labels(kind, "ok").inc()
        return result

    async def _bytes(self, kind: str, source: Any, name: str) -> bytes:
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        elif isinstance(source, str) and source[:5].lower() == "data:":
            data = await self.call(lambda: read_source(source, what=kind))
        elif is_url(source):
            data = await self._fetched(kind, source, name)
        else:  # a path among them: whatever a client names on this machine stays closed
            raise InputError(f"{name}: expected a data: URL or base64 bytes; send the {kind} itself")  # fmt: skip
        Limits.of(self.settings, self.omni.config).check_bytes(kind, len(data), name)
        return data

    async def _fetched(self, kind: str, url: str, name: str) -> bytes:
        if not self.settings.allow_urls:
            raise InputError(f"{name}: this server does not fetch web addresses; send the {kind} as a data: URL")  # fmt: skip
        return await self._fetcher.fetch(kind, url, name=name)

    def _check_size(self, messages: Sequence[Mapping[str, Any]]) -> None:
        settings = self.settings
        if len(messages) > settings.max_messages:
            raise InputError(f"messages: {len(messages)}, expected at most {settings.max_messages}")
        media = sum(1 for _ in _media(messages))
        if media > settings.max_parts:
            raise InputError(f"messages: hold {media} media, expected at most {settings.max_parts}")
        characters = sum(len(text) for message in messages for text in _texts(message))
        if characters > settings.max_text_chars:
            raise InputError(f"messages: hold {characters} characters, expected at most {settings.max_text_chars}")  # fmt: skip


def all_decoded(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the messages hold no medium that prepared() has not seen."""
    return all(_is_decoded(part[part["type"]]) for *_, part in _media(messages))


def _media(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Each medium with the number of its message and its part."""
    for i, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            for j, part in enumerate(content):
                if part["type"] in KINDS:
                    yield i, j, part


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message["content"]
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if part["type"] == "text")


def _is_decoded(source: Any) -> bool:
    return isinstance(source, tuple | np.ndarray | Image.Image | Video)
