"""open_source, data: URLs, and the web: what may be reached and what may not."""

from __future__ import annotations

import base64
import http.server
import io
import os
import socket
import threading
import time

import numpy as np
import pytest
from media_files import noise_picture, picture_bytes

from thinktalk.errors import InputError
from thinktalk.media import fetch
from thinktalk.media.fetch import describe, is_url, one_line, open_source, read_source
from thinktalk.media.image import load_image

# ------------------------------------------------------------------------------------------------------------- sources


def test_what_is_opened_is_a_path_or_bytes(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"hello")
    assert open_source(str(path)) == path
    assert open_source(b"hello") == b"hello"
    assert open_source(memoryview(b"hello")) == b"hello"
    assert open_source(io.BytesIO(b"hello")) == b"hello"
    assert read_source(path) == b"hello"


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:audio/wav;base64," + base64.b64encode(b"\x00\xffhi").decode(), b"\x00\xffhi"),
        ("data:;base64," + base64.b64encode(b"four").decode().rstrip("="), b"four"),
        ("data:;base64,aGVs\n bG8%3D", b"hello"),
        ("DATA:text/plain,a%20b", b"a b"),
    ],
)
def test_data_urls(url, content):
    assert open_source(url) == content


@pytest.mark.parametrize(
    "url", ["data:", "data:,", "data:;base64", "data:;base64,*!*", "data:;base64,a"]
)
def test_bad_data_urls(url):
    with pytest.raises(InputError):
        open_source(url)


def test_a_picture_through_a_data_url():
    data = picture_bytes(noise_picture(30, 40), "PNG")
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert load_image(url).size == (40, 30)


def test_unreadable_files(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    empty = tmp_path / "empty.wav"
    empty.touch()
    for source, word in (
        (tmp_path / "gone", "no such file"), (tmp_path, "directory"), (fifo, "regular file"), (empty, "empty"),
        (loop, "cannot be opened"), ("a" * 5000, "cannot be opened"), ("nul\0", "cannot be opened"), (b"", "empty"),
        (io.StringIO("text"), "expected bytes"), (io.BytesIO(), "empty"), (3, "cannot be opened"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word) as caught:
            open_source(source)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.wav"
    path.write_bytes(b"x")
    if os.geteuid() == 0:  # root may read anything: pretend

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(InputError, match="may not be read"):
        open_source(path)


def test_a_file_object_that_never_ends_or_breaks(monkeypatch):
    monkeypatch.setattr(fetch, "MAX_FETCH_BYTES", 1000)

    class Endless(io.RawIOBase):
        def read(self, n=-1):
            return b"x" * n

    class Broken(io.RawIOBase):
        def read(self, n=-1):
            raise RuntimeError("line\nbreak")

    with pytest.raises(InputError, match="larger than"):
        open_source(Endless())
    with pytest.raises(InputError, match=r"line\?break"):
        open_source(Broken())
    with pytest.raises(InputError, match="larger than"):
        open_source("data:;base64," + "A" * 2000)


def test_names_in_messages_are_one_clean_line():
    assert describe("a\nb\x1b[31m.wav") == "a?b?[31m.wav"
    assert describe("data:audio/wav;base64,AAAA" * 100) == "data:audio/wav;base64,..."
    assert describe(b"12345") == "5 bytes"
    assert describe(b"12345", name="upload.wav") == "upload.wav"
    assert describe((np.zeros((5, 2)), 16_000)) == "array (5, 2) at 16000"
    assert describe(noise_picture(3, 4)) == "picture 4x3"
    assert describe(io.BytesIO()) == "BytesIO"
    assert len(one_line("x" * 10_000)) < 210


def test_urls_are_off_unless_allowed():
    with pytest.raises(InputError, match="off here"):
        open_source("https://example.com/a.wav")
    assert is_url("HTTPS://example.com")
    assert not is_url("file:///etc/passwd")
    with pytest.raises(
        InputError, match="no such file"
    ):  # other schemes are file names, nothing else
        open_source("file:///etc/passwd", allow_urls=True)


# ------------------------------------------------------------------------------------------------------------- the web


class Handler(http.server.BaseHTTPRequestHandler):
    body = b"content" * 100

    def do_GET(self):
        if self.path == "/ok":
            self._answer(200, self.body)
        elif self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", self.server.target)
            self.end_headers()
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
        elif self.path == "/zip":
            self._answer(200, b"packed", {"Content-Encoding": "gzip"})
        elif self.path == "/empty":
            self._answer(200, b"")
        else:
            self._answer(404, b"no")

    def _answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.target = "/ok"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def local_is_public(monkeypatch):
    monkeypatch.setattr(fetch, "_is_public", lambda address: True)
    monkeypatch.setattr(fetch, "_is_ours", lambda address, family: False)


def get(url: str) -> bytes:
    opened = open_source(url, allow_urls=True)
    assert isinstance(opened, bytes)
    return opened


def test_a_file_is_fetched(server, local_is_public):
    assert get(server.url + "/ok") == Handler.body


def test_redirects_are_followed_but_not_forever(server, local_is_public):
    server.target = server.url + "/ok"
    assert get(server.url + "/redirect") == Handler.body
    server.target = "/redirect"
    with pytest.raises(InputError, match="redirected more than"):
        get(server.url + "/redirect")


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://x/", "", "//"]
)
def test_redirects_to_other_schemes_are_refused(server, local_is_public, target):
    server.target = target
    with pytest.raises(InputError):
        get(server.url + "/redirect")


def test_a_redirect_to_the_inside_is_refused(server, monkeypatch):
    """The first address is fine, the one that it leads to is not: each connection is checked."""
    monkeypatch.setattr(fetch, "_is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(fetch, "_is_ours", lambda address, family: False)
    server.target = f"http://[::1]:{server.server_port}/ok"
    with pytest.raises(InputError, match="private network"):
        get(server.url + "/redirect")


@pytest.mark.parametrize(
    ("path", "word"),
    [("/gone", "404"), ("/short", "early|bytes"), ("/zip", "compressed"), ("/empty", "empty")],
)
def test_answers_that_cannot_be_used(server, local_is_public, path, word):
    with pytest.raises(InputError, match=word):
        get(server.url + path)


def test_limits_on_size_and_time(server, local_is_public, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_FETCH_BYTES", 1 << 20)
    with pytest.raises(InputError, match="larger than"):
        get(server.url + "/endless")
    monkeypatch.setattr(fetch, "FETCH_SECONDS", 0.3)
    with pytest.raises(InputError):
        get(server.url + "/slow")


def test_nobody_there(local_is_public):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="could not be fetched"):
        get(f"http://127.0.0.1:{port}/a.wav")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://10.1.2.3/", "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://2130706433/", "http://0x7f.1/",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(url):
    with pytest.raises(InputError):
        get(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_public(address):
    assert not fetch._is_public(address)


def test_what_is_public():
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert fetch._is_public(address)


@pytest.mark.parametrize(
    "url", ["http://", "http:///a", "http://user:word@example.com/a", "http://[x", "http://a:b/c"]
)
def test_odd_addresses(url):
    with pytest.raises(InputError):
        get(url)
