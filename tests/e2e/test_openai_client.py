"""OpenAI's own client, unmodified, against a real server: chat in all its forms, speech, transcriptions, models, errors."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import urllib.request

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from thinktalk.media.audio import load_audio
from thinktalk.server import encode

SPOKEN = dict(modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"})
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}  # fmt: skip


@pytest.fixture(scope="module")
def api(server) -> OpenAI:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def hello(*parts) -> list:
    return [{"role": "user", "content": [{"type": "text", "text": "Hello."}, *parts]}]


def sound(seconds: float = 1.0) -> bytes:
    noise = np.random.default_rng(0).standard_normal(round(16_000 * seconds)).astype(np.float32)
    return encode.encode(0.1 * noise, "wav", 16_000)


def test_models(api) -> None:
    names = [model.id for model in api.models.list()]
    assert "tiny" in names and api.models.retrieve("tiny").owned_by == "thinktalk"


def test_chat_whole_and_streamed(api) -> None:
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (0, 90, 200)).save(file, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    heard = base64.b64encode(sound()).decode()
    messages = hello(
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "input_audio", "input_audio": {"data": heard, "format": "wav"}},
    )
    whole = api.chat.completions.create(model="tiny", messages=messages, seed=1)
    assert whole.choices[0].message.content and whole.usage.prompt_tokens > 30
    stream = api.chat.completions.create(
        model="tiny", messages=messages, seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    with api.chat.completions.stream(model="tiny", messages=messages, seed=1) as helper:
        events = [event for event in helper if event.type == "content.delta"]
    assert "".join(event.delta for event in events) == said


def test_chat_with_sound(api) -> None:
    whole = api.chat.completions.create(model="tiny", messages=hello(), seed=1, **SPOKEN)
    audio = whole.choices[0].message.audio
    assert audio.transcript and len(base64.b64decode(audio.data)) > 4800
    chunks = api.chat.completions.create(model="tiny", messages=hello(), seed=1, stream=True, **SPOKEN)  # fmt: skip
    deltas = [c.choices[0].delta.audio for c in chunks if c.choices and c.choices[0].delta.audio]
    assert b"".join(base64.b64decode(d.data or "") for d in deltas) == base64.b64decode(audio.data)
    assert "".join(d.transcript or "" for d in deltas) == audio.transcript
    assert deltas[-1].expires_at > time.time()
    past = {"role": "assistant", "audio": {"id": deltas[0].id}}
    again = api.chat.completions.create(model="tiny", messages=[*hello(), past, *hello()], seed=1)
    assert again.choices[0].message.content


def test_tools_are_taken(api) -> None:
    # what this random model writes is noise: that it is asked and answered is what is seen here
    more = dict(tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    answer = api.chat.completions.create(model="tiny", messages=hello(), **more)
    assert answer.choices[0].message.content.startswith("<tool")


def test_speech_and_transcription(api) -> None:
    with api.audio.speech.with_streaming_response.create(
        model="tiny", voice="alloy", input="Good morning.", response_format="mp3"
    ) as response:
        data = b"".join(response.iter_bytes())
    assert len(load_audio(data)) > 3200
    written = api.audio.transcriptions.create(model="tiny", file=("a.wav", sound()))
    assert written.text and written.usage.type == "tokens"
    told = list(api.audio.transcriptions.create(model="tiny", file=("a.wav", sound()), stream=True))
    assert told[-1].type == "transcript.text.done" and told[-1].text == written.text


def test_errors_have_their_classes(api) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(model="gpt-9", messages=hello())
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        api.chat.completions.create(model="tiny", messages=hello(), n=3)
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError):
        api.audio.transcriptions.create(model="tiny", file=("a.wav", b"no sound"))


def test_many_at_once_each_get_their_own(server) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=5) as api:

            async def one(n: int) -> tuple[str, np.ndarray]:
                messages = [{"role": "user", "content": f"Question number {n}"}]
                more = SPOKEN if n % 2 else {}
                answer = await api.chat.completions.create(model="tiny", messages=messages, seed=n, **more)  # fmt: skip
                message = answer.choices[0].message
                if n % 2 == 0:
                    return message.content, np.zeros(0)
                data = base64.b64decode(message.audio.data)
                return message.audio.transcript, np.frombuffer(data, "<i2") / 32768

            alone = [await one(n) for n in range(4)]
            together = await asyncio.gather(*map(one, range(4)))
            assert [text for text, _ in together] == [text for text, _ in alone]
            assert (
                len({text for text, _ in alone}) > 2
            )  # what a random model writes may be the same
            for (_, mine), (_, own) in zip(together, alone, strict=True):
                assert len(mine) == len(own)
                # in company sums are rounded otherwise (1e-4 here); another's sound would be as far as itself is loud
                assert np.abs(mine - own).max(initial=0) < 0.01 < np.abs(own).max(initial=1)

    asyncio.run(main())


def sessions(server) -> int:
    with urllib.request.urlopen(f"{server.url}/ready", timeout=10) as answer:
        return json.load(answer)["sessions"]


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_frees_his_seat(server, stream: bool) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as api:
            ask = api.chat.completions.create(model="tiny", messages=hello(), stream=stream, **SPOKEN)  # fmt: skip
            if stream:
                answer = await ask
                await anext(aiter(answer))
                await answer.close()
            else:
                task = asyncio.ensure_future(ask)
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    until = time.monotonic() + 20
    while sessions(server) and time.monotonic() < until:
        time.sleep(0.02)
    assert sessions(server) == 0
