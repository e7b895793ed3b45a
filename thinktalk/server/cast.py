"""Cast: who may speak: the model's own voices, and those enrolled here, by this process or another that shares the directory.

    clip --hub.decoded--> (samples, rate) --enrolment--> Voice --VoiceStore--> a file; every process sees it at its next request

The model's table of voices is replaced, never written into: engine and requests read it at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from thinktalk.enrolment import Enrolment, enrol
from thinktalk.errors import InputError
from thinktalk.omni import Omni
from thinktalk.server.problems import Problem
from thinktalk.server.settings import Settings
from thinktalk.weights.enrolled import Enrolled, VoiceStore
from thinktalk.weights.voices import DEFAULT, find_voice

__all__ = ["NAME", "Cast", "voice_name"]

log = logging.getLogger("thinktalk.server")

T = TypeVar("T")
Call = Callable[[Callable[[], Any]], Awaitable[Any]]

NAME = r"^\w([\w .'\-]{0,62}[\w.])?$"
"""1 to 64 letters and digits of any script, spaces, _ - . and '."""
PLACE = "voices"  # beside the model's files, where no other place is set


class _Left(Exception):  # noqa: N818  (an event, not an error)
    """Who wanted the voice has gone."""


class Cast:
    """One per hub. What blocks is called by `call`, in a thread."""

    def __init__(self, omni: Omni, settings: Settings, call: Call):
        self.omni, self.settings, self._call = omni, settings, call
        self.own = dict(omni.model.voices)
        self.created = int(time.time())
        place = settings.voices_dir or (omni.directory and omni.directory / PLACE)
        self.store = VoiceStore(place, omni.config) if place and omni.can_speak else None
        self._seen: Mapping[str, Enrolled] = {}
        self._one = asyncio.Lock()  # a fit takes all of the machine

    async def start(self) -> None:
        """Read what was enrolled earlier. Errors: ConfigError for a place that cannot be read."""
        if self.store is not None:
            await self._call(self.store.check)
            await self._call(self.store.sweep)
            await self._call(self.refresh)

    def close(self) -> None:
        """The model has its own voices only."""
        self.omni.model.voices = self.own

    # ------------------------------------------------------------------------------------------------------- who there is

    def refresh(self) -> None:
        """See what was enrolled and deleted meanwhile; one look at a directory when nothing was."""
        if self.store is None or (found := self.store.read()) is self._seen:
            return
        hidden = {name for name in found if _has(self.own, name)}
        if hidden:
            log.warning("enrolled voices are passed by, the model has some of these names: %s", ", ".join(sorted(hidden)))  # fmt: skip
        enrolled = {name: one.voice for name, one in found.items() if name not in hidden}
        self._seen, self.omni.model.voices = found, self.own | enrolled

    def find(self, name: str) -> str:
        """A voice's own name. Errors: InputError."""
        self.refresh()
        return find_voice(self.omni.model.voices, name).name

    def enrolled(self, name: str) -> Enrolled | None:
        """What is known of an enrolled voice."""
        voice = self.omni.model.voices.get(name)
        one = self._seen.get(name)
        return one if one is not None and voice is one.voice else None

    # ---------------------------------------------------------------------------------------------------------- enrolment

    def check_room(self, name: str) -> None:
        """Problem when no voice of that name can be enrolled now."""
        self.refresh()
        if self.store is None or not self.settings.max_voices:
            raise Problem(403, "this server enrols no voices", code="enrolment_off")
        if _has(self.omni.model.voices, name) or name.casefold() == DEFAULT:
            raise Problem(409, f"name: there is a voice {name!r} already; choose another name or delete it first", param="name", code="voice_exists")  # fmt: skip
        if len(self._seen) >= self.settings.max_voices:
            raise Problem(409, f"{len(self._seen)} voices are enrolled, at most {self.settings.max_voices} may be; delete one first", code="too_many_voices")  # fmt: skip

    async def enrol(self, name: str, clip: tuple[Any, int], owner: str) -> Enrolled:
        """Make a voice of a decoded clip and keep it. One at a time; who goes ends his. Errors: Problem, InputError."""
        left = threading.Event()

        def on_step(step: int) -> None:
            if left.is_set():
                raise _Left

        def make() -> Enrolment:
            return enrol(
                self.omni.model, name, clip, directory=self.omni.directory, voices=self.own,
                fit=None if self.settings.fit_steps else False, steps=self.settings.fit_steps, on_step=on_step,
            )  # fmt: skip

        async with self._one:
            self.check_room(name)
            work = asyncio.ensure_future(self._call(make))
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                made = await asyncio.shield(work)
            except asyncio.CancelledError:
                left.set()  # it ends with its next step
                await asyncio.wait([work])
                raise
            one = Enrolled(made.voice, experimental=made.experimental, owner=owner)
            await self._kept(lambda: self._add(one))
        return one

    def _add(self, one: Enrolled) -> None:
        assert self.store is not None
        try:
            self.store.add(one)
        except InputError:  # another process was quicker
            raise Problem(409, f"name: there is a voice {one.voice.name!r} already; choose another name", param="name", code="voice_exists") from None  # fmt: skip
        self.refresh()

    async def delete(self, name: str) -> None:
        """Forget an enrolled voice. Errors: Problem."""
        assert self.store is not None
        store = self.store

        def remove() -> None:
            try:
                store.remove(name)
            except InputError:  # another process was quicker
                raise missing(name) from None
            self.refresh()

        await self._kept(remove)

    async def _kept(self, change: Callable[[], None]) -> None:
        try:
            await self._call(change)
        except OSError as error:
            log.error("voices cannot be kept in %s: %s", self.store and self.store.directory, error)
            raise Problem(507, f"the server could not write it down ({error.strerror or 'disk'}); nothing has changed, its operator can make room", type="server_error", code="storage") from None  # fmt: skip


def voice_name(text: str) -> str:
    """A name that a voice may have, in normal form. Errors: Problem."""
    name = unicodedata.normalize("NFC", text).strip()
    if not re.fullmatch(NAME, name) or not name.isprintable():
        raise Problem(400, f"name: {text!r:.80}, expected 1 to 64 letters, digits, spaces, _ - . or '; choose another", param="name")  # fmt: skip
    return name


def missing(name: str) -> Problem:
    """The answer to who asks for a voice that is not there."""
    return Problem(404, f"there is no voice {name!r:.80}", param="voice", code="voice_not_found")


def _has(voices: Mapping[str, Any], name: str) -> bool:
    return name.casefold() in {known.casefold() for known in voices}
