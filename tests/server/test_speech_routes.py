"""/v1/audio/speech and /v1/audio/transcriptions: the sound is omni.say's, the words are omni.transcribe's."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from thinktalk.media.audio import load_audio
from thinktalk.server import encode

QUICK = dict(max_codes=20, flow_points=3, flow_method="euler")
TEXT = "Good morning, dear listeners of the evening."


def say(client, **more):
    return client.post("/v1/audio/speech", json={"input": TEXT, "seed": 3} | more)


def write(client, data: bytes, **more):
    return client.post("/v1/audio/transcriptions", files={"file": ("a.wav", data)}, data=more)


def events(response) -> list[dict]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(e.removeprefix("data: ")) for e in response.text.split("\n\n") if e]


@pytest.fixture
def recording() -> bytes:
    noise = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    return encode.encode(0.1 * noise, "wav", 16_000)


def test_it_says_the_text_word_for_word(client, omni) -> None:
    reply = omni.say(TEXT, seed=3, **QUICK)
    response = say(client, response_format="pcm")
    assert response.status_code == 200 and response.headers["content-type"] == "audio/pcm"
    heard = np.frombuffer(response.content, "<i2") / 32767
    assert len(heard) == len(reply.audio)
    # windows are not the whole: the distance is that of streamed speech (docs/streaming.md)
    assert np.abs(heard - reply.audio).max() < 0.05
    assert say(client, response_format="pcm").content == response.content
    assert say(client, response_format="pcm", seed=4).content != response.content
    assert say(client, response_format="pcm", input="Something else.").content != response.content


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav"])
def test_every_format_is_sound(client, format: str) -> None:
    response = say(client, response_format=format)
    assert response.headers["content-type"] == encode.MEDIA_TYPES[format]
    assert 0.2 < len(load_audio(response.content)) / 16_000 < 1.0


def test_sound_as_events(client) -> None:
    told = events(say(client, response_format="pcm", stream_format="sse"))
    assert [e["type"] for e in told[-2:]] == ["speech.audio.delta", "speech.audio.done"]
    sound = b"".join(base64.b64decode(e["audio"]) for e in told[:-1])
    assert sound == say(client, response_format="pcm").content
    assert told[-1]["usage"]["output_tokens"] == 20


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"speed": 1.5}, "speed"),
        ({"instructions": "whisper"}, "instructions"),
        ({"input": " \n"}, "input"),
        ({"input": "x" * 5000}, "input"),
        ({"voice": "nobody"}, "voice"),
        ({"response_format": "wma"}, "response_format"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(client, more: dict, param: str) -> None:
    response = say(client, **more)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_it_writes_what_the_model_hears(client, omni, recording) -> None:
    text = omni.transcribe(recording, max_text_tokens=8)
    assert text
    answer = write(client, recording).json()
    assert answer["text"] == text and answer["usage"]["output_tokens"] == 8
    assert write(client, recording, response_format="text").text == text + "\n"
    whole = write(client, recording, response_format="verbose_json", language="en").json()
    assert whole["text"] == text and whole["duration"] == 1.25 and whole["language"] == "en"
    told = events(write(client, recording, stream="true"))
    assert "".join(e["delta"] for e in told[:-1]).strip() == text == told[-1]["text"]
    assert told[-1]["type"] == "transcript.text.done"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": "srt"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"temperature": "9"}, "temperature"),
    ],
)
def test_what_it_cannot_write_is_refused_by_name(client, recording, more: dict, param: str) -> None:
    response = write(client, recording, **more)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_what_is_no_sound_is_said(client) -> None:
    for stream in ("true", "false"):
        response = write(client, b"not a sound", stream=stream)
        assert response.status_code == 400 and "file" in response.json()["error"]["message"]
    assert client.post("/v1/audio/transcriptions", data={"model": "tiny"}).status_code == 400
