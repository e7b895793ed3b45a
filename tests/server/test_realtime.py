"""/v1/realtime: each answer is what Omni.chat gives to the same conversation, whatever way it came about."""

from __future__ import annotations

import base64
import contextlib
import io
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from realtime_rig import (
    HOST,
    Caller,
    calling,
    heard,
    padded,
    pcm16,
    question,
    text_item,
    tone,
    words_of,
)
from serving import quick_settings
from starlette.testclient import TestClient, WebSocketDenialResponse

from thinktalk.engine.wording import Wording
from thinktalk.prompt import SPEECH_SYSTEM
from thinktalk.server import planning
from thinktalk.server.app import create_app
from thinktalk.server.calls import with_tools
from thinktalk.server.sitting import Sitting

QUICK = {"seed": 0, "max_text_tokens": 8, "max_codes": 20, "flow_points": 3, "flow_method": "euler"}
TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}  # fmt: skip


@pytest.fixture
def caller(client: TestClient) -> Iterator[Caller]:
    with calling(client) as caller:
        caller.session()
        yield caller


@contextlib.contextmanager
def app(omni, checkpoint: str, **settings) -> Iterator[TestClient]:
    made = create_app(quick_settings(checkpoint, **settings), omni=omni)
    with TestClient(made, base_url="http://127.0.0.1") as client:
        yield client


def chat(omni, *messages: dict, system: str | None = None, **options) -> str:
    """What the same conversation gets offline."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return omni.chat([*first, *messages], **QUICK | options).text


def user(*parts) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    return {"role": "user", "content": content}


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def sound(pcm: np.ndarray) -> dict:
    return {"type": "audio", "audio": (heard(pcm), 16_000)}


def picture(color: tuple[int, int, int]) -> tuple[str, Image.Image]:
    image = Image.new("RGB", (56, 56), color)
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", image


# ---------------------------------------------------------------------------------------------------------------- answers


def test_written_question_spoken_answer(omni, caller: Caller):
    caller.say("Hello.")
    response = caller.answer()
    words = words_of(response)
    assert words == chat(omni, user("Hello."))
    assert response["usage"]["output_token_details"]["audio_tokens"] == 20
    assert response["latency"]["first_sound_ms"] > 0
    written = "".join(e["delta"] for e in caller.events if e["type"].endswith("transcript.delta"))
    assert written == words
    assert len(caller.sound()) == 20 * 24_000 // 50, "20 codes are 0.4 s"
    order = [
        "response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added",
        "response.output_audio_transcript.delta", "response.output_audio.delta", "response.output_audio.done",
        "response.output_audio_transcript.done", "response.content_part.done", "conversation.item.done",
        "response.output_item.done", "response.done",
    ]  # fmt: skip
    kinds = caller.kinds()[caller.kinds().index("response.created") :]
    assert [kind for kind in dict.fromkeys(kinds) if kind in order] == order


def test_turns_go_on_where_they_stand(omni, caller: Caller):
    """Against a Session that is told the same (a random model's words do not survive being written down)."""
    pcm = tone(1.0)
    with omni.session(**QUICK) as session:
        replies = []
        for tell in (lambda: session.text("One."), lambda: session.hear(heard(pcm)), lambda: session.text("Three.")):  # fmt: skip
            tell()
            replies.append(list(session.respond_sync())[-1].reply.text)
    caller.say("One.")
    first = words_of(caller.answer())
    caller.hear(pcm16(pcm))
    caller.send("input_audio_buffer.commit")
    second = words_of(caller.answer())
    caller.say("Three.")
    assert [first, second, words_of(caller.answer())] == replies


def test_an_item_that_was_deleted_never_was(omni, caller: Caller):
    caller.send("conversation.item.create", item=text_item("Forget me.", id="a"))
    caller.say("Stay.")
    answer = caller.answer()["output"][0]["id"]
    for item in ("a", answer):
        caller.send("conversation.item.delete", item_id=item)
        assert caller.until("conversation.item.deleted")["item_id"] == item
    assert words_of(caller.answer()) == chat(omni, user("Stay."))


def test_an_item_may_come_before_others_and_history_may_be_given(omni, caller: Caller):
    caller.send("conversation.item.create", item=text_item("Good day.", role="assistant", id="b"))
    caller.send("conversation.item.create", item=text_item("Hi.", id="c"), previous_item_id="root")
    caller.send("conversation.item.create", item=text_item("Who are you?"))
    words = words_of(caller.answer())
    assert words == chat(omni, user("Hi."), said("Good day."), user("Who are you?"))
    caller.send("conversation.item.retrieve", item_id="b")
    assert caller.until("conversation.item.retrieved")["item"]["content"] == [{"type": "output_text", "text": "Good day."}]  # fmt: skip


def test_instructions_of_the_session_and_of_one_response(omni, caller: Caller):
    caller.session(instructions="Be brief.")
    caller.say("Hi.")
    first = words_of(caller.answer(instructions="Be long."))
    assert first == chat(omni, user("Hi."), system="Be long.")
    assert words_of(caller.answer(input=[text_item("And?")])) == chat(omni, user("And?"), system="Be brief.")  # fmt: skip


def test_text_alone_and_a_limit(omni, caller: Caller):
    caller.session(output_modalities=["text"], max_output_tokens=3)
    caller.say("Hi.")
    response = caller.answer()
    assert words_of(response) == chat(omni, user("Hi."), speech=False, max_text_tokens=3)
    assert (response["status"], response["status_details"]["reason"]) == ("incomplete", "max_output_tokens")  # fmt: skip
    assert "response.output_text.done" in caller.kinds()
    assert not len(caller.sound())


def test_a_response_outside_of_the_conversation_leaves_nothing(omni, caller: Caller):
    caller.say("Hi.")
    aside = caller.answer(
        conversation="none", input=[text_item("Name it.")], output_modalities=["text"], metadata={"a": "b"}
    )  # fmt: skip
    assert aside["metadata"] == {"a": "b"} and aside["conversation_id"] is None
    assert words_of(caller.answer()) == chat(omni, user("Hi."))


def test_pictures_whole_and_while_somebody_speaks(omni, caller: Caller):
    url, image = picture((200, 30, 30))
    content = [{"type": "input_text", "text": "See."}, {"type": "input_image", "image_url": url}]
    caller.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})  # fmt: skip
    first = words_of(caller.answer())
    assert first == chat(omni, user("See.", {"type": "image", "image": image}))
    pcm = pcm16(tone(2.5))
    caller.hear(pcm[: len(pcm) // 2])
    caller.send("conversation.item.create", item={"type": "message", "role": "user", "content": content[1:]})  # fmt: skip
    caller.hear(pcm[len(pcm) // 2 :])
    caller.send("input_audio_buffer.commit")
    assert caller.answer()["status"] != "failed"
    talk = caller.until("rate_limits.updated")
    assert talk["rate_limits"][0]["remaining"] > 0


def test_a_sound_in_an_item(omni, caller: Caller):
    pcm = tone(0.7)
    part = {"type": "input_audio", "audio": base64.b64encode(pcm16(pcm)).decode()}
    caller.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})  # fmt: skip
    assert words_of(caller.answer()) == chat(omni, user(sound(pcm)))


# ----------------------------------------------------------------------------------------------------------------- calls


def test_a_call_is_an_item_and_is_not_spoken(
    omni, tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch
):
    call = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
    given = Wording(given=tuple(omni.tokenizer.encode(call)), ends=True, unspoken=("<tool_call>",))
    with app(omni, tiny_checkpoint, max_text_tokens=100) as client, calling(client) as caller:
        caller.session(tools=[TOOL])
        caller.say("Look.")
        with monkeypatch.context() as patch:
            patch.setattr(planning, "_wording", lambda *_: given)  # a random model calls nobody
            response = caller.answer()
        (item,) = response["output"]
        assert (item["type"], item["name"], item["arguments"]) == ("function_call", "look", '{"at": 1}')  # fmt: skip
        assert not len(caller.sound())
        assert "response.function_call_arguments.done" in caller.kinds()
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "a cat"}
        caller.send("conversation.item.create", item=result)
        words = words_of(caller.answer(max_output_tokens=8))
    system = with_tools(SPEECH_SYSTEM, [TOOL])
    read = user("<tool_response>\na cat\n</tool_response>")
    assert words == chat(omni, user("Look."), said(call), read, system=system)


def test_a_call_may_be_required(omni, caller: Caller):
    caller.session(tools=[TOOL], output_modalities=["text"])
    caller.say("Look.")
    forced = words_of(caller.answer(tool_choice={"type": "function", "name": "look"}))
    assert '<tool_call>\n{"name": "look", "arguments": '.startswith(forced[:8])
    caller.send("response.create", response={"tool_choice": {"type": "function", "name": "other"}})
    assert caller.until("error")["error"]["param"] == "tool_choice"


# ----------------------------------------------------------------------------------------------------------- interruption


def test_what_was_not_heard_was_never_said(omni, caller: Caller):
    caller.say("Hi.")
    item = caller.answer()["output"][0]
    caller.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=0)
    caller.until("conversation.item.truncated")
    caller.send("conversation.item.retrieve", item_id=item["id"])
    shown = caller.until("conversation.item.retrieved")["item"]
    assert shown["content"][0]["transcript"] == ""
    caller.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=10**6)  # fmt: skip
    assert "ms of sound" in caller.next()["error"]["message"]


def test_a_voice_begins_ends_and_interrupts(omni, tiny_checkpoint: str):
    with app(omni, tiny_checkpoint, max_codes=4000, max_text_tokens=400) as client, calling(client) as caller:  # fmt: skip
        caller.session(audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}})  # fmt: skip
        words = pcm16(padded(question(), before_s=0.4, after_s=0.6, rate=24_000))
        caller.hear(words)
        began = caller.until("input_audio_buffer.speech_started")
        ended = caller.until("input_audio_buffer.speech_stopped")
        assert 0 <= began["audio_start_ms"] < 1500 < ended["audio_end_ms"]
        committed = caller.until("input_audio_buffer.committed")
        assert committed["item_id"] == began["item_id"]
        caller.until("response.output_audio.delta")
        caller.hear(words)  # the listener speaks
        caller.until("input_audio_buffer.speech_started")
        done = caller.until("response.done")["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
        item = done["output"][0]
        caller.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=100)  # fmt: skip
        caller.until("conversation.item.truncated")
        delta = caller.until("response.output_audio.delta")  # of the answer to what he said
        caller.send("conversation.item.truncate", item_id=delta["item_id"], audio_end_ms=0)
        done = caller.until("response.done")["response"]  # truncated while it is said: stopped, too
        assert done["status_details"]["reason"] == "client_cancelled"
        caller.until("conversation.item.truncated")


def test_nobody_speaks_for_long(omni, caller: Caller):
    detection = {"type": "server_vad", "idle_timeout_ms": 1000}
    caller.session(audio={"input": {"turn_detection": detection}})
    caller.say("Hi.")
    caller.answer()
    fired = caller.until("input_audio_buffer.timeout_triggered")
    assert caller.until("response.done")["response"]["status"] != "failed"
    assert fired["item_id"] in [e.get("item_id") for e in caller.events if e["type"] == "input_audio_buffer.committed"]  # fmt: skip


def test_what_the_user_says_is_written_down(omni, caller: Caller):
    caller.session(audio={"input": {"turn_detection": None, "transcription": {"model": "tiny"}}})
    pcm = tone(1.0)
    caller.hear(pcm16(pcm))
    caller.send("input_audio_buffer.commit")
    done = caller.until("conversation.item.input_audio_transcription.completed")
    asked = user(sound(pcm), "Transcribe the audio into text.")
    assert done["transcript"] == chat(omni, asked, speech=False, greedy=True).strip()


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephone_sound_both_ways(omni, caller: Caller, kind: str):
    form = {"format": {"type": kind}}
    caller.session(audio={"input": form | {"turn_detection": None}, "output": form})
    caller.hear(bytes([0xFF, 0x7E, 0x10, 0x90]) * 2000)
    caller.send("input_audio_buffer.commit")
    caller.answer()
    sent = [base64.b64decode(e["delta"]) for e in caller.events if e["type"] == "response.output_audio.delta"]  # fmt: skip
    assert len(b"".join(sent)) == 20 * 8000 // 50


# ------------------------------------------------------------------------------------------------------------- the socket

WRONG = [
    ({"type": "nonsense"}, "unknown_event"),
    ({"type": "response.cancel"}, "response_cancel_not_active"),
    ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
    ({"type": "input_audio_buffer.append", "audio": "*"}, "invalid_audio"),
    ({"type": "input_audio_buffer.append"}, "missing_required_parameter"),
    ({"type": "conversation.item.delete", "item_id": "x"}, "item_not_found"),
    ({"type": "conversation.item.create", "item": {"type": "message"}}, "invalid_value"),
    ({"type": "session.update", "session": {"output_modalities": ["smell"]}}, "invalid_value"),
    ({"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}, "voice_not_found"),
    ({"type": "session.update", "session": {"model": "gpt-x"}}, "model_not_found"),
    ({"type": "output_audio_buffer.clear"}, "not_supported"),
]  # fmt: skip


def test_what_is_wrong_is_told_and_the_conversation_goes_on(omni, caller: Caller):
    for number, (event, code) in enumerate(WRONG):
        caller.send(**event, event_id=f"mine_{number}")
        told = caller.next()
        assert (told["type"], told["error"]["code"]) == ("error", code), (event, told)
        if code not in ("unknown_event", "missing_required_parameter", "invalid_value"):
            assert told["error"]["event_id"] == f"mine_{number}"
    caller.socket.send_text("{")
    assert caller.next()["error"]["code"] == "invalid_json"
    caller.socket.send_bytes(b"\0")
    assert caller.next()["error"]["code"] == "invalid_json"
    url = "file:///etc/passwd"
    image = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}  # fmt: skip
    caller.send("conversation.item.create", item=image)
    assert "data: URL" in caller.next()["error"]["message"]
    caller.say("Hello.")
    assert words_of(caller.answer()) == chat(omni, user("Hello."))


@pytest.mark.parametrize("planted", [False, True])
def test_whoever_hangs_up_leaves_his_seat(planted: bool, client: TestClient, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    """In the middle of an answer, and while the engine is busy: one wish frees it, and each wish waits for a unit of work."""
    hub, gate, wishes = client.app.state.hub, threading.Event(), []
    post = hub.engine.post

    def counted(wish):
        wishes.append(wish)
        return post(wish)

    if planted:
        monkeypatch.setattr(
            Sitting, "abandon", lambda _: None
        )  # so it is interrupted first, fit to go on
    with calling(client) as caller:
        caller.session(max_output_tokens=8)
        caller.say("Hello.")
        caller.send("response.create")
        caller.until("response.output_audio_transcript.delta")
        hub.engine.post(gate.wait)
        monkeypatch.setattr(hub.engine, "post", counted)
        threading.Timer(0.2, gate.set).start()
    until = time.monotonic() + 30.0  # freed at once; a busy machine gets its time
    while (hub.engine.seats or hub.conversations) and time.monotonic() < until:
        time.sleep(0.005)
    assert not hub.engine.seats and not hub.conversations
    assert len(wishes) == (3 if planted else 1)


def test_a_full_server_says_so_before_the_call(omni, tiny_checkpoint: str):
    with app(omni, tiny_checkpoint, max_sessions=1, queue_seconds=0.05) as client, calling(client):
        with pytest.raises(WebSocketDenialResponse) as refused, calling(client):
            pass
        assert refused.value.status_code == 429
        assert int(refused.value.headers["retry-after"]) >= 1


def test_no_such_model(client: TestClient):
    with pytest.raises(WebSocketDenialResponse) as refused, calling(client, "/v1/realtime?model=gpt-x"):  # fmt: skip
        pass
    assert refused.value.status_code == 404


def test_browsers_are_answered_in_the_subprotocol_they_offer(client: TestClient):
    offered = ["realtime", "openai-insecure-api-key.sk-1"]
    with client.websocket_connect(f"{HOST}/v1/realtime", subprotocols=offered) as socket:
        assert socket.accepted_subprotocol == "realtime"
