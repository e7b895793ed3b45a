"""nano as it was trained, turned back into float32, in transformers: the same words, codes and wave.

Random weights prove the arithmetic (test_parity_end_to_end.py), trained ones that it was not tuned to them: large numbers and
small ones, sharp attention, answers that end by themselves.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference import reference_answer
from transformers import Qwen2_5OmniForConditionalGeneration

import thinktalk
from thinktalk.media.audio import load_audio
from thinktalk.prompt import build_prompt
from thinktalk.weights.convert import convert
from thinktalk.weights.pretrained import shipped

ASKED = Path(__file__).parents[2] / "examples" / "asked"
SOUND, PICTURE = ASKED / "spoken_calendar.opus", ASKED / "colour.jpg"
CASES = {
    "spoken": [{"type": "audio", "audio": str(SOUND)}],
    "a picture": [{"type": "image", "image": str(PICTURE)}, {"type": "text", "text": "What colour is it?"}],
}  # fmt: skip
VOICE, MAX_TEXT, MAX_CODES = "bf_emma", 16, 24
WAVE_TOLERANCE = (
    1e-4  # float32 through 36 evaluations of the flow and the vocoder, as with random weights
)
THEIRS = {
    "flow_method": "rk4",
    "flow_points": 10,
    "flow_guidance": 0.5,
}  # the only way the reference walks


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano") / "floats"
    source = shipped("nano")
    assert source is not None
    convert(source, folder, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def ours(floats):
    return thinktalk.load(floats, dtype="float32")


@pytest.fixture(scope="module")
def theirs(floats):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Qwen2_5OmniForConditionalGeneration.from_pretrained(floats, dtype=torch.float32)
    model.load_speakers(str(floats / "spk_dict.pt"))
    return model.eval()


def noise(seed=3):
    return torch.randn(2 * MAX_CODES, 80, generator=torch.Generator().manual_seed(seed))


def answers(ours, theirs, case):
    """(text ids, codes, wave) of both."""
    messages = [{"role": "user", "content": CASES[case]}]
    options = dict(voice=VOICE, greedy=True, max_text_tokens=MAX_TEXT, max_codes=MAX_CODES)
    reply = ours.chat(messages, noise=noise(), **options, **THEIRS)
    prompt = build_prompt(messages, tokenizer=ours.tokenizer, config=ours.config, speech=True)
    media = {
        "pcm": [load_audio(SOUND)] if case == "spoken" else [],
        "images": [Image.open(PICTURE).convert("RGB")] if case == "a picture" else [],
    }
    (other,) = reference_answer(theirs, ours.config, [prompt], VOICE, [noise()], max_text=MAX_TEXT, max_codes=MAX_CODES, **media)  # fmt: skip
    return (reply.token_ids, reply.codes, reply.audio), other


@pytest.mark.parametrize("case", list(CASES))
def test_the_same_words_codes_and_wave(ours, theirs, case):
    mine, other = answers(ours, theirs, case)
    assert mine[0] == other[0], (ours.tokenizer.decode(mine[0]), ours.tokenizer.decode(other[0]))
    assert len(mine[0]) > 2 and mine[1] == other[1] and len(mine[1]) > 10
    assert mine[2].shape == other[2].shape and np.abs(mine[2]).max() > 0.05
    worst = float(np.abs(mine[2] - other[2]).max())
    print(
        f"{case}: {ours.tokenizer.decode(mine[0])!r}, {len(mine[1])} codes, waves differ by {worst:.1e}"
    )
    assert worst <= WAVE_TOLERANCE


def test_another_walk_would_be_seen(ours, theirs):
    """The planted fault: one step more of the flow, which nothing but the wave tells."""
    codes = [5, 900, 17, 44, 611, 12, 700, 81, 90, 91, 92, 93]
    one, two = (
        ours.code2wav(codes, VOICE, noise=noise()[:24], **(THEIRS | {"flow_points": points}))
        for points in (10, 11)
    )
    assert np.abs(one - two).max() > WAVE_TOLERANCE
