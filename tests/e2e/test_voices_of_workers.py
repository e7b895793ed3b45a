"""Voices of a real server with two processes, by OpenAI's own client: enrolled by one, spoken by both, kept when one is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import openai
import psutil
import pytest
from openai import OpenAI
from serving import serving

from thinktalk.media.audio import load_audio, write_wav

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = dict(model="tiny", input="Good morning.", response_format="pcm", extra_body={"seed": 3})


def again(base_url: str, ask, *, seconds: float = 60.0):
    """Ask over a connection of its own, which the system gives to any process; once more where it had just been killed."""
    until = time.monotonic() + seconds
    while True:
        try:
            with OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60) as client:
                return ask(client)
        except openai.APIConnectionError:
            assert time.monotonic() < until
            time.sleep(0.1)


def sound(base_url: str, voice: str) -> bytes:
    return again(base_url, lambda client: client.audio.speech.create(voice=voice, **SAID).read())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_voice_is_everywhere_and_outlives_a_process(tiny_checkpoint: str, tmp_path: Path) -> None:
    write_wav(tmp_path / "me.wav", np.tile(load_audio(EXAMPLES / "question.wav"), 2), 16_000)
    options = ("--workers", "2", "--voices-dir", str(tmp_path / "voices"), "--fit-steps", "3")
    with serving(tiny_checkpoint, *options, log=tmp_path / "log", seconds=300) as server:
        url = server.base_url

        def make(client: OpenAI):
            with (tmp_path / "me.wav").open("rb") as clip:
                return client.audio.voices.create(name="Mine", audio_sample=clip, consent="cons_1")

        made = again(url, make)
        assert (made.id, made.object, made.type) == ("Mine", "audio.voice", "audio_sample")
        sounds = {sound(url, "mine") for _ in range(6)}
        assert len(sounds) == 1 and not sounds & {sound(url, "Ethan"), sound(url, "Chelsie")}
        with pytest.raises(openai.ConflictError, match="there is a voice 'Mine' already"):
            again(url, make)
        workers = [p for p in psutil.Process(server.process.pid).children() if "worker" in " ".join(p.cmdline())]  # fmt: skip
        os.kill(workers[0].pid, signal.SIGKILL)
        assert {sound(url, "mine") for _ in range(4)} == sounds
        gone = again(url, lambda client: client.audio.voices.delete("Mine"))
        assert gone.deleted and gone.id == "Mine"
        for _ in range(6):
            with pytest.raises(openai.BadRequestError, match="voice 'mine' is unknown"):
                sound(url, "mine")
        assert not list((tmp_path / "voices").iterdir())
        assert "Traceback" not in server.text()
