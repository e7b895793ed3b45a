"""Line: who waits for room, and who is next. Of those who wait, a client with fewer conversations goes first; then who came first.

    async with line.place(client) as place:     at most `size` wait, each at most `seconds`
        await place.admitted(attempt)           attempt() is tried, by whoever is first, until it does not raise Busy

One client's crowd so cannot keep another client out. Nobody spins: a place looks again when somebody has left (stir), and now
and then, since the engine's load changes on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from thinktalk.engine.admission import Busy
from thinktalk.server.problems import Overloaded, one_line

__all__ = ["Line", "Place"]

LOOK_S = 0.25  # the engine's load is looked at again after this long


class Line:
    """The waiting line of one hub; used by one event loop."""

    def __init__(self, *, size: int, seconds: float):
        self.size, self.seconds = size, seconds
        self.talking: Counter[str] = Counter()  # conversations of each client
        self.usual_s = 5.0  # a conversation takes about this long, as seen lately
        self._places: list[Place] = []
        self._count = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._places)

    @contextlib.asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[Place]:
        """A place in the line until the block is left."""
        place = Place(self, client, next(self._count))
        try:
            yield place
        finally:
            self._leave(place)

    @contextlib.contextmanager
    def seated(self, client: str):
        """Count a conversation of this client; somebody may come after it."""
        began = time.monotonic()
        self.talking[client] += 1
        try:
            yield
        finally:
            self.talking[client] -= 1
            if not self.talking[client]:
                del self.talking[client]
            self.usual_s += 0.1 * (time.monotonic() - began - self.usual_s)
            self.stir()

    def stir(self) -> None:
        """Something has changed: whoever is first looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def retry_after_s(self) -> float:
        """When asking again is likely to help."""
        talking = max(1, self.talking.total())
        return min(60.0, max(1.0, self.usual_s * (len(self) + 1) / talking))

    def first(self) -> Place | None:
        """Who is next."""
        return min(self._places, key=lambda p: (self.talking[p.client], p.order), default=None)

    def _join(self, place: Place, error: Busy) -> None:
        if len(self._places) >= self.size:
            raise Overloaded(
                f"{one_line(error)}; {len(self._places)} wait already, at most {self.size} may",
                retry_after_s=self.retry_after_s,
            )
        self._places.append(place)

    def _leave(self, place: Place) -> None:
        if place in self._places:
            self._places.remove(place)
            self.stir()


class Place:
    """One who waits, or need not."""

    def __init__(self, line: Line, client: str, order: int):
        self.line, self.client, self.order = line, client, order
        self.came = time.monotonic()

    async def admitted(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Returns when attempt() has succeeded, at once where nobody waits. Errors: Overloaded."""
        line = self.line
        while True:
            changed = line._changed
            if line.first() in (None, self):
                try:
                    await attempt()
                except Busy as error:
                    if self not in line._places:
                        line._join(self, error)
                    busy: Busy | None = error
                else:
                    line._leave(self)
                    return
            else:
                busy = None
                if self not in line._places:
                    line._join(self, Busy("the server: others wait for room"))
            left = self.came + line.seconds - time.monotonic()
            if left <= 0:
                why = one_line(busy) if busy else "the server: others were first"
                raise Overloaded(f"{why}; waited {line.seconds:g} s", retry_after_s=line.retry_after_s)  # fmt: skip
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_S) if busy else left):
                    await changed.wait()
