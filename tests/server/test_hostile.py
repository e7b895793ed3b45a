"""Hostile clients against the whole server: whatever they send, it stays up, tells nothing, and serves the next one.

Realtime events are drawn from a seed: whole ones, mutated ones, nonsense, frames that are no JSON. The slow test sends 10,000.
"""

from __future__ import annotations

import base64
import gc
import json
import random
import string
import time
from pathlib import Path

import httpx
import psutil
import pytest
from serving import Server, serving
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

EXAMPLES = Path(__file__).parents[2] / "examples"
EVENTS = 10_000


def ask(client, content, **more):
    body = {"model": "tiny", "modalities": ["text"], "max_tokens": 2, "messages": [{"role": "user", "content": content}]}  # fmt: skip
    return client.post("/v1/chat/completions", json=body | more)


# ----------------------------------------------------------------------------------------------------- files and addresses


@pytest.mark.parametrize(
    "url",
    ["/etc/hostname", "file:///etc/hostname", "FILE:/etc/hostname", "../../../etc/hostname", "http://127.0.0.1:22/", "http://169.254.169.254/",
     "https://example.org/a.png", "ftp://example.org/a", "\\\\host\\share", "data:image/png;base64,", "data:", "data:text/plain,/etc/hostname",
     "data:image/png;base64,@/etc/hostname", "", "~", "/dev/zero", "/proc/self/environ"],
)  # fmt: skip
def test_no_file_and_no_address_that_a_client_names_is_opened(client: TestClient, url: str):
    for part in (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
    ):
        answer = ask(client, [part])
        assert answer.status_code == 400, (part, answer.text)
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert Path("/etc/hostname").read_text().strip() not in answer.text


@pytest.mark.parametrize(
    "path", ["/web/../../pyproject.toml", "/web/%2e%2e/%2e%2e/pyproject.toml", "/web/..%2fapp.py", "/web//etc/passwd", "/web/%2fetc/passwd",
             "/web/....//server/app.py", "/web/app.js%00.html", "/web/\\..\\..", "/v1/models/../../etc/passwd"]
)  # fmt: skip
def test_no_path_leads_out_of_the_page(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code in (400, 404) and "root:" not in answer.text


@pytest.mark.parametrize("kind", ["image_url", "video_url"])
def test_damaged_files_cost_their_sender_an_error(client: TestClient, kind: str):
    whole = (EXAMPLES / ("picture.png" if kind == "image_url" else "clip.mp4")).read_bytes()
    draw = random.Random(kind)
    for _ in range(4):
        data = bytearray(whole[: draw.randrange(20, len(whole))])
        for _ in range(20):
            data[draw.randrange(len(data))] = draw.randrange(256)
        url = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        assert ask(client, [{"type": kind, kind: {"url": url}}]).status_code in (200, 400)
    assert ask(client, "Hello.").status_code == 200


# ------------------------------------------------------------------------------------------------------------------- forms


def form(*parts: tuple[str, bytes], boundary: str = "b", end: bytes = b"--b--\r\n") -> bytes:
    """A multipart body of (head, content) parts."""
    return b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts) + end  # fmt: skip


NAME, FILE = (
    'Content-Disposition: form-data; name="name"',
    'Content-Disposition: form-data; name="file"; filename="a.wav"',
)
MULTIPART = "multipart/form-data; boundary=b"
CLIP = (EXAMPLES / "question.wav").read_bytes()
FORMS = {
    "nothing": (MULTIPART, b""),
    "no boundary": ("multipart/form-data", form((NAME, b"a"), (FILE, CLIP))),
    "another boundary": ("multipart/form-data; boundary=c", form((NAME, b"a"), (FILE, CLIP))),
    "endless boundary": (f"multipart/form-data; boundary={'c' * 5000}", form((NAME, b"a"))),
    "cut off": (MULTIPART, form((NAME, b"a"), (FILE, CLIP))[:-9000]),
    "no end": (MULTIPART, form((NAME, b"a"), (FILE, CLIP), end=b"")),
    "no head": (MULTIPART, form(("", b"a"))),
    "JSON": ("application/json", b'{"name": "a", "file": "/etc/hostname"}'),
    "JSON that calls itself a form": (MULTIPART, b'{"name": "a"}'),
    "urlencoded": ("application/x-www-form-urlencoded", b"name=a&file=/etc/hostname"),
    "no file": (MULTIPART, form((NAME, b"a"))),
    "no name": (MULTIPART, form((FILE, CLIP))),
    "a path for a file": (MULTIPART, form((NAME, b"a"), (FILE.partition("; filename")[0], b"/etc/hostname"))),
    "a file for a name": (MULTIPART, form((NAME + '; filename="n"', b"a"), (FILE, CLIP))),
    "a name of a megabyte": (MULTIPART, form((NAME, b"a" * 1_100_000), (FILE, CLIP))),
    "a name with NUL": (MULTIPART, form((NAME, b"a\0b"), (FILE, CLIP))),
    "a thousand fields more": (MULTIPART, form(*[(f'Content-Disposition: form-data; name="f{i}"', b"") for i in range(1100)])),
    "a thousand files": (MULTIPART, form(*[(FILE, b"")] * 1100)),
    "two names, the second bent": (MULTIPART, form((NAME, b"a"), (NAME, b"../b"), (FILE, CLIP))),
    "a picture": (MULTIPART, form((NAME, b"a"), (FILE, (EXAMPLES / "picture.png").read_bytes()))),
    "a playlist": (MULTIPART, form((NAME, b"a"), (FILE, b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n"))),
    "a clip cut off": (MULTIPART, form((NAME, b"a"), (FILE, CLIP[: len(CLIP) // 3]))),
    "a file name that is a path": (MULTIPART, form((NAME, b"a"), (FILE.replace("a.wav", "../../../etc/passwd"), b"no sound"))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_form_but_a_good_one_makes_a_voice(client: TestClient, tiny_checkpoint: str):
    before = client.get("/v1/voices").json()
    for what, (kind, body) in FORMS.items():
        answer = client.post("/v1/voices", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 413, 422), (what, answer.text)
        assert answer.json()["error"]["type"] == "invalid_request_error", what
        assert Path("/etc/hostname").read_text().strip() not in answer.text
    for name in ("..%2f..%2fetc%2fpasswd", "%00", "x" * 5000, "%ff", "%E2%80%AE", "."):
        assert client.get(f"/v1/voices/{name}").status_code in (200, 404), name
        assert client.delete(f"/v1/voices/{name}").status_code in (403, 404, 405), name
    assert client.get("/v1/voices").json() == before
    assert not (Path(tiny_checkpoint) / "voices").exists()
    gc.collect()  # the parser leaves the file of a form that was cut off to it


# ----------------------------------------------------------------------------------------------------------------- the log


def test_nothing_that_is_said_stands_in_the_log(tiny_checkpoint: str, tmp_path: Path):
    """At the most talkative level, through every door, in good requests and bad ones."""
    word = "Heffalump"
    key = "a-key-of-the-house-0001"
    with serving(tiny_checkpoint, "--log-level", "debug", "--api-keys", key, log=tmp_path / "log") as server:  # fmt: skip
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:  # fmt: skip
            assert ask(client, f"Say {word}.").status_code == 200
            assert ask(client, [{"type": "image_url", "image_url": {"url": f"/{word}"}}]).status_code == 400  # fmt: skip
            assert client.post("/v1/chat/completions", content=f'{{"{word}').status_code == 400
            assert client.get(f"/v1/models/{word}").status_code == 404
            assert client.get(f"/health?{word}=1").status_code == 200
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {word}{word}"}).status_code == 401  # fmt: skip
        with connect(f"{server.websocket_base_url}/realtime", subprotocols=["realtime", f"openai-insecure-api-key.{key}"]) as socket:  # fmt: skip
            assert json.loads(socket.recv(30))["type"] == "session.created"
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": word}]}  # fmt: skip
            for event in ({"type": "conversation.item.create", "item": item}, {"type": word}):
                socket.send(json.dumps(event))
                socket.recv(30)
        text = server.text()
        assert "POST /v1/chat/completions 200" in text  # it does log
        for secret in (word, key, base64.b64encode(word.encode()).decode()[:10]):
            assert secret not in text


# ----------------------------------------------------------------------------------------------------------------- realtime


def sound(seconds: float) -> str:
    return base64.b64encode(bytes(int(48_000 * seconds))).decode()


def good_events() -> list[dict]:
    """One of each kind that a client may send."""
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}  # fmt: skip
    vad = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200}
    return [
        {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief.", "output_modalities": ["text"]}},
        {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": vad}}}},
        {"type": "input_audio_buffer.append", "audio": sound(0.02)},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "output_audio_buffer.clear"},
        {"type": "conversation.item.create", "item": message},
        {"type": "conversation.item.create", "item": message | {"id": "one"}, "previous_item_id": "root"},
        {"type": "conversation.item.retrieve", "item_id": "one"},
        {"type": "conversation.item.truncate", "item_id": "one", "content_index": 0, "audio_end_ms": 10},
        {"type": "conversation.item.delete", "item_id": "one"},
        {"type": "response.create", "response": {"output_modalities": ["text"], "max_output_tokens": 2}},
        {"type": "response.cancel"},
    ]  # fmt: skip


NONSENSE = [None, True, -1, 0, 1e308, 2**70, "", "x" * 300, "\x00\u202e\U0001f600", [], {}, [[[]]], {"type": "message"}, "../../etc/passwd",
            "data:image/png;base64,AAAA", "http://127.0.0.1/", "-Infinity", "audio/pcm", "null"]  # fmt: skip


def mutated(value: object, draw: random.Random) -> object:
    """A value in which something, somewhere, is not what it was."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        match draw.randrange(5):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {draw.choice(string.ascii_letters) * draw.randrange(1, 9): draw.choice(NONSENSE)}  # fmt: skip
            case _:
                return value | {key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], mutated(value[at], draw), *value[at:]]
    if isinstance(value, str) and value and draw.random() < 0.5:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice(string.printable) + value[at + 1 :]
    return draw.choice(NONSENSE)


def frame(draw: random.Random) -> str | bytes:
    """One frame of a client that means harm, or is broken."""
    event = draw.choice(good_events())
    match draw.randrange(12):
        case 0:
            return bytes(draw.randrange(256) for _ in range(draw.randrange(40)))
        case 1:
            return "".join(draw.choice(string.printable) for _ in range(draw.randrange(60)))
        case 2:
            text = json.dumps(event)
            return text[: draw.randrange(len(text))]
        case 3:
            return draw.choice(["[" * 5000, '{"type":' * 2000, "9" * 5000, '"\\ud800"', "{}", "[]", "null", '{"type":"error"}'])  # fmt: skip
        case 4 | 5:
            return json.dumps(event)
    for _ in range(draw.randrange(1, 4)):
        event = mutated(event, draw)
    return json.dumps(event)


def storm(server: Server, count: int, seed: int) -> int:
    """Send so many frames, over as many connections as it takes; how many errors were told."""
    draw, errors, sent = random.Random(seed), 0, 0
    while sent < count:
        with connect(f"{server.websocket_base_url}/realtime", max_size=None) as socket:
            try:
                for _ in range(min(count - sent, draw.randrange(50, 400))):
                    socket.send(frame(draw))
                    sent += 1
                    if sent % 20 == 0:  # read along, or it would be told off for not reading
                        errors += _read(socket, 0.0)
                if draw.random() < 0.5:
                    errors += _read(socket, 0.2)
                else:
                    socket.socket.close()  # gone without a word
            except (ConnectionClosed, OSError):
                pass
    return errors


def _read(socket, seconds: float) -> int:
    errors = 0
    while True:
        try:
            event = json.loads(socket.recv(seconds))
        except TimeoutError:
            return errors
        errors += event["type"] == "error"
        assert event.get("error", {}).get("code") != "internal_error", event


def next_user(server: Server) -> str:
    """Whoever comes next has a conversation as if nothing had been."""
    with connect(f"{server.websocket_base_url}/realtime") as socket:
        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}  # fmt: skip
        settings = {"type": "realtime", "output_modalities": ["text"], "seed": 1, "temperature": 0}
        socket.send(json.dumps({"type": "session.update", "session": settings}))
        socket.send(json.dumps({"type": "conversation.item.create", "item": said}))
        socket.send(json.dumps({"type": "response.create"}))
        text = ""
        while True:
            event = json.loads(socket.recv(60))
            assert event["type"] != "error", event
            text += event.get("delta", "") if event["type"] == "response.output_text.delta" else ""
            if event["type"] == "response.done":
                assert event["response"]["status"] in ("completed", "incomplete"), event
                return text


def weather(server: Server, count: int) -> None:
    """A storm, and what must be true after it."""
    before = next_user(server)
    assert storm(server, count, seed=count) > count / 20
    assert next_user(server) == before
    assert server.process.poll() is None
    assert "Traceback" not in server.text() and "failed" not in server.text()
    # who was cut off does not wait for his seat to be free
    until, metrics = time.monotonic() + 30, ""
    while "thinktalk_sessions 0.0" not in metrics:
        assert time.monotonic() < until, metrics
        metrics = httpx.get(f"{server.url}/metrics", timeout=60).text


def test_some_hundred_hostile_events(server: Server):
    weather(server, 300)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_hostile_events(server: Server):
    storm(server, 500, seed=0)
    process = psutil.Process(server.process.pid)
    grown = process.memory_info().rss
    weather(server, EVENTS)
    assert process.memory_info().rss < grown + (200 << 20)
