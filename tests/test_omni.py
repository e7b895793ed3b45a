"""The Python face: names, types and promises that programs rely on."""

from __future__ import annotations

import asyncio
import json
import shutil

import numpy as np
import pytest
import torch

import thinktalk
from thinktalk import AudioChunk, ConfigError, Done, InputError, TextDelta, WeightsError

HELLO = [{"role": "user", "content": "Hello there"}]
SHORT = dict(max_text_tokens=6, max_codes=12)


@pytest.fixture(scope="module")
def omni(tiny_checkpoint):
    return thinktalk.load(tiny_checkpoint)


def tone(seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)


def test_a_reply_says_all(omni):
    reply = omni.chat(HELLO, seed=3, **SHORT)
    assert reply.text == omni.tokenizer.decode(reply.token_ids)
    assert reply.audio.dtype == np.float32
    assert reply.audio.shape == (480 * len(reply.codes),)
    assert (reply.sample_rate, reply.finish, len(reply.token_ids)) == (24_000, "length", 6)
    assert reply.seconds == len(reply.audio) / 24_000
    assert reply.timing["total"] >= reply.timing["think"] > 0


def test_without_speech_there_is_no_sound(omni):
    reply = omni.chat(HELLO, speech=False, **SHORT)
    assert (reply.audio, reply.codes) == (None, None)
    assert reply.seconds == 0.0


def test_a_batch_gives_each_what_it_would_get_alone(omni):
    """Sampled codes too: every row draws from generators of its own. Float32: one code is chosen by argmax of equal sums."""
    others = [{"role": "user", "content": [{"type": "audio", "audio": (tone(), 16000)}]}]
    together = omni.chat_batch([HELLO, others], seed=7, **SHORT)
    for messages, row in zip((HELLO, others), together, strict=True):
        alone = omni.chat(messages, seed=7, **SHORT)
        assert (row.token_ids, row.codes) == (alone.token_ids, alone.codes)
        np.testing.assert_allclose(row.audio, alone.audio, atol=1e-4)  # float32, batched products
    assert omni.chat_batch([]) == []


def test_the_seed_decides(omni):
    first, again, other = (
        omni.chat(HELLO, seed=s, max_text_tokens=4, max_codes=24) for s in (1, 1, 2)
    )
    assert first.codes == again.codes != other.codes
    np.testing.assert_array_equal(first.audio, again.audio)


def test_noise_fixes_the_wave(omni):
    noise = torch.randn(8, 80, generator=torch.Generator().manual_seed(1))
    a, b = (omni.code2wav([5, 6, 7, 8], "default", noise=noise) for _ in range(2))
    assert a.dtype == np.float32
    assert a.shape == (1920,)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - omni.code2wav([5, 6, 7, 8], noise=-noise)).max() > 1e-3
    assert omni.code2wav([]).shape == (0,)


def test_a_checkpoint_says_how_its_flow_is_solved(omni, tiny_checkpoint, tmp_path):
    """One that has learned little is best walked in one step: its own settings count where nobody says otherwise."""
    rough = omni.say("Hello.", max_codes=8, flow_points=2, flow_method="euler")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    file = copy / "generation_config.json"
    told = json.loads(file.read_text()) | {"token2wav_method": "euler", "token2wav_num_steps": 2}
    file.write_text(json.dumps(told))
    own = thinktalk.load(copy)
    assert np.array_equal(own.say("Hello.", max_codes=8).audio, rough.audio)
    again = own.say(
        "Hello.", max_codes=8, flow_method="rk4", flow_points=omni.config.generation.flow_points
    )
    assert np.array_equal(again.audio, omni.say("Hello.", max_codes=8).audio)
    assert not np.array_equal(again.audio, rough.audio)


def test_a_stream_gives_sound_before_the_text_ends(omni):
    """36 codes make the first 240 ms, and each code needs one token of text: so sound begins while words still come."""
    events = list(omni.stream(HELLO, seed=5, max_text_tokens=80, max_codes=100))
    kinds = [type(event) for event in events]
    assert kinds[-1] is Done
    assert kinds.index(AudioChunk) < len(kinds) - 1 - kinds[::-1].index(TextDelta)
    reply = events[-1].reply
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == reply.text
    chunks = [e for e in events if isinstance(e, AudioChunk)]
    np.testing.assert_array_equal(np.concatenate([c.pcm for c in chunks]), reply.audio)
    starts = np.cumsum([0, *(len(c.pcm) for c in chunks)])[:-1] / 24_000
    np.testing.assert_allclose([c.start_s for c in chunks], starts)
    times = [event.at_s for event in events[:-1]]
    assert times == sorted(times)


def test_a_stream_says_what_chat_says(omni):
    whole = omni.chat(HELLO, seed=5, **SHORT)
    *_, done = omni.stream(HELLO, seed=5, **SHORT)
    assert done.reply.token_ids == whole.token_ids
    assert done.reply.codes == whole.codes
    assert done.reply.audio.shape == whole.audio.shape


def test_leaving_a_stream_early_frees_its_place(omni):
    for _ in range(3):
        for event in omni.stream(HELLO, max_text_tokens=40, max_codes=40):
            if isinstance(event, TextDelta):
                break
    assert not omni.engine.seats


def test_a_session_answers_what_was_heard(omni):
    async def talk():
        with omni.session(voice="default", **SHORT) as session:
            for start in range(0, 32000, 1600):
                session.hear(tone(2)[start : start + 1600])
            return [event async for event in session.respond()], session.history

    events, history = asyncio.run(talk())
    assert isinstance(events[-1], Done)
    assert history[-1] == {"role": "assistant", "content": events[-1].reply.text}


def test_say_and_transcribe(omni):
    reply = omni.say("Good morning.", max_codes=20)
    assert reply.text == "Good morning."
    assert len(reply.codes) > 0
    assert isinstance(omni.transcribe((tone(), 16000), max_text_tokens=4), str)


def test_voices_are_named_and_one_is_the_default(omni):
    assert "default" in omni.voices


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_precisions(tiny_checkpoint, dtype):
    reply = thinktalk.load(tiny_checkpoint, dtype=dtype).chat(HELLO, **SHORT)
    assert len(reply.token_ids) == 6
    assert np.isfinite(reply.audio).all()


def test_parts_and_placement(tiny_checkpoint):
    thinker = thinktalk.load(tiny_checkpoint, parts=("thinker",))
    assert not thinker.can_speak
    assert thinker.chat(HELLO, max_text_tokens=2).audio is None  # speech is what the parts can
    with pytest.raises(ConfigError, match="talker"):
        thinker.chat(HELLO, speech=True)
    placed = thinktalk.load(tiny_checkpoint, placement={"talker": "cpu"})
    assert placed.chat(HELLO, **SHORT).codes


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda o: o.chat(HELLO, voice="Nobody"), InputError, "Nobody"),
        (lambda o: o.chat(HELLO, max_codes=0), ConfigError, "max_codes"),
        (lambda o: o.chat(HELLO, flow_method="rk9", **SHORT), ConfigError, "rk9"),
        (lambda o: o.chat([]), InputError, "none"),
        (lambda o: o.chat("Hello"), InputError, "list"),
        (lambda o: o.say("  "), InputError, "empty"),
        (lambda o: o.say("word " * 40_000), InputError, "tokens"),
        (lambda o: o.chat([{"role": "user", "content": "w " * 40_000}]), InputError, "tokens"),
        (lambda o: list(o.stream([{"role": "user", "content": "w " * 40_000}])), InputError, "tokens"),
        (lambda o: o.code2wav([9000]), InputError, "9000"),
        (lambda o: o.code2wav([1, 2], noise=torch.zeros(3, 80)), InputError, "noise"),
        (lambda o: o.transcribe("nowhere.wav"), InputError, "nowhere.wav"),
        (lambda o: thinktalk.load(o.directory, device="warp"), ConfigError, "warp"),
        (lambda o: thinktalk.load(o.directory, parts=("ears",)), ConfigError, "ears"),
        (lambda o: thinktalk.load("no/such/model/here"), WeightsError, "no such directory"),
    ],
)  # fmt: skip
def test_what_cannot_work_says_so_in_one_line(omni, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(omni)
    assert "\n" not in str(caught.value)
