"""The line: who is next, who is refused, how long one waits; without an engine."""

from __future__ import annotations

import asyncio

import pytest

from thinktalk.engine.admission import Busy
from thinktalk.server.line import Line
from thinktalk.server.problems import Overloaded


class Room:
    """Room for so many."""

    def __init__(self, count: int):
        self.free, self.tried = count, 0

    async def take(self) -> None:
        self.tried += 1
        if not self.free:
            raise Busy("full")
        self.free -= 1


async def visit(line: Line, room: Room, name: str, order: list[str], stay: asyncio.Event) -> None:
    async with line.place(name) as place:
        await place.admitted(room.take)
    with line.seated(name):
        order.append(name)
        await stay.wait()
        room.free += 1


def test_order_is_by_need_then_by_coming():
    """One seat, held by a: of those who wait, b came last but has nothing, so b is before a's second and third."""

    async def main() -> list[str]:
        line, room, order, stay = Line(size=9, seconds=9), Room(2), [], asyncio.Event()
        hold = asyncio.Event()
        tasks = [asyncio.create_task(visit(line, room, "a", order, e)) for e in (stay, hold)]
        await asyncio.sleep(0)
        for name in ("a", "a", "b"):
            tasks.append(asyncio.create_task(visit(line, room, name, order, hold)))
            await asyncio.sleep(0.01)
        assert order == ["a", "a"] and len(line) == 3
        stay.set()
        await asyncio.sleep(0.05)
        assert order == ["a", "a", "b"]
        hold.set()
        await asyncio.gather(*tasks)
        assert not line.talking and not len(line)
        return order

    assert asyncio.run(main()) == ["a", "a", "b", "a", "a"]


def test_nobody_spins():
    """While nothing changes only the first looks, four times a second."""

    async def main() -> int:
        line, room = Line(size=9, seconds=0.6), Room(0)

        async def wait() -> None:
            async with line.place("a") as place:
                await place.admitted(room.take)

        results = await asyncio.gather(*[wait() for _ in range(6)], return_exceptions=True)
        assert all(isinstance(result, Overloaded) for result in results)
        return room.tried

    assert (
        asyncio.run(main()) <= 6 + 4 + 6
    )  # each once when it comes, one four times, each once when another left


def test_a_full_line_refuses_at_once_and_a_line_of_none_admits():
    async def main() -> None:
        line, order, stay = Line(size=0, seconds=9), [], asyncio.Event()
        room = Room(1)
        inside = asyncio.create_task(visit(line, room, "a", order, stay))
        await asyncio.sleep(0.01)
        assert order == ["a"]
        with pytest.raises(Overloaded, match="0 wait already, at most 0 may") as told:
            await visit(line, room, "b", order, stay)
        assert told.value.status == 429 and 1 <= told.value.retry_after_s <= 60
        stay.set()
        await inside

    asyncio.run(main())


def test_who_gives_up_leaves_no_place():
    async def main() -> None:
        line, room, order, stay = Line(size=9, seconds=9), Room(0), [], asyncio.Event()
        tasks = [asyncio.create_task(visit(line, room, n, order, stay)) for n in "abc"]
        await asyncio.sleep(0.01)
        assert len(line) == 3
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        assert len(line) == 1
        room.free = 1
        line.stir()
        await asyncio.sleep(0.01)
        assert order == ["c"]
        stay.set()
        await tasks[2]

    asyncio.run(main())
