"""Whether a turn is over: the model's own judgement where it is asked, silence where it does not know."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from realtime_rig import Caller, calling, padded, pcm16, question, words_of
from serving import quick_settings
from starlette.testclient import TestClient

from thinktalk.omni import Omni
from thinktalk.server import judging, talk
from thinktalk.server.app import create_app
from thinktalk.server.judging import Judge, answers_of, likely_complete
from thinktalk.server.turns import GLANCE_MS

SILENT_MS = (
    3136  # with half a second before it the example's last word ends here, as the detector hears it
)
TOLERANCE_MS = 100

# ---------------------------------------------------------------------------------------------------------- probabilities


class Scripted:
    """A session whose Thinker says what it is told to."""

    def __init__(self, vocabulary: int, **logits: float):
        self.logits = torch.full((vocabulary,), -5.0)
        self.asked: list[str] = []
        self.said = logits

    def peek(self, question: str) -> torch.Tensor:
        self.asked.append(question)
        return self.logits.log_softmax(0)


def test_a_yes_in_any_spelling_is_weighed_against_a_no(omni: Omni):
    yes, no = answers_of(omni.tokenizer)
    assert yes and no and not set(yes) & set(no)
    session = Scripted(omni.config.thinker.text.vocab_size)
    assert likely_complete(session, omni.tokenizer) == pytest.approx(len(yes) / (len(yes) + len(no)))  # fmt: skip
    session.logits[yes[-1]] = 3.0
    likely = likely_complete(session, omni.tokenizer)
    weigh = session.logits.exp()
    assert likely == pytest.approx(float(weigh[yes].sum() / weigh[yes + no].sum()))
    session.logits[no[0]] = 9.0
    assert likely_complete(session, omni.tokenizer) < 0.01 < likely
    assert session.asked == 3 * [judging.QUESTION]


def test_a_tokenizer_without_either_word_leaves_it_to_silence():
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [0, 1]  # all words begin alike

    assert answers_of(Letters()) == ([], [])
    assert likely_complete(Scripted(4), Letters()) is None


def test_only_the_newest_silence_is_judged():
    async def run() -> None:
        gate, answers, told = asyncio.Event(), [0.1, 0.9], []

        async def judge() -> float:
            await gate.wait()
            return answers.pop(0)

        asked = Judge(judge, spawn=asyncio.create_task, told=told.append)
        assert asked(100) is None
        await asyncio.sleep(0)
        for since in (200, 300):  # two more silences while the first is still judged
            assert asked(since) is None
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert told == [0.1, 0.9], "the silence in between is passed by"
        assert asked(300) == 0.9
        assert asked(400) is None, "another silence, another judgement"

    asyncio.run(run())


# ---------------------------------------------------------------------------------------------------------- conversations


@contextlib.contextmanager
def listening(omni: Omni, checkpoint: str, threshold: float | None) -> Iterator[Caller]:
    app = create_app(quick_settings(checkpoint, turn_threshold=threshold), omni=omni)
    with TestClient(app, base_url="http://127.0.0.1") as client, calling(client) as caller:
        detection = {"type": "semantic_vad", "eagerness": "high"}
        caller.session(audio={"input": {"turn_detection": detection}}, output_modalities=["text"])
        yield caller


def end_of_turn(caller: Caller, threshold: float | None, *, fails: bool) -> dict:
    """The example is said; the event of its end. What comes after the glance comes when the judgement is there."""
    pcm = padded(question(), before_s=0.5, after_s=2.5, rate=24_000)
    glance = (SILENT_MS + GLANCE_MS + 90) * 24
    caller.hear(pcm16(pcm[:glance]), size=48_000)
    caller.until("input_audio_buffer.speech_started")
    metrics, until = caller.socket.app.state.hub.metrics, time.monotonic() + 60
    judged = metrics.judged.labels("unknown" if fails else "told")._value
    while threshold is not None and not judged.get():
        assert time.monotonic() < until, "nobody judged"
        time.sleep(0.005)
    caller.hear(pcm16(pcm[glance:]), size=1536)
    return caller.until("input_audio_buffer.speech_stopped")


@pytest.mark.parametrize(
    ("threshold", "fails", "silence_ms"),
    [(1e-9, False, GLANCE_MS), (1 - 1e-9, False, 2000), (0.5, True, 450), (None, False, 450)],
    ids=["complete", "incomplete", "nobody knows", "nobody is asked"],
)
def test_the_judgement_decides_how_long_is_waited(
    omni: Omni, tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch, threshold: float | None, fails: bool, silence_ms: int
):  # fmt: skip
    if fails:
        monkeypatch.setattr(talk, "likely_complete", lambda *_: 1 / 0)
    with listening(omni, tiny_checkpoint, threshold) as caller:
        end_ms = end_of_turn(caller, threshold, fails=fails)["audio_end_ms"]
        assert SILENT_MS + silence_ms <= end_ms <= SILENT_MS + silence_ms + TOLERANCE_MS
        if threshold != 1e-9:
            return
        done = caller.until("response.done")["response"]
        item = next(e["item_id"] for e in caller.events if e["type"] == "input_audio_buffer.committed")  # fmt: skip
        caller.send("conversation.item.retrieve", item_id=item)
        sound = caller.until("conversation.item.retrieved")["item"]["content"][0]["audio"]
        pcm = np.frombuffer(base64.b64decode(sound), "<i2").astype(np.float32) / 32767
    said = [{"role": "user", "content": [{"type": "audio", "audio": (pcm, 16_000)}]}]
    alone = omni.chat(said, seed=0, max_text_tokens=8, speech=False)
    assert words_of(done) == alone.text, "the question to the model must leave nothing behind"
