"""A packed model, turned back into float32, is a checkpoint of transformers: the same tensors, logits and wave.

With all that is nano's own, at tiny widths: one table of words for reading and writing, 25 codes and 50 mel frames a second,
1000 codes, five upsamplings.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from reference import official_state_dict
from transformers import Qwen2_5OmniForConditionalGeneration

import thinktalk
from thinktalk import config as cfg
from thinktalk.weights.convert import convert
from thinktalk.weights.hf import planned
from thinktalk.weights.pretrained import pack
from thinktalk.weights.random import random_checkpoint

CODES = [5, 900, 17, 44, 1000, 3, 3, 250, 611, 12, 700, 81]  # one block of 12


def small() -> cfg.OmniConfig:
    """nano in tiny's widths; without the speech tokenizer, which the reference does not have."""
    nano, tiny = cfg.nano(), cfg.tiny()
    assert nano.talker and nano.code2wav and tiny.talker and tiny.code2wav
    words, d = nano.thinker.text, nano.code2wav.dit
    text = replace(
        tiny.thinker.text, tie_embeddings=True, num_layers=words.num_layers, vocab_size=words.vocab_size
    )  # fmt: skip
    decoder = replace(tiny.talker.decoder, vocab_size=nano.talker.decoder.vocab_size)
    dit = replace(
        tiny.code2wav.dit, num_codes=d.num_codes, block_frames=d.block_frames, num_layers=d.num_layers,
        look_ahead_layers=d.look_ahead_layers, look_backward_layers=d.look_backward_layers,
    )  # fmt: skip
    vocoder = replace(nano.code2wav.vocoder, initial_channels=64)
    return replace(
        nano,
        thinker=replace(nano.thinker, audio=tiny.thinker.audio, vision=tiny.thinker.vision, text=text),
        talker=replace(nano.talker, input_width=text.width, decoder=decoder),
        code2wav=replace(nano.code2wav, dit=dit, vocoder=vocoder), wav2code=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """That with random weights, int8."""
    folder = tmp_path_factory.mktemp("nano")
    pack(random_checkpoint(small(), folder / "trained"), folder / "nano")
    return folder / "nano"


@pytest.fixture(scope="module")
def theirs(packed):
    convert(packed, packed.parent / "floats", dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Qwen2_5OmniForConditionalGeneration.from_pretrained(
            packed.parent / "floats", dtype=torch.float32
        ).eval()


@pytest.fixture(scope="module")
def ours(packed):
    return thinktalk.load(packed, dtype="float32")


def test_the_same_tensors(ours, theirs):
    """Bit-identical: int8 times its scale is one product in float32, wherever it is made."""
    found = official_state_dict(theirs)
    tied = found.pop("thinker.lm_head.weight")
    assert torch.equal(tied, found["thinker.model.embed_tokens.weight"])
    config = ours.config
    plans = [planned(stage, m, config, None) for stage, m in ours.model.stages().items()]
    mine = {tensor.name: tensor.make() for plan in plans for tensor in plan}
    assert mine.keys() == found.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, found[name]), name


@torch.no_grad()
def test_the_same_logits(ours, theirs):
    ids = ours.tokenizer.encode("The same words give the same numbers.")
    token_ids = torch.tensor([ids])
    positions = torch.arange(len(ids)).expand(1, 3, -1)
    thinker = ours.model.thinker
    x = thinktalk.messages.Embedded(embeds=thinker.embed(token_ids), positions=positions)
    mine = thinker.logits(thinker(x))
    # float32 through seven layers; a packed matrix read without its scale is off by its whole size
    torch.testing.assert_close(mine, theirs.thinker(input_ids=token_ids).logits, atol=1e-4, rtol=1e-4)  # fmt: skip


@torch.no_grad()
def test_the_same_wave(ours, theirs, monkeypatch):
    voice = ours.model.voices["Chelsie"]
    noise = torch.randn(2 * len(CODES), 80, generator=torch.Generator().manual_seed(0))
    mine = ours.code2wav(CODES, voice="Chelsie", noise=noise)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise[None])
    wave = theirs.token2wav(
        torch.tensor([CODES]), conditioning=voice.cond, reference_mel=voice.ref_mel
    )
    # as tests/parity/test_parity_end_to_end.py: float32 through 36 evaluations of the flow and the vocoder
    torch.testing.assert_close(torch.from_numpy(mine), wave.flatten(), atol=1e-4, rtol=0)
    assert len(mine) == 960 * len(CODES) and abs(mine).max() > 0.01
