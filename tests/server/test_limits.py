"""Limits: large, slow and heavy requests are refused before they are read; one client's many requests, before they are many."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from fastapi import APIRouter, Request, WebSocket
from starlette.testclient import TestClient

from thinktalk.server import limits
from thinktalk.server.app import create_app
from thinktalk.server.limits import Buckets
from thinktalk.server.settings import Settings

KEY, OTHER = "a-key-of-the-house-0001", "a-key-of-the-house-0002"
router = APIRouter()


@router.post("/v1/size")
async def size(request: Request):
    return len(await request.body())


@router.post("/v1/values")
async def values(body: dict):
    return len(body)


@router.websocket("/v1/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def app_of(**settings):
    app = create_app(Settings(**settings))
    app.include_router(router)
    return app


def client(**settings) -> TestClient:
    return TestClient(app_of(**settings), base_url="http://127.0.0.1", raise_server_exceptions=False)  # fmt: skip


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# ------------------------------------------------------------------------------------------------------------- one request


def test_as_large_as_it_may_be_and_one_byte_more():
    web = client(max_body_bytes=1000)
    assert web.post("/v1/size", content=b"x" * 1000).json() == 1000
    answer = web.post("/v1/size", content=b"x" * 1001)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
    assert answer.headers["Connection"] == "close"


def test_a_body_that_does_not_say_its_size_is_counted():
    web = client(max_body_bytes=1000)
    pieces = lambda n: (b"x" * 100 for _ in range(n))  # noqa: E731
    assert web.post("/v1/size", content=pieces(10)).json() == 1000
    answer = web.post("/v1/size", content=pieces(11))
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "0x10", "٣", ""])
def test_sizes_that_are_none_are_refused(length: str):
    answer, _ = asyncio.run(_ask(app_of(), [(b"content-length", length.encode())], [b"x"]))
    assert answer == 413


async def _ask(app, headers, pieces, pause_s: float = 0.0):
    """A request piece by piece, by ASGI alone; its status, and how many pieces were asked for."""
    sent, asked = [], 0

    async def receive():
        nonlocal asked
        if asked == len(pieces):
            await asyncio.sleep(30)
        if asked:
            await asyncio.sleep(pause_s)
        asked += 1
        return {"type": "http.request", "body": pieces[asked - 1], "more_body": asked < len(pieces)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/size", "raw_path": b"/v1/size", "query_string": b"", "root_path": "",
             "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 5),
             "headers": [(b"host", b"127.0.0.1"), *headers]}  # fmt: skip
    await app(scope, receive, send)
    starts = [m["status"] for m in sent if m["type"] == "http.response.start"]
    assert len(starts) == 1  # one answer, whoever gave it
    return starts[0], asked


def test_a_body_that_drips_is_cut_off():
    began = time.monotonic()
    status, asked = asyncio.run(_ask(app_of(max_body_seconds=0.2), [], [b"x"] * 1000, pause_s=0.05))
    assert status == 408 and asked < 30 and time.monotonic() - began < 10


def test_the_clock_is_for_the_body_not_for_the_answer():
    status, _ = asyncio.run(_ask(app_of(max_body_seconds=5), [], [b"x"] * 3))
    assert status == 200


@pytest.mark.parametrize("piece", ["[],", "{},", "1,", '"",', '{"a":[1,'])
def test_json_of_millions_of_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch, piece: str):
    monkeypatch.setattr(limits, "MAX_MARKS", 1000)
    text = '{"a": [' + piece * 1100
    answer = client().post("/v1/values", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_many_values"
    assert client().post("/v1/values", json={"a": "x" * 5000}).json() == 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud800"}x', "nul", "\x00", "", '{"a": NaN', b"\xff\xfe{}"]
)  # fmt: skip
def test_json_that_is_none_is_the_clients_fault(text):
    answer = client().post("/v1/values", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_frame_of_millions_of_values_does_not_reach_the_parser(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "MAX_MARKS", 1000)
    with client().websocket_connect("ws://127.0.0.1/v1/echo") as socket:
        socket.send_text("[],[]," * 1000)
        assert json.loads(socket.receive_text())["type"] == "error.too_many_values"
        sound = "A" * 100_000
        socket.send_text(sound)
        assert socket.receive_text() == sound


# ------------------------------------------------------------------------------------------------------------- one client


def test_a_bucket_holds_a_minute_and_fills_evenly():
    now = 0.0
    buckets = Buckets(60, clock=lambda: now)
    assert [buckets.take("a") for _ in range(60)] == [0] * 60
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0  # another's
    now = 0.5
    assert buckets.take("a") == pytest.approx(0.5)  # to ask too early costs nothing
    now = 1.01
    assert buckets.take("a") == 0 and buckets.take("a") > 0
    now = 1e6
    assert sum(buckets.take("a") == 0 for _ in range(100)) == 60  # no more than a minute's worth


def test_buckets_do_not_grow_with_the_number_of_clients():
    buckets = Buckets(1, most=100)
    for n in range(1000):
        buckets.take(str(n))
    assert len(buckets._levels) == 100 and buckets.take("999") > 0


def test_a_key_has_its_requests_a_minute():
    web = client(api_keys=(KEY, OTHER), rate=5)
    codes = [web.post("/v1/size", headers=bearer(KEY)).status_code for _ in range(7)]
    assert codes == [200] * 5 + [429] * 2
    answer = web.post("/v1/size", headers=bearer(KEY))
    assert 1 <= int(answer.headers["Retry-After"]) <= 12
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert web.post("/v1/size", headers=bearer(OTHER)).status_code == 200
    assert web.get("/web/app.js").status_code == 200  # the page is for everybody
    refused = web.app.state.hub.metrics.refused.labels("rate_limit_exceeded")
    assert refused._value.get() == 3


def test_who_has_no_key_spends_nobodys_requests():
    web = client(api_keys=(KEY,), rate=3)
    assert {web.post("/v1/size").status_code for _ in range(10)} == {401}
    assert web.post("/v1/size", headers=bearer(KEY)).status_code == 200


def test_a_key_has_its_requests_at_a_time():
    web = client(api_keys=(KEY, OTHER), concurrency=2)
    with web.websocket_connect("/v1/echo", headers=bearer(KEY)):
        with web.websocket_connect("/v1/echo", headers=bearer(KEY)):
            answer = web.post("/v1/size", headers=bearer(KEY))
            assert answer.status_code == 429 and answer.json()["error"]["code"] == "concurrency"
            assert web.post("/v1/size", headers=bearer(OTHER)).status_code == 200
        assert web.post("/v1/size", headers=bearer(KEY)).status_code == 200  # one has gone


def test_on_loopback_without_keys_nobody_is_counted():
    web = client(rate=2, concurrency=1)
    assert {web.post("/v1/size").status_code for _ in range(10)} == {200}


def test_without_keys_elsewhere_addresses_are_counted():
    app = app_of(rate=2, insecure=True)
    web = TestClient(app, base_url="http://127.0.0.1", client=("192.0.2.1", 5))
    assert [web.post("/v1/size").status_code for _ in range(3)] == [200, 200, 429]
    other = TestClient(app, base_url="http://127.0.0.1", client=("192.0.2.2", 5))
    assert other.post("/v1/size").status_code == 200
