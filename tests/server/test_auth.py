"""Keys, hosts and origins: who is let in, who is not, and what is told to whom."""

from __future__ import annotations

import hmac
import logging
import os

import pytest
from fastapi import APIRouter, WebSocket
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse

from thinktalk.errors import ConfigError
from thinktalk.server import auth
from thinktalk.server.app import create_app
from thinktalk.server.auth import Keys, address
from thinktalk.server.hub import client_of
from thinktalk.server.settings import Settings

KEY, OTHER = "a-key-of-the-house-0001", "a-key-of-the-house-0002"
router = APIRouter()


@router.get("/v1/who")
async def who(connection: HTTPConnection):
    return (await client_of(connection)).name


@router.websocket("/v1/who")
async def who_live(socket: WebSocket):
    await socket.accept("realtime" if "realtime" in socket.scope["subprotocols"] else None)
    await socket.send_json([(await client_of(socket)).name, socket.scope["subprotocols"]])
    await socket.close()


def client(base_url: str = "http://127.0.0.1", **settings) -> TestClient:
    """An app whose model is not loaded, with one more route."""
    app = create_app(Settings(**settings))
    app.include_router(router)
    return TestClient(app, base_url=base_url, raise_server_exceptions=False)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong-key-of-the-house"), bearer(""), bearer(KEY[:-1]), bearer(KEY + "x"), bearer(KEY.upper()),
     {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}, {"X-Api-Key": KEY}, {"Authorization": b"Bearer \xff\xfe"}],
)  # fmt: skip
def test_without_a_good_key_nobody_comes_in(headers: dict):
    answer = client(api_keys=(KEY,)).get("/v1/who", headers=headers)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["type"] == "authentication_error" and error["code"] == "invalid_api_key"
    assert answer.headers["WWW-Authenticate"] == "Bearer" and KEY not in answer.text


def test_a_key_in_the_address_is_no_key():
    assert client(api_keys=(KEY,)).get(f"/v1/who?api_key={KEY}").status_code == 401


def test_with_a_key_the_client_has_a_name_that_is_not_the_key():
    web = client(api_keys=(KEY, OTHER))
    names = [web.get("/v1/who", headers=bearer(key)).json() for key in (KEY, OTHER, KEY)]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("key-") and KEY[:6] not in name for name in names)


def test_all_keys_are_compared_whichever_is_good(monkeypatch: pytest.MonkeyPatch):
    """Else the time of an answer would tell how many keys there are before the good one, or how much of it was right."""
    real, compared = hmac.compare_digest, []
    keys = Keys(tuple(f"{n:04d}-key-of-the-house" for n in range(20)))

    def count(a: bytes, b: bytes) -> bool:
        assert len(a) == len(b) == 32  # digests: the length of a key does not show either
        compared.append(b)
        return real(a, b)

    monkeypatch.setattr(auth.hmac, "compare_digest", count)
    for key in ("0000-key-of-the-house", "0019-key-of-the-house", "nonsense"):
        compared.clear()
        assert (keys.name_of(key) is None) == (key == "nonsense")
        assert len(set(compared)) == 20


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/web/app.js", "/favicon.ico"])
def test_the_page_and_the_state_need_no_key(path: str):
    assert client(api_keys=(KEY,)).get(path).status_code != 401


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/v1/models", "/webby", "/web", "/health/", "//v1/models", "/nothing"])  # fmt: skip
def test_everything_else_does(path: str):
    assert client(api_keys=(KEY,)).get(path).status_code == 401


def test_a_browsers_websocket_brings_its_key_as_a_subprotocol():
    web = client(api_keys=(KEY,))
    with web.websocket_connect("/v1/who", subprotocols=["realtime", f"openai-insecure-api-key.{KEY}"]) as socket:  # fmt: skip
        name, offered = socket.receive_json()
    assert name.startswith("key-") and offered == ["realtime"]  # the key goes no further
    with web.websocket_connect("/v1/who", headers=bearer(KEY)) as socket:
        assert socket.receive_json()[0] == name
    for wrong in ([], ["realtime"], ["openai-insecure-api-key.nonsense"]):
        with pytest.raises(WebSocketDenialResponse) as refused, web.websocket_connect("/v1/who", subprotocols=wrong):  # fmt: skip
            pass
        assert refused.value.status_code == 401
    assert web.get("/v1/who", headers={"Sec-WebSocket-Protocol": f"openai-insecure-api-key.{KEY}"}).status_code == 401  # fmt: skip


def test_the_file_of_keys_is_read_again_when_it_changes(tmp_path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n  {KEY}  \n")
    file.chmod(0o600)
    web = client(api_key_file=str(file))
    ask = lambda key: web.get("/v1/who", headers=bearer(key)).status_code  # noqa: E731
    assert (ask(KEY), ask(OTHER), ask("# ours")) == (200, 401, 401)
    file.write_text(f"{OTHER}\n")
    os.utime(file, ns=(1, 1))
    assert (ask(KEY), ask(OTHER)) == (401, 200)
    with caplog.at_level(logging.ERROR):
        file.unlink()
        assert (ask(KEY), ask(OTHER)) == (401, 200)  # nobody is locked out, and nobody let in
    assert "stay" in caplog.text and OTHER not in caplog.text


@pytest.mark.parametrize(
    ("keys", "text", "reason"),
    [(("short",), None, "5 characters"), (("with space in it",), None, "without spaces"), (("schlüssel-der-wohnung",), None, "letters"),
     ((), "", "holds no key"), ((), "# nothing\n", "holds no key"), ((), "short\n", "5 characters"), ((), b"\xff\xfe\xff", "no text"),
     ((), None, "cannot be read")],
)  # fmt: skip
def test_keys_that_are_none_end_the_start(tmp_path, keys, text, reason: str):
    file = tmp_path / "keys"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=reason) as told:
        client(api_keys=keys, api_key_file=None if keys else str(file))
    assert "\n" not in str(told.value) and "short" not in str(told.value)


def test_keys_that_others_can_read_or_guess_are_warned_of(tmp_path, caplog: pytest.LogCaptureFixture):  # fmt: skip
    file = tmp_path / "keys"
    file.write_text("guess-me\n")
    file.chmod(0o644)
    Keys(file=str(file))
    assert "chmod 600" in caplog.text and "guessed" in caplog.text and "guess-me" not in caplog.text


def test_without_keys_the_address_is_the_name():
    of = lambda host: address({"client": (host, 5)})  # noqa: E731
    assert of("192.0.2.7") == "192.0.2.7" == of("::ffff:192.0.2.7")
    assert of("2001:db8:1:2:3:4:5:6") == of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert of("::1") == "::1" and address({}) == "unknown"


# ----------------------------------------------------------------------------------------------------- hosts and origins


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST.:80", "[::1]:8000", "192.168.0.3:1"])  # fmt: skip
def test_names_that_nobody_can_bend_are_ours(host: str):
    assert client().get("/v1/who", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a@127.0.0.1", "127.0.0.1/x", "127.0.0.1:x", "0x7f.1"])  # fmt: skip
def test_a_name_that_was_bent_to_us_is_refused(host: str):
    answer = client().get("/v1/who", headers={"host": host})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "host"


def test_names_that_were_given_are_ours():
    web = client(hosts=("talk.example.org",))
    assert web.get("/v1/who", headers={"host": "Talk.example.org:443"}).status_code == 200
    assert web.get("/v1/who", headers={"host": "other.example.org"}).status_code == 403
    anyhow = client(api_keys=(KEY,))  # a bent name brings no key
    assert anyhow.get("/v1/who", headers=bearer(KEY) | {"host": "any.example"}).status_code == 200
    strict = client(api_keys=(KEY,), hosts=("talk.example.org",))
    assert strict.get("/v1/who", headers=bearer(KEY) | {"host": "any.example"}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [("http://127.0.0.1:8000", True), ("http://localhost:8000", False), ("http://127.0.0.1:8001", False), ("http://127.0.0.1", False),
     ("https://evil.example", False), ("null", False), ("", False), ("file://", False), ("http://127.0.0.1:8000.evil.example", False),
     ("chrome-extension://abc", False)],
)  # fmt: skip
def test_pages_of_other_sites_may_not_call(origin: str, welcome: bool):
    web = client("http://127.0.0.1:8000")
    headers = {"Origin": origin}
    assert web.get("/v1/who", headers=headers).status_code == (200 if welcome else 403)
    # what a page may send without asking first: CORS alone would let it through
    sent = web.post("/v1/chat/completions", headers=headers | {"Content-Type": "text/plain"}, content="{}")  # fmt: skip
    assert (sent.status_code == 403) == (not welcome)
    if welcome:
        with web.websocket_connect("ws://127.0.0.1:8000/v1/who", headers=headers) as socket:
            assert socket.receive_json()
    else:
        with pytest.raises(WebSocketDenialResponse) as refused, web.websocket_connect("/v1/who", headers=headers):  # fmt: skip
            pass
        assert refused.value.status_code == 403


def test_origins_that_were_given_may_call():
    web = client(cors_origins=("https://app.example.org",), api_keys=(KEY,))
    origin = {"Origin": "https://app.example.org"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang"}  # fmt: skip
    before = web.options("/v1/chat/completions", headers=origin | asks)
    assert before.status_code == 200
    assert before.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert "x-stainless-lang" in before.headers["Access-Control-Allow-Headers"]
    answer = web.get("/v1/who", headers=origin | bearer(KEY))
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    refused = web.get("/v1/who", headers=origin)  # the page can read why
    assert refused.status_code == 401 and "Access-Control-Allow-Origin" in refused.headers
    other = web.options("/v1/chat/completions", headers={"Origin": "https://evil.example"} | asks)
    assert other.status_code == 403 and "Access-Control-Allow-Origin" not in other.headers
    with web.websocket_connect("/v1/who", headers=origin | bearer(KEY)) as socket:
        assert socket.receive_json()


def test_addresses_that_others_reach_need_keys():
    for host in ("0.0.0.0", "::", "192.168.0.3", "example.org"):
        with pytest.raises(ConfigError, match="no key is set"):
            Settings(host=host).check_address()
        Settings(host=host, insecure=True).check_address()
        Settings(host=host, api_keys=(KEY,)).check_address()
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        Settings(host=host).check_address()
