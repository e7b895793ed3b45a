"""`thinktalk serve` as a process: it answers, and what the user can mend is one line and exit status 2."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import httpx
import pytest
from serving import Server, serving

from thinktalk.cli.main import main


def test_answers(server: Server):
    assert httpx.get(f"{server.url}/ready").json() == {"status": "ready", "sessions": 0}
    assert "tiny" in [m["id"] for m in httpx.get(f"{server.base_url}/models").json()["data"]]


def test_an_address_that_others_reach_needs_keys(capsys: pytest.CaptureFixture):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_address_that_is_taken_is_told(capsys: pytest.CaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen there" in capsys.readouterr().err


def test_a_model_that_is_none_is_told(capsys: pytest.CaptureFixture, tmp_path: Path):
    assert main(["serve", "--port", "0", "--model", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"thinktalk: {tmp_path}") and "Traceback" not in said


def test_without_the_extra_it_says_what_to_install(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr("thinktalk.cli.serve.NEEDED", ("no_such_package",))
    assert main(["serve"]) == 2
    assert "pip install 'thinktalk[serve]'" in capsys.readouterr().err


def count(url: str) -> float:
    """Requests for /v1/models that all workers together have counted."""
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith('thinktalk_requests_total{route="/v1/models",status="200"}'):
            return float(line.split()[-1])
    return 0.0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(url: str) -> int:
    """A request on a connection of its own."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
        return answer.status


@pytest.mark.slow
def test_several_workers_share_the_load_count_together_and_are_replaced(tiny_checkpoint: str, tmp_path: Path):  # fmt: skip
    with serving(tiny_checkpoint, "--workers", "2", log=tmp_path / "log") as server:
        pids = children(server.process.pid)
        assert len(pids) == 2
        for _ in range(20):
            assert ask(server.url) == 200
        assert count(server.url) == 20
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(10):  # the other one answers meanwhile
            assert ask(server.url) == 200
        until = time.monotonic() + 150  # a worker reads its model on a busy machine
        while (
            pids[0] in (now := children(server.process.pid)) or len(now) < 2
        ):  # dead, it still counts until it is buried
            assert time.monotonic() < until
            time.sleep(0.1)
        assert count(server.url) == 30  # what the dead one had counted stays
    assert server.process.returncode == 0
    assert server.text().count("ended with status -9") == 1


LONG = ["--max-codes", "2000", "--max-text-tokens", "40", "--drain-seconds", "250"]
BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello."}],
    "modalities": ["text", "audio"],
    "audio": {"voice": "default", "format": "pcm16"},
}


def sessions(server: Server) -> int:
    return httpx.get(f"{server.url}/ready").json()["sessions"]


def wait_for(server: Server, count: int) -> float:
    """Seconds until there are so many conversations."""
    began = time.monotonic()
    while sessions(server) != count:
        assert time.monotonic() < began + 60, f"{sessions(server)} conversations, not {count}"
        time.sleep(0.005)
    return time.monotonic() - began


def ended(server: Server, how: str) -> float:
    """Replies that ended so."""
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith(f'thinktalk_replies_total{{ended="{how}"}}'):
            return float(line.split()[-1])
    return 0.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_hangs_up_frees_his_seat_and_sigterm_lets_the_others_end(tiny_checkpoint: str, tmp_path: Path):  # fmt: skip
    with serving(tiny_checkpoint, *LONG, log=tmp_path / "log") as server:
        chat = f"{server.base_url}/chat/completions"
        for _ in range(3):  # in the middle of a stream
            with httpx.stream("POST", chat, json=BODY | {"stream": True}, timeout=60) as answer:
                next(line for line in answer.iter_lines() if '"data"' in line)
            print(f"seat free {1e3 * wait_for(server, 0):.0f} ms after the stream was left")
        with pytest.raises(httpx.ReadTimeout):  # before the first byte of an answer made whole
            httpx.post(chat, json=BODY, timeout=0.5)
        wait_for(server, 0)
        assert ended(server, "left") == 4 and ended(server, "stop") == ended(server, "length") == 0

        with httpx.stream("POST", chat, json=BODY | {"stream": True}, timeout=60) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if '"data"' in line)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert httpx.get(f"{server.url}/ready").status_code == 503
            refused = httpx.post(chat, json=BODY)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
            rest = [line for line in lines if line]
        assert json.loads(first.removeprefix("data: "))["object"] == "chat.completion.chunk"
        assert rest[-1] == "data: [DONE]"
        server.process.wait(60)
        assert server.process.returncode == 0
