"""/v1/voices: a clip becomes a voice that every door takes at once, in every process; it is kept, and only its owner deletes it."""

from __future__ import annotations

import asyncio
import io
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from serving import quick_settings
from starlette.testclient import TestClient

from thinktalk import enrolment
from thinktalk.code2wav import enrol
from thinktalk.layers.mel import speech_mel
from thinktalk.omni import Omni
from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub

RATE = 24_000
SAY = {"input": "Good morning.", "seed": 3, "response_format": "pcm"}
OWN = ["Chelsie", "Ethan"]


def wave(seconds: float = 3.5, *, size: float = 0.1, rate: int = RATE) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round(rate * seconds))
    return (size * noise).clip(-1, 1).astype(np.float32)


def wav(pcm: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, pcm, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


CLIP = wav(wave())


@contextmanager
def served(omni: Omni, model: str, place: Path, **settings) -> Iterator[TestClient]:
    app = create_app(quick_settings(model, voices_dir=str(place), **settings), omni=omni)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def voiced(omni: Omni, tiny_checkpoint: str, tmp_path: Path) -> Iterator[TestClient]:
    with served(omni, tiny_checkpoint, tmp_path / "voices") as client:
        yield client


def add(client: TestClient, name: str, data: bytes = CLIP, **more):
    return client.post(
        "/v1/voices", data={"name": name}, files={"file": ("clip.wav", data)}, **more
    )


def names(client: TestClient) -> list[str]:
    answer = client.get("/v1/voices").json()
    assert answer["object"] == "list"
    return [voice["id"] for voice in answer["data"]]


def say(client: TestClient, voice: str):
    return client.post("/v1/audio/speech", json=SAY | {"voice": voice})


def test_a_voice_is_enrolled_spoken_with_and_deleted(voiced, omni, tmp_path) -> None:
    assert names(voiced) == OWN  # the default one first
    made = add(voiced, "Zoë 2")
    assert made.status_code == 200, made.text
    info = made.json()
    assert info == voiced.get("/v1/voices/zoë 2").json()
    assert (info["id"], info["name"], info["object"]) == ("Zoë 2", "Zoë 2", "voice")
    assert info["deletable"] and info["experimental"] and info["created_at"] > 1_700_000_000
    assert names(voiced) == [*OWN, "Zoë 2"]
    # what was kept is what the clip says
    voice = omni.model.voices["Zoë 2"]
    mel = speech_mel(torch.from_numpy(wave())[None], omni.config.code2wav.mel).transpose(1, 2)
    assert torch.allclose(voice.ref_mel, mel, atol=1e-3)
    near = enrol.nearest(omni.model.dit, mel, {name: omni.model.voices[name] for name in OWN})
    assert voice.bos_token == near.bos_token
    # every door takes it at once
    mine = say(voiced, "zoë 2")
    assert mine.status_code == 200 and mine.content == say(voiced, "Zoë 2").content
    assert mine.content not in (say(voiced, "Chelsie").content, say(voiced, "Ethan").content)
    chat = {"model": "tiny", "modalities": ["text", "audio"], "audio": {"voice": "Zoë 2", "format": "wav"},
            "messages": [{"role": "user", "content": "Hello."}]}  # fmt: skip
    assert voiced.post("/v1/chat/completions", json=chat).status_code == 200
    with voiced.websocket_connect(
        "/v1/realtime?model=tiny", headers={"host": "127.0.0.1"}
    ) as socket:
        assert socket.receive_json()["type"] == "session.created"
        session = {"type": "realtime", "audio": {"output": {"voice": "Zoë 2"}}}
        socket.send_json({"type": "session.update", "session": session})
        told = socket.receive_json()
        assert told["type"] == "session.updated", told
        assert told["session"]["audio"]["output"]["voice"] == "Zoë 2"
    gone = voiced.delete("/v1/voices/Zoë 2")
    assert gone.json() == {"id": "Zoë 2", "object": "voice", "deleted": True}
    assert names(voiced) == OWN and say(voiced, "Zoë 2").status_code == 400
    assert voiced.delete("/v1/voices/Zoë 2").status_code == 404
    assert not list((tmp_path / "voices").iterdir())


def test_it_outlives_the_server_and_others_see_it_at_once(omni, tiny_checkpoint, tmp_path) -> None:
    """Two apps share a directory as two workers do; each has a table of its own."""
    place, twin = tmp_path / "voices", Omni(omni.model, omni.tokenizer, directory=omni.directory)
    twin.model = type(omni.model).__new__(type(omni.model))
    twin.model.__dict__ = dict(omni.model.__dict__)
    with served(omni, tiny_checkpoint, place) as one, served(twin, tiny_checkpoint, place) as two:
        assert add(one, "Ada").status_code == 200
        assert say(two, "Ada").content == say(one, "Ada").content != say(one, "Ethan").content
        assert add(two, "ada").status_code == 409
        assert two.delete("/v1/voices/Ada").status_code == 200
        assert names(one) == OWN and say(one, "Ada").status_code == 400
        assert add(two, "Bob").status_code == 200
    assert "Bob" not in omni.model.voices  # the model is as it was
    (place / "0.safetensors").write_bytes(CLIP)  # a broken file keeps nobody out
    with served(omni, tiny_checkpoint, place) as again:
        assert names(again) == [*OWN, "Bob"] and say(again, "Bob").status_code == 200


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a/b", CLIP, "name: 'a/b', expected 1 to 64 letters"),
        ("..", CLIP, "name: '..'"),
        ("  ", CLIP, "name: "),
        ("x" * 65, CLIP, "name: "),
        ("a\nb", CLIP, "name: "),
        ("a\u202eb", CLIP, "name: "),
        ("Mine", b"not a sound", "file: "),
        ("Mine", b"", "is empty, expected sound"),
        ("Mine", wav(wave(2.0)), "2.0 s of sound, expected 3 to 60 s"),
        ("Mine", wav(wave(61.0, rate=8000), 8000), "file: is longer than 60 s"),
        ("Mine", wav(wave(size=1e-5)), "clip: is silent"),
        ("Mine", wav(np.full(RATE * 4, np.nan, np.float32)), "file: "),
    ],
)
def test_what_makes_no_voice_is_refused_and_said(voiced, tmp_path, name, data, says) -> None:
    answer = add(voiced, name, data)
    assert answer.status_code == 400 and says in answer.json()["error"]["message"], answer.text
    assert "\n" not in answer.json()["error"]["message"]
    assert names(voiced) == OWN and not (tmp_path / "voices").exists()


def test_names_that_are_taken_and_too_many_voices(omni, tiny_checkpoint, tmp_path) -> None:
    with served(omni, tiny_checkpoint, tmp_path, max_voices=1, fit_steps=0) as client:
        for name in ("chelsie", "Ethan", "Default"):
            answer = add(client, name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "voice_exists")
        made = add(client, "marin")  # OpenAI's names are free
        assert made.status_code == 200 and made.json()["experimental"]  # its `cond` is borrowed
        assert omni.model.voices["marin"].cond.equal(omni.model.voices[_near(omni)].cond)
        assert say(client, "marin").content != say(client, "default").content
        assert add(client, "Ada").json()["error"]["code"] == "too_many_voices"
        own = client.delete("/v1/voices/ethan")
        assert own.status_code == 403 and "the model's own" in own.json()["error"]["message"]
        assert client.get("/v1/voices/nobody").status_code == 404
        assert client.get("/v1/voices/default").json()["id"] == "Chelsie"
    with served(omni, tiny_checkpoint, tmp_path, max_voices=0) as client:
        assert add(client, "Ada").status_code == 403 and "marin" in names(client)


def _near(omni: Omni) -> str:
    voices = {name: omni.model.voices[name] for name in OWN}
    return enrol.nearest(omni.model.dit, omni.model.voices["marin"].ref_mel, voices).name


def test_a_key_deletes_its_own_voices_only(omni, tiny_checkpoint, tmp_path) -> None:
    keys = ("the-first-key-0123456789", "the-other-key-0123456789")
    first, other = ({"Authorization": f"Bearer {key}"} for key in keys)
    with served(omni, tiny_checkpoint, tmp_path, api_keys=keys, fit_steps=0) as client:
        assert client.get("/v1/voices").status_code == add(client, "Ada").status_code == 401
        assert add(client, "Ada", headers=first).json()["deletable"]
        assert not client.get("/v1/voices/Ada", headers=other).json()["deletable"]
        refused = client.delete("/v1/voices/Ada", headers=other)
        assert refused.status_code == 403 and "another key's" in refused.json()["error"]["message"]
        spoken = client.post("/v1/audio/speech", json=SAY | {"voice": "Ada"}, headers=other)
        assert spoken.status_code == 200  # everybody may speak with it
        assert client.delete("/v1/voices/Ada", headers=first).status_code == 200
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.iterdir() for key in keys)


def test_a_full_disk_is_said_and_nothing_is_lost(voiced, tmp_path) -> None:
    assert add(voiced, "Ada").status_code == 200
    before = {path.name for path in (tmp_path / "voices").iterdir()}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        answer = add(voiced, "Bob")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert answer.status_code == 507 and str(tmp_path) not in answer.text
    assert answer.json()["error"]["type"] == "server_error"
    assert {path.name for path in (tmp_path / "voices").iterdir()} == before
    assert names(voiced) == [*OWN, "Ada"] and say(voiced, "Ada").status_code == 200
    assert add(voiced, "Bob").status_code == 200


def test_who_goes_ends_the_fit_and_leaves_nothing(
    omni, tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    steps, begun = [], threading.Event()
    plain = enrol.fit_cond

    def fit(*args, on_step, **more):
        def seen(step: int) -> None:
            steps.append(step)
            begun.set()
            on_step(step)

        return plain(*args, on_step=seen, **more)

    monkeypatch.setattr(enrolment, "fit_cond", fit)
    settings = quick_settings(tiny_checkpoint, voices_dir=str(tmp_path), fit_steps=100_000)

    async def scene() -> None:
        async with Hub(settings, omni=omni) as hub:
            task = asyncio.ensure_future(hub.cast.enrol("Ada", (wave(), RATE), ""))
            await hub.call(lambda: begun.wait(30))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(steps) < 1000 and not hub.cast.store.read()
            assert omni.voices == ["Chelsie", "Ethan", "default"]

    asyncio.run(scene())


def test_a_model_that_hears_voices_needs_no_fit(
    omni, tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    """As nano, whose own voices have no `cond`."""
    plain = {n: replace(v, cond=torch.zeros_like(v.cond)) for n, v in omni.model.voices.items()}
    monkeypatch.setattr(omni.model, "voices", plain)
    monkeypatch.setattr(enrolment, "fit_cond", lambda *_, **__: pytest.fail("fitted"))
    with served(omni, tiny_checkpoint, tmp_path) as client:
        assert add(client, "Ada").json()["experimental"] is False
        assert not omni.model.voices["Ada"].cond.any()
        assert say(client, "Ada").content != say(client, "Chelsie").content
