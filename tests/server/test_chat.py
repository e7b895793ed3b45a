"""/v1/chat/completions in this process: the answer is the model's own, whole or in pieces, with sound and calls."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from thinktalk.engine.wording import Wording
from thinktalk.media.audio import load_audio
from thinktalk.server import chat, encode
from thinktalk.server.hub import Client
from thinktalk.server.said import Said

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
QUICK = dict(max_text_tokens=8, max_codes=20, flow_points=3, flow_method="euler")
URL = "/v1/chat/completions"


def user(*content) -> list[dict]:
    return [
        {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}
    ]


def ask(client, messages=None, **more):
    messages = user("Hello there.") if messages is None else messages
    return client.post(URL, json={"messages": messages, "seed": 3} | more)


def said(client, messages=None, **more) -> dict:
    response = ask(client, messages, **more)
    assert response.status_code == 200, response.text
    return response.json()


def chunks(client, messages=None, **more) -> list[dict]:
    response = ask(client, messages, stream=True, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def problem(response, status: int) -> dict:
    assert response.status_code == status, response.text
    return response.json()["error"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def tone() -> bytes:
    t = np.arange(16_000) / 16_000
    return encode.encode((0.2 * np.sin(2 * np.pi * 300 * t)).astype(np.float32), "wav", 16_000)


@pytest.fixture
def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


# -------------------------------------------------------------------------------------------------------- text and sound


def test_text_is_the_models_own(client, omni) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user("Hello there.")]
    reply = omni.chat(messages, speech=False, seed=3, **QUICK)
    answer = said(client, messages)
    assert answer["choices"][0]["message"]["content"] == reply.text
    assert answer["choices"][0]["finish_reason"] == reply.finish
    assert answer["usage"]["prompt_tokens"] == reply.prompt_tokens
    assert answer["usage"]["completion_tokens"] == len(reply.token_ids)
    pieces = chunks(client, messages, stream_options={"include_usage": True})
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in pieces[:-1]) == reply.text
    assert pieces[-2]["choices"][0]["finish_reason"] == reply.finish
    assert pieces[-1]["choices"] == [] and pieces[-1]["usage"] == answer["usage"]
    assert len({c["id"] for c in pieces}) == 1


def test_sound_is_the_models_own(client, omni) -> None:
    events = list(omni.stream(user("Hello there."), seed=3, **QUICK))
    reply = events[-1].reply
    spoken = dict(modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"})
    message = said(client, **spoken)["choices"][0]["message"]
    assert message["content"] is None and message["audio"]["transcript"] == reply.text
    assert base64.b64decode(message["audio"]["data"]) == encode.pcm16(reply.audio)
    deltas = [c["choices"][0]["delta"].get("audio", {}) for c in chunks(client, **spoken)]
    assert b"".join(base64.b64decode(d.get("data", "")) for d in deltas) == encode.pcm16(
        reply.audio
    )
    assert "".join(d.get("transcript", "") for d in deltas) == reply.text
    assert len({d["id"] for d in deltas if d}) == 1
    assert [d["expires_at"] > time.time() for d in deltas if "expires_at" in d] == [True]


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac"])
def test_every_format_is_sound(client, format: str) -> None:
    spoken = dict(modalities=["text", "audio"], audio={"voice": "default", "format": format})
    data = base64.b64decode(said(client, **spoken)["choices"][0]["message"]["audio"]["data"])
    assert 0.2 < len(load_audio(data)) / 16_000 < 1.0


def test_past_sound_stands_for_its_words(client, omni) -> None:
    spoken = dict(modalities=["text", "audio"], audio={"voice": "default", "format": "pcm16"})
    first = said(client, **spoken)["choices"][0]["message"]["audio"]
    past = {"role": "assistant", "audio": {"id": first["id"]}}
    written = {"role": "assistant", "content": first["transcript"]}
    talk = lambda turn: [*user("Hello there."), turn, *user("And then?")]  # noqa: E731
    assert said(client, talk(past))["choices"] == said(client, talk(written))["choices"]
    error = problem(ask(client, talk({"role": "assistant", "audio": {"id": "audio_no"}})), 404)
    assert error["param"] == "messages[1].audio.id"


def test_words_are_kept_for_those_who_were_told_them() -> None:
    kept, me = Said(), Client("me")
    kept.keep(me, "audio_1", "hello", time.time() + 60)
    kept.keep(me, "audio_2", "gone", time.time() - 1)
    assert kept.find(me, "audio_1") == "hello"
    assert kept.find(Client("you"), "audio_1") is None and kept.find(me, "audio_2") is None
    for n in range(5):
        kept.keep(me, f"long_{n}", "x" * 1_000_000, time.time() + 60)
    assert kept.find(me, "audio_1") is None and kept.find(me, "long_4")


def test_sampling_and_lengths(client, omni) -> None:
    one = lambda **more: said(client, **more)["choices"][0]  # noqa: E731
    assert one(max_tokens=2)["finish_reason"] == "length"
    assert said(client, max_completion_tokens=2)["usage"]["completion_tokens"] == 2
    greedy = one(temperature=0)
    assert greedy == one() == one(top_p=0)
    assert one(temperature=1.5) == one(temperature=1.5) != one(temperature=1.5, seed=4)
    text = greedy["message"]["content"]
    stopped = one(stop=[text[3:5], "never said"])
    assert stopped["message"]["content"] == text[: text.index(text[3:5])]
    assert stopped["finish_reason"] == "stop"


# ----------------------------------------------------------------------------------------------------------------- media


def test_pictures_sound_and_video_are_seen_and_heard(client, omni, tone, picture) -> None:
    with open("examples/clip.mp4", "rb") as file:
        clip = file.read()
    theirs = user(
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(picture)}", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": b64(tone), "format": "wav"}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{b64(clip)}"}},
    )  # fmt: skip
    ours = user(
        {"type": "text", "text": "What is this?"},
        {"type": "image", "image": picture},
        {"type": "audio", "audio": tone},
        {"type": "video", "video": clip},
    )
    reply = omni.chat(ours, speech=False, seed=3, **QUICK)
    answer = said(client, theirs)
    assert answer["choices"][0]["message"]["content"] == reply.text
    assert answer["usage"]["prompt_tokens"] == reply.prompt_tokens
    deaf = said(client, theirs, use_audio_in_video=False)
    assert deaf["usage"]["prompt_tokens"] < reply.prompt_tokens


def test_files_are_what_they_say(client, tone, picture) -> None:
    def tokens(part: dict) -> int:
        return said(client, user(part))["usage"]["prompt_tokens"]

    file = lambda **f: {"type": "file", "file": f}  # noqa: E731
    sound = tokens({"type": "input_audio", "input_audio": {"data": b64(tone)}})
    assert tokens(file(file_data=b64(tone), filename="a.wav")) == sound
    assert tokens(file(file_data=f"data:audio/wav;base64,{b64(tone)}")) == sound
    seen = tokens({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(picture)}"}})  # fmt: skip
    assert tokens(file(file_data=b64(picture), filename="x.PNG")) == seen
    text = tokens({"type": "text", "text": "some words"})
    assert tokens(file(file_data=b64(b"some words"), filename="a.txt")) == text


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "input_audio", "input_audio": {"data": "?"}}, "messages[0].content[0]: its data is not base64"),
        ({"type": "input_audio", "input_audio": {"data": b64(b"no sound")}}, "messages[0].content[0]"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "expected a data: URL"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "expected a data: URL"),
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}}, "does not fetch web addresses"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "this server keeps none"),
        ({"type": "file", "file": {"file_data": b64(b"%PDF"), "filename": "a.pdf"}}, "application/pdf"),
        ({"type": "smell", "smell": "rose"}, "messages[0].content"),
        ({"type": "refusal", "refusal": "no"}, "refusal in a user message"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(client, part: dict, says: str) -> None:
    error = problem(ask(client, user(part)), 400)
    assert says in error["message"] and "\n" not in error["message"]


# ----------------------------------------------------------------------------------------------------------------- calls


def made_to_say(monkeypatch, omni, text: str) -> None:
    """The model's reply is given; everything else is as ever."""
    tokens = tuple(omni.tokenizer.encode(text))

    def wording(self) -> Wording:
        return Wording(given=tokens, ends=True, unspoken=("<tool_call>",) if self.names else ())

    monkeypatch.setattr(chat.Answer, "_wording", wording)
    options = chat.Hub.options
    monkeypatch.setattr(
        chat.Hub, "options", lambda self, **kw: with_room(options(self, **kw), len(tokens) + 1)
    )


def with_room(options, tokens: int):
    return replace(options, generation=replace(options.generation, max_text_tokens=tokens))


TWO_CALLS = 'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"place": "Köln"}}\n</tool_call>\n<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'


def test_calls_are_taken_out(client, omni, monkeypatch) -> None:
    made_to_say(monkeypatch, omni, TWO_CALLS)
    choice = said(client, tools=[TOOL])["choices"][0]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls" and message["content"] == "Let me look."
    arguments = [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]]
    assert arguments == [{"place": "Köln"}, {}]
    deltas = [c["choices"][0]["delta"] for c in chunks(client, tools=[TOOL])]
    assert "".join(d.get("content", "") for d in deltas).strip() == "Let me look."
    streamed = [call for d in deltas for call in d.get("tool_calls", [])]
    assert [call["index"] for call in streamed] == [0, 1]
    assert [json.loads(call["function"]["arguments"]) for call in streamed] == arguments
    # without tools, or with tool_choice none, it is only text
    assert said(client)["choices"][0]["message"]["content"] == TWO_CALLS
    silent = said(client, tools=[TOOL], tool_choice="none")["choices"][0]["message"]
    assert silent["content"] == TWO_CALLS and "tool_calls" not in silent


def test_calls_are_not_spoken(client, omni, monkeypatch) -> None:
    spoken = dict(modalities=["text", "audio"], audio={"voice": "default", "format": "pcm16"})
    made_to_say(monkeypatch, omni, TWO_CALLS)
    message = said(client, tools=[TOOL], **spoken)["choices"][0]["message"]
    assert message["audio"]["transcript"] == "Let me look." and len(message["tool_calls"]) == 2
    made_to_say(monkeypatch, omni, TWO_CALLS.partition("\n")[2])
    answer = said(client, tools=[TOOL], **spoken)
    assert "audio" not in answer["choices"][0]["message"]
    assert answer["usage"]["completion_tokens_details"]["audio_tokens"] <= 20


def test_a_call_of_no_known_function_stays_text(client, omni, monkeypatch) -> None:
    made_to_say(monkeypatch, omni, '<tool_call>{"name": "rm", "arguments": {}}</tool_call>')
    choice = said(client, tools=[TOOL])["choices"][0]
    assert "rm" in choice["message"]["content"] and choice["finish_reason"] == "stop"


def test_a_required_call_begins_as_one(client, omni) -> None:
    def begins(choice) -> str:
        message = said(client, tools=[TOOL], tool_choice=choice, max_tokens=8)["choices"][0][
            "message"
        ]
        return message["content"]

    assert begins("required").startswith("<tool")
    named = {"type": "function", "function": {"name": "weather"}}
    assert begins(named).startswith("<tool")
    other = {"type": "function", "function": {"name": "rm"}}
    assert problem(ask(client, tools=[TOOL], tool_choice=other), 400)["param"] == "tool_choice"
    assert problem(ask(client, tool_choice="required"), 400)["param"] == "tool_choice"


def test_results_come_back(client, omni) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Köln"}'}}  # fmt: skip
    talk = [
        *user("How is it in Köln?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    ours = [
        *user("How is it in Köln?"),
        {"role": "assistant", "content": '<tool_call>\n{"name": "weather", "arguments": {"place": "Köln"}}\n</tool_call>'},
        {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"},
    ]  # fmt: skip
    reply = omni.chat(ours, speech=False, seed=3, **QUICK)
    answer = said(client, talk)
    assert answer["choices"][0]["message"]["content"] == reply.text
    assert answer["usage"]["prompt_tokens"] == reply.prompt_tokens
    talk[-1]["tool_call_id"] = "c2"
    assert problem(ask(client, talk), 400)["param"] == "messages[2]"


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"modalities": ["smell"]}, "modalities[0]"),
        ({"modalities": ["audio"], "audio": {"voice": "nobody", "format": "wav"}}, "voice"),
        ({"modalities": ["audio"], "audio": {"voice": "default", "format": "wma"}}, "audio"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"tools": [TOOL] * 200}, "tools"),
    ],
)
def test_what_is_not_done_is_refused_by_name(client, more: dict, param: str) -> None:
    for stream in (False, True):
        error = problem(ask(client, **(more | {"stream": stream})), 400)
        assert (error["param"] or "").startswith(param), error


def test_defaults_spelt_out_change_nothing(client) -> None:
    plain = dict(n=1, response_format={"type": "text"}, logprobs=False, logit_bias={}, presence_penalty=0, frequency_penalty=0.0, stop=None, metadata={"a": "b"}, user="me", store=False)  # fmt: skip
    assert said(client, **plain)["choices"] == said(client)["choices"]


def test_an_unknown_model_is_not_there(client) -> None:
    assert problem(ask(client, model="gpt-9"), 404)["code"] == "model_not_found"


def test_what_does_not_fit_is_said(client) -> None:
    error = problem(ask(client, user("word " * 40_000)), 400)
    assert "tokens" in error["message"]
