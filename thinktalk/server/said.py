"""Said: words of sound that was sent, by the sound's id, for those who were told the id.

keep(client, id, words, until)     find(client, id) -> words     in this process' memory
await fetch(client, ids)           what was said by another replica is kept here, too, and then found (ray_serve.py)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from thinktalk.server.hub import Client

__all__ = ["KEPT_S", "Elsewhere", "Said"]

KEPT_S = 3600
KEPT_CHARACTERS = 4_000_000

Elsewhere = Callable[[str, Sequence[str]], Awaitable[Mapping[str, tuple[str, float]]]]
"""A client's name and ids -> of those that other processes know: the words, and until when they are kept."""


class Said:
    """Of one process. `elsewhere` None: there is no other."""

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
        self._kept: OrderedDict[str, tuple[str, float, str]] = OrderedDict()
        self._characters = 0

    def keep(self, client: Client, id: str, words: str, until: float) -> None:
        """The oldest are forgotten when there are too many."""
        self._forget(id)
        self._kept[id] = client.name, until, words
        self._characters += len(words)
        while self._kept:
            oldest, (_, until, _) = next(iter(self._kept.items()))
            if self._characters <= KEPT_CHARACTERS and until >= time.time():
                return
            self._forget(oldest)

    def find(self, client: Client, id: str) -> str | None:
        """The words, if they were this client's and are not too old."""
        name, until, words = self._kept.get(id, ("", 0.0, ""))
        return words if name == client.name and until >= time.time() else None

    def known(self, name: str, ids: Sequence[str]) -> dict[str, tuple[str, float]]:
        """What a process elsewhere asks for: see Elsewhere."""
        kept = {id: self._kept[id] for id in ids if self.find(Client(name), id) is not None}
        return {id: (words, until) for id, (_, until, words) in kept.items()}

    async def fetch(self, client: Client, ids: Sequence[str]) -> None:
        """Ask elsewhere, once for all of them, for what is not known here."""
        missing = [id for id in ids if self.find(client, id) is None]
        if not missing or self._elsewhere is None:
            return
        for id, (words, until) in (await self._elsewhere(client.name, missing)).items():
            self.keep(client, id, words, until)

    def _forget(self, id: str) -> None:
        if id in self._kept:
            self._characters -= len(self._kept.pop(id)[2])
