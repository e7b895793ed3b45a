"""Who leaves frees his seat at once, whether his answer is sent while it is made or whole; who reads slowly stalls nobody."""

from __future__ import annotations

import asyncio
import json

import anyio.to_thread
import pytest

from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub, hub_of


async def request(app, body: dict, receive, send) -> None:
    data = json.dumps(body).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "root_path": ""}  # fmt: skip
    first = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def coming():
        for message in first:
            return message
        return await receive()

    await app(scope, coming, send)


@pytest.mark.parametrize(("stream", "planted"), [(True, False), (False, False), (True, True)])
def test_a_client_that_goes_takes_his_work_along(hub: Hub, stream: bool, planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    long = {"messages": [{"role": "user", "content": "Hello."}], "modalities": ["audio"], "stream": stream}  # fmt: skip

    if planted:
        monkeypatch.setattr(hub, "respond", lambda session, last, **more: Hub.respond(hub, session, **more))  # fmt: skip

    async def main() -> tuple[list, int]:
        app, sent, gone = create_app(hub.settings, hub=hub), [], asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message) -> None:
            sent.append(message)

        async with hub:
            asking = asyncio.ensure_future(request(app, long, receive, send))
            while not hub.engine.seats or (stream and len(sent) < 2):
                assert not asking.done()
                await asyncio.sleep(0.005)
            seat, post, wishes = hub.engine.seats[0], hub.engine.post, []
            while (
                not stream and seat.replying is None
            ):  # its session is made, its reply is under way
                await asyncio.sleep(0.005)
            monkeypatch.setattr(
                hub.engine, "post", lambda wish: (wishes.append(wish), post(wish))[1]
            )
            gone.set()
            await asking
            assert seat.closed and not hub.engine.seats and not hub.conversations
            return sent, len(wishes)

    sent, wishes = asyncio.run(main())
    # each wish waits for a unit of the engine's work: the seat is free after one, unless its session is kept fit to go on
    assert wishes == (3 if planted else 1)
    if stream:
        assert not any(not message.get("more_body", True) for message in sent), "it was cut off"
    else:
        assert [m.get("status") for m in sent if "status" in m] in ([], [499])


def test_who_reads_slowly_stalls_nobody(hub: Hub) -> None:
    body = {"messages": [{"role": "user", "content": "Hello."}], "modalities": ["audio"], "stream": True}  # fmt: skip

    async def main() -> None:
        app, slow, forever = create_app(hub.settings, hub=hub), asyncio.Event(), asyncio.Event()

        async def receive():
            await forever.wait()

        async def stuck(message) -> None:
            await slow.wait()

        sent: list = []

        async def quick(message) -> None:
            sent.append(message)

        async with hub:
            waits = asyncio.ensure_future(request(app, body, receive, stuck))
            while not hub.engine.seats:
                await asyncio.sleep(0.005)
            await request(app, body, receive, quick)
            assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
            assert not waits.done()
            slow.set()
            await waits

    asyncio.run(main())


@pytest.mark.parametrize("planted", [False, True])
def test_an_answer_crosses_to_a_thread_to_sit_down_and_to_get_up(hub: Hub, planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """On a busy machine each crossing, to and fro, waits twice for a core. Planted: a dependency that is no coroutine."""
    body = {"messages": [{"role": "user", "content": "Hello."}], "modalities": ["audio"], "stream": True}  # fmt: skip
    crossed, run, submit = [], anyio.to_thread.run_sync, hub._calls.submit

    async def theirs(*args, **more):
        crossed.append("FastAPI's")
        return await run(*args, **more)

    def ours(*args):
        crossed.append("ours")
        return submit(*args)

    async def main() -> None:
        app, forever = create_app(hub.settings, hub=hub), asyncio.Event()
        if planted:
            app.dependency_overrides[hub_of] = lambda: hub

        async def receive():
            await forever.wait()

        async def send(message) -> None:
            pass

        async with hub:
            monkeypatch.setattr(anyio.to_thread, "run_sync", theirs)
            monkeypatch.setattr(hub._calls, "submit", ours)
            await request(app, body, receive, send)
            monkeypatch.undo()

    asyncio.run(main())
    assert crossed == ["FastAPI's"] * planted + ["ours"] * 2
