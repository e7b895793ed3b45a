"""`thinktalk serve --ray` for real: two replicas on a cluster of this machine alone, one killed under load, another taken away.

Needs the extra `ray`, which .ci/slow installs. Minutes, most of them until processes have started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from serving import Server, quick_settings, serving
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore"),
]  # Ray's own warnings

CODES = 250  # 5 s of sound: long enough to be killed in the middle of it
SPOKEN = dict(modalities=["text", "audio"], audio={"voice": "default", "format": "pcm16"}, seed=1, temperature=0)  # fmt: skip
QUESTIONS = ["Good morning.", "What is this?", "Sing to me.", "How far is the moon?"]


def asked(question: str, **more) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], **SPOKEN, **more}


@contextlib.contextmanager
def replicated(model: str, folder: Path, replicas: str, *more: str) -> Iterator[Server]:
    """So many replicas that share this machine's processors."""
    options = ["--ray", "--ray-address", "local", "--replicas", replicas, "--replica-cpus", "0.5"]  # fmt: skip
    options += ["--max-codes", str(CODES), "--drain-seconds", "60", "--queue-seconds", "60"]
    with serving(model, *options, *more, log=folder / "log", seconds=400) as server:
        yield server


@pytest.fixture(scope="module")
def server(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with replicated(tiny_checkpoint, tmp_path_factory.mktemp("ray"), "2") as server:
        yield server


@pytest.fixture(scope="module")
def alone(tiny_checkpoint: str) -> dict[str, dict]:
    """What one process answers to each question."""
    app = create_app(quick_settings(tiny_checkpoint, max_codes=CODES))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answers = {q: client.post("/v1/chat/completions", json=asked(q)).json() for q in QUESTIONS}
    return {q: answer["choices"][0]["message"]["audio"] for q, answer in answers.items()}


def counted(server: Server, name: str, **labels: str) -> Counter[str]:
    """A counter of each replica."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    found: Counter[str] = Counter()
    for sample in samples:
        if sample.name == name and labels.items() <= sample.labels.items():
            found[sample.labels["replica"]] += int(sample.value)
    return found


def replicas(server: Server) -> dict[int, psutil.Process]:
    """Their processes."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    found = {}
    for process in family:
        with contextlib.suppress(psutil.Error):
            if "ServeReplica:thinktalk" in " ".join(process.cmdline()):
                found[process.pid] = process
    return found


def wait_until(condition, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.25)


def read(chunks) -> tuple[str, str]:
    """How a stream ended, and the words of it: whole, or silent where it stopped without saying so."""
    said, finish = "", None
    for chunk in chunks:
        for choice in chunk.choices:
            audio = choice.delta.audio
            said += (audio.transcript or "") if audio else ""
            finish = choice.finish_reason or finish
    return ("whole" if finish else "silent"), said


def call(server: Server) -> ClientConnection:
    """A live conversation."""
    socket = connect(f"{server.websocket_base_url}/realtime?model=tiny", open_timeout=120)
    assert json.loads(socket.recv(timeout=60))["type"] == "session.created"
    return socket


def answering(socket: ClientConnection) -> None:
    """It has begun to speak."""
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Sing to me."}]}  # fmt: skip
    socket.send(json.dumps({"type": "conversation.item.create", "item": message}))
    socket.send(json.dumps({"type": "response.create"}))
    while json.loads(socket.recv(timeout=120))["type"] != "response.output_audio.delta":
        pass


def is_held(socket: ClientConnection) -> bool:
    """Whether somebody is still there."""
    try:
        socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
        return json.loads(socket.recv(timeout=60))["type"] == "input_audio_buffer.cleared"
    except (ConnectionClosed, OSError):
        return False


def until_closed(socket: ClientConnection) -> tuple[list[dict], int | None]:
    """What still came, and the code of the end."""
    events = []
    try:
        while True:
            events.append(json.loads(socket.recv(timeout=120)))
    except ConnectionClosed as closed:
        return events, closed.rcvd.code if closed.rcvd else None


def whole(events: list[dict], code: int | None) -> None:
    """The answer under way came to its end, and why there is no next one was told."""
    (done,) = [event["response"] for event in events if event["type"] == "response.done"]
    assert done["status"] in ("completed", "incomplete")
    assert done["usage"]["output_token_details"]["audio_tokens"] == CODES
    assert events[-1]["error"]["code"] == "draining" and code == 1001


def test_replicas_answer_alike_and_know_what_the_others_said(server: Server, alone: dict):
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as api:
        for question in QUESTIONS * 2:
            heard = api.chat.completions.create(**asked(question)).choices[0].message.audio
            assert (heard.transcript, heard.data) == (alone[question]["transcript"], alone[question]["data"])  # fmt: skip
            past = [{"role": "user", "content": question}, {"role": "assistant", "audio": {"id": heard.id}}, {"role": "user", "content": "And?"}]  # fmt: skip
            api.chat.completions.create(model="tiny", messages=past)
        with pytest.raises(openai.NotFoundError, match=r"audio\.id"):  # planted: nobody's
            api.chat.completions.create(model="tiny", messages=[past[0], {"role": "assistant", "audio": {"id": "audio_x"}}, past[2]])  # fmt: skip
    with pytest.raises(InvalidStatus) as refused:  # before it is accepted, as without Ray
        connect(f"{server.websocket_base_url}/realtime?model=another", open_timeout=60)
    assert refused.value.response.status_code == 404
    served = counted(server, "thinktalk_requests_total", route="/v1/chat/completions")
    assert len(served) == 2 and served.total() == 17  # 17 asked, and both were


def test_a_session_stays_with_its_replica(server: Server):
    from thinktalk.server.affinity import home

    lines = dict(name="thinktalk_requests_total", route="/v1/models")
    names = list(counted(server, "thinktalk_sessions"))
    assert len(names) == 2
    wanted = Counter()
    for number in range(6):
        session = f"session-{number}"
        wanted[home(session, names)] += 5
        for _ in range(5):
            httpx.get(f"{server.base_url}/models", headers={"X-Session-Id": session}, timeout=60)
    assert counted(server, **lines) == wanted
    assert {home(f"session-{n}", names) for n in range(100)} == set(names)  # all have some


def test_a_replica_is_killed_under_load(server: Server, alone: dict):
    ended: list[tuple[str, str, str]] = []  # how, question, words
    stop = threading.Event()

    def listen(question: str) -> None:
        with OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=300) as api:
            while not stop.is_set():
                try:
                    how, said = read(api.chat.completions.create(**asked(question), stream=True))
                except (openai.APIError, httpx.HTTPError) as error:
                    how, said = "told", repr(error)
                ended.append((how, question, said))

    calls = [call(server) for _ in range(4)]
    threads = [threading.Thread(target=listen, args=(question,)) for question in QUESTIONS]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len({question for _, question, _ in ended}) == 4)
        before = replicas(server)
        names = set(counted(server, "thinktalk_sessions"))
        assert len(before) == len(names) == 2
        victim = min(before)
        before[victim].kill()
        killed = len(ended)
        held = [is_held(socket) for socket in calls]
        assert 0 < sum(held) < 4  # those of the other one go on
        told = [until_closed(socket)[1] for socket, here in zip(calls, held, strict=True) if not here]  # fmt: skip
        assert all(code not in (1000, 1001) for code in told)  # not as if all were said
        # the other one serves, and a third takes the place of the dead
        wait_until(lambda: {q for how, q, _ in ended[killed:] if how == "whole"} == set(QUESTIONS))
        wait_until(lambda: set(counted(server, "thinktalk_sessions")) - names)
        wait_until(lambda: len(replicas(server)) == 2 and victim not in replicas(server))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    kinds = Counter(how for how, *_ in ended)
    assert kinds["told"] and not kinds["silent"]
    assert read([])[0] == "silent"  # planted: a reply that only stops is not taken for whole
    for how, question, said in ended:
        assert how != "whole" or said == alone[question]["transcript"]  # nobody got another's
    after = counted(server, "thinktalk_sessions")
    assert len(after) == 2 and len(set(after) & names) == 1
    for socket, here in zip(calls, held, strict=True):
        assert is_held(socket) == here
        socket.close()


def test_what_ray_takes_away_ends_its_conversations_first(server: Server):
    """The last test of this server: somebody deletes the deployment."""
    delete = "import ray; from ray import serve; ray.init(address='auto', logging_level='error'); print(serve.status().applications.keys(), flush=True); input(); serve.delete('thinktalk', _blocking=False)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", delete], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:  # fmt: skip
        assert "thinktalk" in other.stdout.readline()
        socket = call(server)
        answering(socket)
        other.stdin.write("\n")
        other.stdin.close()
        assert other.wait(120) == 0
    began = time.monotonic()
    events, code = until_closed(socket)
    whole(events, code)
    # planted: who is not told keeps it until Ray kills it, after 70 s
    assert time.monotonic() - began < 60
    assert server.process.wait(120) == 1
    assert "taken the deployment away" in server.text()


def test_a_replica_whose_engine_has_stopped_says_so(tiny_checkpoint: str):
    from thinktalk.server.replica import Replica

    async def asked() -> None:
        replica = Replica.__new__(Replica)
        async with Hub(quick_settings(tiny_checkpoint)) as replica.hub:
            await replica.check_health()
            await replica.hub.call(replica.hub.engine.stop)
            with pytest.raises(RuntimeError, match="engine has stopped"):
                await replica.check_health()

    asyncio.run(asked())


def test_conversations_bring_a_replica_and_a_signal_drains_both(tiny_checkpoint: str, tmp_path: Path):  # fmt: skip
    with replicated(tiny_checkpoint, tmp_path, "1-2", "--replica-load", "1") as server:
        assert len(replicas(server)) == 1
        others = [call(server), call(server)]
        wait_until(lambda: len(counted(server, "thinktalk_sessions")) == 2)
        family = psutil.Process(server.process.pid).children(recursive=True)
        socket = call(server)
        answering(socket)
        server.process.send_signal(signal.SIGTERM)
        events, code = until_closed(socket)
        whole(events, code)
        assert [until_closed(other)[1] for other in others] == [1001, 1001]
        assert server.process.wait(120) == 0
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not re.search(r"Traceback", server.text())
