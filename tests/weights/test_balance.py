"""A balanced Thinker computes what it did, of everything it reads; only what the Talker hears of it is another sum."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import thinktalk
from thinktalk.cli.main import main
from thinktalk.errors import ConfigError
from thinktalk.pipeline import embed, recite
from thinktalk.prompt import build_prompt
from thinktalk.weights import balance as module
from thinktalk.weights.balance import balance, loudness


@pytest.fixture(scope="module")
def omni(tiny_checkpoint):
    return thinktalk.load(tiny_checkpoint, dtype="float32")


def asked(omni):
    """Words, a sound and a picture."""
    draw = np.random.default_rng(0)
    content = [
        {"type": "audio", "audio": (draw.standard_normal(24_000).astype(np.float32) * 0.1, 16_000)},
        {"type": "image", "image": draw.integers(0, 255, (56, 84, 3), dtype=np.uint8)},
        {"type": "text", "text": "What is this?"},
    ]
    return build_prompt([{"role": "user", "content": content}], tokenizer=omni.tokenizer, config=omni.config, speech=True)  # fmt: skip


def read(omni, model):
    """Logits, embeddings and hidden states of a prompt and an answer."""
    (thought,) = recite(model, embed(model, [asked(omni)]), [[5, 6, 7, 8]])
    hidden = torch.cat([chunk.hidden for chunk in thought.chunks], 1)
    heard = torch.cat([chunk.embeds for chunk in thought.chunks], 1)
    return model.thinker.logits(hidden), heard, hidden


@pytest.mark.parametrize("factor", [6.0, 0.25])
def test_it_computes_what_it_did(omni, factor):
    other = balance(copy.deepcopy(omni.model), factor)
    (logits, e, h), (same, larger, smaller) = read(omni, omni.model), read(omni, other)
    assert torch.allclose(logits, same, atol=2e-4 * float(logits.abs().max()))
    assert torch.allclose(larger, factor * e, rtol=1e-5)
    assert torch.allclose(smaller, h / factor, atol=2e-4 * float(h.abs().max()) / factor)
    was, now = loudness(omni.model), loudness(other)
    assert now == pytest.approx((was[0] * factor, was[1] / factor), rel=1e-5)


@pytest.mark.parametrize("left_out", [0, 1, 2, "audio", "vision"])
def test_a_tensor_that_is_forgotten_shows(omni, monkeypatch, left_out):
    real = module._larger
    copied = copy.deepcopy(omni.model)
    known = {
        "audio": lambda t: t is copied.audio.proj.weight, "vision": lambda t: t is copied.vision.merger.down.weight,
    }  # fmt: skip
    drop = known.get(left_out, lambda t: t is list(real(copied))[left_out])
    monkeypatch.setattr(module, "_larger", lambda model: (t for t in real(model) if not drop(t)))
    logits, other = read(omni, omni.model)[0], read(omni, balance(copied, 6.0))[0]
    assert not torch.allclose(logits, other, atol=1e-3 * float(logits.abs().max()))


def test_by_command(tiny_checkpoint, omni, tmp_path, capsys):
    out = tmp_path / "balanced"
    assert main(["convert", str(tiny_checkpoint), str(out), "--balance", "6"]) == 0
    assert "hidden states" in capsys.readouterr().out
    again = thinktalk.load(out, dtype="float32")
    assert torch.allclose(read(omni, omni.model)[0], read(omni, again.model)[0], atol=1e-3)
    for stage in ("talker", "dit", "vocoder"):
        for name, tensor in omni.model.stages()[stage].state_dict().items():
            assert torch.equal(tensor, again.model.stages()[stage].state_dict()[name]), name
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "no"), "--balance", "2", "--dtype", "float16"]) == 2  # fmt: skip
    assert "--dtype: not together with --balance" in capsys.readouterr().err
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "no"), "--balance", "2", "--pack"]) == 2  # fmt: skip
    assert "--balance: not together with --pack" in capsys.readouterr().err


def test_what_cannot_be_balanced(omni):
    with pytest.raises(ConfigError, match="balance: 0, expected a number above 0"):
        balance(omni.model, 0)
    bare = copy.copy(omni.model)
    bare.thinker = None
    with pytest.raises(ConfigError, match="has no Thinker"):
        balance(bare, 2.0)
