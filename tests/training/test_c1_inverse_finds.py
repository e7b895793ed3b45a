"""c1_inverse finds a decoder's codes again, told by nothing but the frozen decoder (slow: minutes of one core)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from thinktalk.weights.wav2code import load_tokenizer


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_codes_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The world of benchmarks/inverse.py, as in LOG.md: far more codes of unheard sentences than the likeliest one is."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import inverse

    torch.set_num_threads(1)
    first, second, third = inverse.make(tmp_path, (1200, 205, 228))
    told = inverse.found_again(tmp_path, first, third)
    assert told["codes_used"] > 6
    assert told["recovered"] > told["most_frequent"] + 0.3
    # the decoder is the one that was asked, and the encoder is another one
    assert (second / "dit.safetensors").read_bytes() == (third / "dit.safetensors").read_bytes()
    assert load_tokenizer(third).config != load_tokenizer(first).config
    # planted: an encoder that nobody taught finds what chance finds
    tokenizer = load_tokenizer(third)
    torch.manual_seed(0)
    for parameter in tokenizer.parameters():
        parameter.data.normal_(std=0.05)
    monkeypatch.setattr(inverse, "load_tokenizer", lambda at: tokenizer if at == third else load_tokenizer(at))  # fmt: skip
    lost = inverse.found_again(tmp_path, first, third)
    assert lost["recovered"] < told["most_frequent"] + 0.1
