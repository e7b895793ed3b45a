"""Fetching by web address: off by default; when on, nothing inside of a network is reached, however it is named."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading

import pytest

from thinktalk.errors import InputError
from thinktalk.media import fetch
from thinktalk.server.fetching import Fetcher, allowed
from thinktalk.server.hub import Hub
from thinktalk.server.settings import Settings


def get(url: str, kind: str = "image", **settings) -> bytes:
    fetcher = Fetcher(Settings(allow_urls=True, **settings))
    try:
        return asyncio.run(fetcher.fetch(kind, url, name="messages[0]"))
    finally:
        fetcher.close()


@pytest.fixture
def inside():
    """A server of the inside, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            body = b"x" * 2000
            if "endless" not in self.path:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for _ in range(200 if "endless" in self.path else 1):
                try:
                    self.wfile.write(body)
                except OSError:
                    return

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_off_by_default():
    hub = Hub(Settings())
    with pytest.raises(InputError, match="does not fetch"):
        asyncio.run(hub._fetched("image", "https://example.org/a.png", "messages[0]"))


INSIDE = [
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "10.0.0.1", "172.16.0.1",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fe80::1]", "[fc00::1]", "[ff02::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_address_of_the_inside(host: str, scheme: str):
    with pytest.raises(InputError) as told:
        get(f"{scheme}://{host}/secret")
    assert any(w in str(told.value) for w in ("private network", "this machine", "could not be fetched"))  # fmt: skip


@pytest.mark.parametrize("host", [h for h in INSIDE if h[0].isdigit() or h[0] == "["])
def test_what_the_name_resolves_to_is_what_counts(host: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever a resolver makes of these, none may be connected to."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(InputError):
        get(f"http://{host}/secret")


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[str]]) -> None:
    """A resolver whose answers change: each look-up takes the next, and the last one stays."""

    def look(host, port, **_):
        answers = table[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(fetch.socket, "getaddrinfo", look)


def outside(monkeypatch: pytest.MonkeyPatch, port: int) -> list[tuple]:
    """Connections to the documentation network end at the server of the fixture; where each meant to go is noted."""
    real, tried = socket.socket.connect, []

    def connect(self, address):
        tried.append(address)
        return real(self, ("127.0.0.1", port))

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


PUBLIC = "93.184.215.14"


def test_a_name_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch, inside):
    """DNS rebinding: the first answer is public, later ones are not. The one that was checked is connected to."""
    port, asked = inside
    names(monkeypatch, {"evil.example": [PUBLIC, "127.0.0.1"]})
    tried = outside(monkeypatch, port)
    assert len(get("http://evil.example/a.png")) == 2000
    assert [a[0] for a in tried] == [PUBLIC]
    with pytest.raises(InputError, match="private network"):
        get("http://evil.example/a.png")
    assert len(tried) == 1 and len(asked) == 1


@pytest.mark.parametrize("target", ["http://127.0.0.1/", "http://inside.example/", "file:///etc/passwd", "//127.0.0.1/", "ftp://evil.example/", "gopher://127.0.0.1/"])  # fmt: skip
def test_a_redirect_is_looked_at_like_the_first_address(monkeypatch: pytest.MonkeyPatch, target: str):  # fmt: skip
    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Redirect)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        names(monkeypatch, {"evil.example": [PUBLIC], "inside.example": ["10.0.0.1"], "127.0.0.1": ["127.0.0.1"]})  # fmt: skip
        tried = outside(monkeypatch, server.server_port)
        with pytest.raises(InputError, match=r"private network|expected http"):
            get("http://evil.example/")
        assert [a[0] for a in tried] == [PUBLIC]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_hosts_that_were_not_named_are_not_even_looked_up(monkeypatch: pytest.MonkeyPatch, inside):
    names(monkeypatch, {"pictures.example.org": [PUBLIC]})  # any other would be a KeyError
    tried = outside(monkeypatch, inside[0])
    hosts = ("pictures.example.org",)
    assert get("http://pictures.example.org/a.png", url_hosts=hosts)
    for url in ("http://evil.example/", "http://pictures.example.org.evil.example/", "http://pictures.example.org:8080/", "http://evil.example#pictures.example.org"):  # fmt: skip
        with pytest.raises(InputError, match="not among the hosts"):
            get(url, url_hosts=hosts)
    with pytest.raises(InputError, match="password"):
        get("http://pictures.example.org@evil.example/", url_hosts=hosts)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("host", "port", "hosts", "yes"),
    [("a.org", 443, (), True), ("a.org", 80, (), True), ("a.org", 6379, (), False), ("A.org.", 443, ("a.org",), True),
     ("b.a.org", 443, ("a.org",), False), ("b.a.org", 443, ("*.a.org",), True), ("a.org", 443, ("*.a.org",), False),
     ("xa.org", 443, ("*.a.org",), False), ("a.org", 8080, ("a.org:8080",), True), ("a.org", 443, ("a.org:8080",), False),
     ("a.org", 8080, ("b.org:8080", "a.org"), False)],
)  # fmt: skip
def test_the_list_of_hosts(host: str, port: int, hosts: tuple[str, ...], yes: bool):
    assert allowed(host, port, hosts) is yes


@pytest.mark.parametrize("path", ["declared", "endless"])
def test_no_more_than_the_kind_may_have(monkeypatch: pytest.MonkeyPatch, inside, path: str):
    names(monkeypatch, {"pictures.example.org": [PUBLIC]})
    outside(monkeypatch, inside[0])
    with pytest.raises(InputError, match="is larger than"):
        get(f"http://pictures.example.org/{path}", max_image_bytes=1500)
    assert len(get("http://pictures.example.org/declared", "audio", max_image_bytes=1500)) == 2000


def test_public_addresses_of_this_machine_are_the_inside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch, "_is_public", lambda address: True)
    with pytest.raises(InputError, match="this machine itself"):
        get("http://127.0.0.1/")
