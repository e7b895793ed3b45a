"""A slow client holds up his own events; one that takes nothing is given up."""

from __future__ import annotations

import asyncio
import json

import pytest

from thinktalk.server.outbox import Outbox, Stalled


def test_events_wait_in_order_and_no_more_than_a_bounded_number_of_bytes():
    async def main() -> list[int]:
        gate, sent, most = asyncio.Semaphore(0), [], 0

        async def send(text: str) -> None:
            await gate.acquire()
            sent.append(json.loads(text)["n"])

        outbox = Outbox(send, most_bytes=200)
        sender = asyncio.create_task(outbox.run())

        async def fill() -> None:
            for n in range(50):
                await outbox.put({"n": n, "filler": "x" * 40})

        filler = asyncio.create_task(fill())
        while not filler.done():
            await asyncio.sleep(0)
            most = max(most, outbox._bytes)
            gate.release()
        for _ in range(60):
            gate.release()
        await outbox.flush(5.0)
        sender.cancel()
        assert most < 200 + 64, "one event more than allowed at most"
        return sent

    assert asyncio.run(main()) == list(range(50))


def test_a_client_that_takes_nothing_is_given_up_and_nobody_waits_for_him():
    async def main() -> None:
        async def send(text: str) -> None:
            await asyncio.Event().wait()

        outbox = Outbox(send, most_bytes=10, patience_s=0.05)
        sender = asyncio.create_task(outbox.run())
        await outbox.put({"n": 1})
        with pytest.raises(Stalled):
            await sender
        async with asyncio.timeout(1.0):  # these would wait for ever otherwise
            await outbox.put({"n": 2})
            await outbox.put({"n": 3})

    asyncio.run(main())
