"""The hub: a conversation through it says what the model says alone; who waits, who is refused, who is freed."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from serving import quick_settings

from thinktalk.errors import InputError
from thinktalk.events import AudioChunk, Done
from thinktalk.media.video import Video
from thinktalk.omni import Omni
from thinktalk.server.hub import Client, Hub
from thinktalk.server.problems import Draining, Overloaded, Problem

HELLO = [{"role": "user", "content": "Hello."}]
EXAMPLES = Path(__file__).parents[2] / "examples"
LONG = dict(max_codes=4000, max_text_tokens=400)


def in_hub(hub: Hub, main):
    """Run `await main(hub)` with the hub started."""

    async def whole():
        async with hub:
            return await asyncio.wait_for(main(hub), 60)

    return asyncio.run(whole())


async def answer(hub: Hub, messages=HELLO, client: str = "a", **changes):
    options = hub.options(greedy=True, seed=0)
    async with (
        hub.conversation(Client(client), messages=messages, options=options, **changes) as session,
        aclosing(hub.respond(session)) as events,
    ):
        *_, last = [event async for event in events]
    assert isinstance(last, Done)
    return last.reply


def test_answers_as_the_model_does(hub: Hub):
    reply = in_hub(hub, answer)
    alone = hub.omni.chat(HELLO, greedy=True, seed=0, max_codes=20, max_text_tokens=8, flow_points=3, flow_method="euler")  # fmt: skip
    assert reply.token_ids == alone.token_ids and reply.codes == alone.codes
    assert hub.conversations == 0 and not hub.engine.seats


def test_each_of_many_gets_its_own_answer(omni: Omni, tiny_checkpoint: str):
    texts = [f"Say the number {n}." for n in range(6)]
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=2), omni=omni)

    async def main(hub: Hub):
        ask = [answer(hub, [{"role": "user", "content": t}], client=t) for t in texts]
        return await asyncio.gather(*ask)

    replies = in_hub(hub, main)
    quick = dict(greedy=True, seed=0, max_codes=20, max_text_tokens=8, flow_points=3, flow_method="euler")  # fmt: skip
    for text, reply in zip(texts, replies, strict=True):
        alone = omni.chat([{"role": "user", "content": text}], **quick)
        assert reply.token_ids == alone.token_ids and reply.codes == alone.codes
    assert len({tuple(r.codes) for r in replies}) > 1  # else a mix-up would not be seen


@pytest.mark.parametrize("log_content", [False, True])
def test_what_is_said_is_logged_only_when_asked(
    omni: Omni, tiny_checkpoint: str, caplog: pytest.LogCaptureFixture, log_content: bool
):
    hub = Hub(quick_settings(tiny_checkpoint, log_content=log_content), omni=omni)
    with caplog.at_level("DEBUG"):
        reply = in_hub(hub, lambda hub: answer(hub, [{"role": "user", "content": "a private matter"}]))  # fmt: skip
    assert ("a private matter" in caplog.text) is log_content
    assert (json.dumps(reply.text, ensure_ascii=False) in caplog.text) is log_content


# ----------------------------------------------------------------------------------------------------------------- room


def test_who_finds_no_room_waits_and_is_then_told(omni: Omni, tiny_checkpoint: str):
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=1, queue_size=1, queue_seconds=0.3), omni=omni)  # fmt: skip

    async def main(hub: Hub):
        async with hub.conversation(Client("first")):
            waits = asyncio.create_task(answer(hub, client="second"))
            await asyncio.sleep(0.1)
            with pytest.raises(Overloaded, match="1 wait already, at most 1") as told:
                await answer(hub, client="third")
            assert int(told.value.headers["Retry-After"]) >= 1
            with pytest.raises(Overloaded, match=r"waited 0\.3 s"):
                await waits
        return await answer(hub, client="fourth")

    assert in_hub(hub, main).codes
    assert hub.metrics.refused.labels("overloaded")._value.get() == 2


def test_who_waits_comes_in_when_somebody_leaves(omni: Omni, tiny_checkpoint: str):
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=1), omni=omni)

    async def main(hub: Hub):
        async with hub.conversation(Client("first")):
            waits = asyncio.create_task(answer(hub, client="second"))
            await asyncio.sleep(0.1)
            assert hub.conversations == 2 and len(hub.line) == 1
        return await waits

    assert in_hub(hub, main).codes


def test_a_crowd_does_not_keep_another_client_out(omni: Omni, tiny_checkpoint: str):
    """The room of two is held by a crowd whose others wait, too; who comes last, from elsewhere, is let in next."""
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=2), omni=omni)
    order: list[str] = []

    async def visit(hub: Hub, name: str, leave: asyncio.Event | None = None):
        async with hub.conversation(Client(name)):
            order.append(name)
            if leave is not None:
                await leave.wait()

    async def main(hub: Hub):
        first, second = asyncio.Event(), asyncio.Event()
        crowd = [asyncio.create_task(visit(hub, "crowd", e)) for e in (first, second)]
        while len(order) < 2:
            await asyncio.sleep(0.01)
        crowd += [asyncio.create_task(visit(hub, "crowd")) for _ in range(3)]
        await asyncio.sleep(0.05)
        single = asyncio.create_task(visit(hub, "single"))
        await asyncio.sleep(0.05)
        first.set()  # a conversation of the crowd ends, one goes on
        await single
        second.set()
        await asyncio.gather(*crowd)

    in_hub(hub, main)
    assert order[:3] == ["crowd", "crowd", "single"]


def test_room_is_not_given_twice(omni: Omni, tiny_checkpoint: str):
    """Eight come at once where two fit: never are there more than two."""
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=2), omni=omni)
    most = 0

    async def visit(hub: Hub, n: int):
        nonlocal most
        async with hub.conversation(Client(str(n))):
            most = max(most, hub.line.talking.total())
            while most < 2:  # nobody leaves before there were two at a time
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.01)

    async def main(hub: Hub):
        await asyncio.gather(*[visit(hub, n) for n in range(8)])

    in_hub(hub, main)
    assert most == 2


# ---------------------------------------------------------------------------------------------------------- who leaves


def test_who_leaves_frees_the_seat(omni: Omni, tiny_checkpoint: str):
    hub = Hub(quick_settings(tiny_checkpoint, max_sessions=1, **LONG), omni=omni)

    async def main(hub: Hub):
        heard = asyncio.Event()

        async def listen():
            options = hub.options(greedy=True, seed=0)
            async with (
                hub.conversation(Client(), messages=HELLO, options=options) as session,
                aclosing(hub.respond(session)) as events,
            ):
                async for event in events:
                    if isinstance(event, AudioChunk):
                        heard.set()

        listener = asyncio.create_task(listen())
        await heard.wait()
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
        assert not hub.engine.seats and hub.conversations == 0
        async with hub.conversation(Client()):
            pass

    in_hub(hub, main)
    assert hub.metrics.replies.labels("left")._value.get() == 1


def test_a_reply_left_early_is_stopped_and_the_conversation_goes_on(omni: Omni, tiny_checkpoint: str):  # fmt: skip
    hub = Hub(quick_settings(tiny_checkpoint, **LONG), omni=omni)

    async def main(hub: Hub):
        async with hub.conversation(Client(), messages=HELLO, options=hub.options(greedy=True, seed=0)) as session:  # fmt: skip
            async with aclosing(hub.respond(session)) as events:
                async for event in events:
                    if isinstance(event, AudioChunk):
                        break
            assert not session.replying
            said = await hub.call(lambda: session.history)
            await hub.call(lambda: session.text("And now?"))
            async with aclosing(hub.respond(session, max_codes=5, max_text_tokens=3)) as events:
                kinds = [type(event) async for event in events]
            return said, kinds

    said, kinds = in_hub(hub, main)
    assert said[-1]["role"] == "assistant" and kinds[-1] is Done


def test_cancelled_while_a_session_is_made_leaves_no_seat(hub: Hub):
    async def main(hub: Hub):
        for delay_ms in range(0, 12):
            visit = asyncio.create_task(answer(hub))
            await asyncio.sleep(delay_ms / 1e3)
            visit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await visit
            assert not hub.engine.seats and not hub._coming and hub.conversations == 0

    in_hub(hub, main)


def test_a_cancelled_call_still_ends_first(hub: Hub):
    began, ended = threading.Event(), threading.Event()

    def slow():
        began.set()
        time.sleep(0.1)
        ended.set()

    async def main(hub: Hub):
        task = asyncio.create_task(hub.call(slow))
        while not began.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # twice: it is not impressed
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    in_hub(hub, main)


def test_an_error_in_the_engine_is_told_and_frees_the_seat(hub: Hub, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    async def main(hub: Hub):
        def broken(*_):
            raise ValueError("planted")

        monkeypatch.setattr(hub.engine.stages.thinking, "think", broken)
        with pytest.raises(ValueError, match="planted"):
            await answer(hub)
        monkeypatch.undo()
        assert not hub.engine.seats and hub.alive
        return await answer(hub)

    assert in_hub(hub, main).codes
    assert hub.metrics.replies.labels("failed")._value.get() == 1


def test_draining_takes_nothing_new_and_waits_for_the_rest(omni: Omni, tiny_checkpoint: str):
    hub = Hub(quick_settings(tiny_checkpoint), omni=omni)

    async def main(hub: Hub):
        seated = asyncio.Event()

        async def talk():
            async with hub.conversation(Client(), messages=HELLO, options=hub.options(seed=0)) as session:  # fmt: skip
                seated.set()
                async with aclosing(hub.respond(session)) as events:
                    return [event async for event in events][-1]

        talking = asyncio.create_task(talk())
        await seated.wait()
        assert hub.ready
        draining = asyncio.create_task(hub.drain(20))
        await asyncio.sleep(0)
        assert not hub.ready and hub.alive
        with pytest.raises(Draining):
            await answer(hub)
        assert await draining
        assert isinstance(await talking, Done)
        async with asyncio.timeout(5):
            assert await hub.drain(0)

    in_hub(hub, main)


def test_drain_does_not_wait_for_ever(hub: Hub):
    async def main(hub: Hub):
        async with hub.conversation(Client()):
            assert not await hub.drain(0.05)

    in_hub(hub, main)


# --------------------------------------------------------------------------------------------------------------- media


def data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_media_come_out_as_arrays_and_answer_as_files_do(hub: Hub, omni: Omni):
    def content(picture, sound, clip):
        return [
            {"type": "image", "image": picture},
            {"type": "audio", "audio": sound},
            {"type": "video", "video": clip},
            {"type": "text", "text": "What is this?"},
        ]

    files = [EXAMPLES / name for name in ("picture.png", "question.wav", "clip.mp4")]
    sent = content(data_url(files[0], "image/png"), files[1].read_bytes(), files[2].read_bytes())

    async def main(hub: Hub):
        ready = await hub.prepared([{"role": "user", "content": sent}])
        return ready, await answer(hub, ready, speech=False)

    ready, reply = in_hub(hub, main)
    picture, (pcm, rate), clip = (part[part["type"]] for part in ready[0]["content"][:3])
    assert picture.mode == "RGB" and isinstance(clip, Video) and clip.audio is not None
    assert pcm.dtype == np.float32 and rate == 16_000
    alone = omni.chat([{"role": "user", "content": content(*map(str, files))}], speech=False, greedy=True, max_text_tokens=8)  # fmt: skip
    assert reply.token_ids == alone.token_ids and reply.prompt_tokens == alone.prompt_tokens


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/etc/passwd", "expected a data: URL"),
        ("file:///etc/passwd", "expected a data: URL"),
        ("https://example.org/a.png", "does not fetch web addresses"),
        (b"not a picture", "not a picture|expected a picture"),
        (b"\0" * 3000, "3000 bytes, expected at most 2000"),
        (None, "expected a data: URL"),
    ],
)
def test_what_is_no_medium_is_refused(omni: Omni, tiny_checkpoint: str, source, words: str):
    hub = Hub(quick_settings(tiny_checkpoint, max_image_bytes=2000), omni=omni)
    messages = [{"role": "user", "content": [{"type": "image", "image": source}]}]
    with pytest.raises(InputError, match=words):
        in_hub(hub, lambda hub: hub.prepared(messages))


@pytest.mark.parametrize(
    ("limit", "messages"),
    [
        ({"max_messages": 1}, HELLO * 2),
        ({"max_text_chars": 5}, HELLO),
        ({"max_parts": 1}, [{"role": "user", "content": [{"type": "image", "image": b"x"}] * 2}]),
    ],
)
def test_a_request_that_is_too_large_is_refused(omni: Omni, tiny_checkpoint: str, limit, messages):
    hub = Hub(quick_settings(tiny_checkpoint, **limit), omni=omni)
    with pytest.raises(InputError, match="expected at most"):
        in_hub(hub, lambda hub: hub.prepared(messages))


def test_declared_sizes_are_checked_before_decoding(omni: Omni, tiny_checkpoint: str):
    limits = dict(max_image_pixels=100, max_video_seconds=0.5, max_audio_seconds=0.5)
    hub = Hub(quick_settings(tiny_checkpoint, **limits), omni=omni)
    files = {"image": "picture.png", "video": "clip.mp4", "audio": "question.wav"}

    async def main(hub: Hub):
        for kind, name in files.items():
            with pytest.raises(InputError, match=r"expected at most|longer than"):
                await hub.decoded(kind, (EXAMPLES / name).read_bytes(), name="it")

    in_hub(hub, main)
    assert hub.metrics.decoded.labels("image", "refused")._value.get() == 1


# --------------------------------------------------------------------------------------------------------------- names


def test_names_voices_options(hub: Hub):
    async def main(hub: Hub):
        assert hub.check_model("tiny") == "tiny" and hub.check_model(None) == hub.names[0]
        with pytest.raises(Problem, match="is not served here") as told:
            hub.check_model("gpt-9")
        assert told.value.status == 404
        assert hub.voice(None) == hub.voice("default") == hub.voice("alloy")
        assert hub.voice("chelsie") == "Chelsie"  # capitals aside
        with pytest.raises(Problem, match="voice 'nobody' is unknown; have"):
            hub.voice("nobody")
        options = hub.options(max_codes=10**9, text_temperature=None, text_sample=True)
        assert options.generation.max_codes == 20 and options.generation.text_sample
        assert hub.options().seed != hub.options().seed

    in_hub(hub, main)
