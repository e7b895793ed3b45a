"""The speech tokenizer: the streaming law, clips apart from each other, counts of codes, the ears' weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from law import check_law

from thinktalk.config import AudioEncoderConfig, Wav2CodeConfig, nano
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.errors import ConfigError
from thinktalk.layers.mel import LogMel
from thinktalk.stream import Chain
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.wav2code.pieces import Pieces

SMALL = Wav2CodeConfig(
    num_mels=8, width=16, num_layers=1, num_heads=2, ffn_width=16, block_frames=12
)


def make(config: Wav2CodeConfig = SMALL, seed: int = 0) -> SpeechTokenizer:
    torch.manual_seed(seed)
    tokenizer = SpeechTokenizer(config)
    last = tokenizer.choice if tokenizer.fsq is None else tokenizer.fsq.down
    torch.nn.init.normal_(last.weight, std=1.0)  # codes that differ
    for conv in (tokenizer.conv1, tokenizer.conv2):  # ... by the sound, not by the place alone
        torch.nn.init.normal_(conv.weight)
    return tokenizer


def mel(batch, length, generator):
    return torch.randn(batch, SMALL.num_mels, length, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("pool", "choices"), [(1, 0), (2, 0), (3, 0), (2, 50)])
def test_codes_stream(pool, choices):
    check_law(make(replace(SMALL, pool=pool, choices=choices)), mel, max_length=40, examples=8)


def test_a_wave_streams_to_codes():
    config = Wav2CodeConfig(width=8, num_layers=1, num_heads=2, ffn_width=8, block_frames=8)

    def wave(batch, length, generator):
        return torch.randn(batch, length, generator=generator, dtype=torch.float64)

    chain = Chain(LogMel(block_frames=8), make(config))
    check_law(chain, wave, max_length=3000, min_length=400, examples=2)


class HearsTheNextBlock(SpeechTokenizer):
    """Planted fault: pieces of a clip run as one, so that codes depend on where chunks were cut."""

    def compute(self, x):
        self.block = x.shape[2]
        try:
            return super().compute(x)
        finally:
            self.block = self.config.block_frames


def test_a_tokenizer_that_cheats_is_found():
    cheat = HearsTheNextBlock(SMALL)
    cheat.load_state_dict(make().state_dict())
    with pytest.raises(AssertionError, match=r"law|fork|rows"):
        check_law(cheat, mel, max_length=40, examples=4)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 11, 12, 13, 15, 16, 24, 31])
def test_counts_of_codes(length):
    (codes,) = make().encode([torch.zeros(SMALL.num_mels, length)])
    whole, rest = divmod(length, SMALL.block_frames)
    assert codes.shape == (whole * 3 + rest // 4,)
    assert codes.dtype == torch.int64


def test_clips_do_not_hear_each_other():
    tokenizer = make().double()
    generator = torch.Generator().manual_seed(3)
    clips = [mel(1, n, generator)[0] for n in (5, 40, 0, 13, 24, 3)]
    together = tokenizer.encode(clips)
    assert len(torch.cat(together).unique()) > 5
    for clip, codes in zip(clips, together, strict=True):
        assert torch.equal(tokenizer.encode([clip])[0], codes)
    assert all(SMALL.first_code <= c <= SMALL.num_codes for codes in together for c in codes)


def test_pieces_come_back_where_they_were():
    lengths = [5, 2, 0, 4, 7]
    clips = [torch.arange(n) + 100 * i for i, n in enumerate(lengths)]
    pieces = Pieces.cut(lengths, 3)
    packed = torch.cat([group.flatten() for group in pieces.stack(clips)])
    assert [n for _, n in pieces.runs] == [3, 2, 1]
    for clip, back in zip(clips, pieces.join(packed), strict=True):
        assert torch.equal(clip, back)


def test_it_takes_over_the_layers_of_the_ears():
    """A recogniser's lower layers are the tokenizer's: the same names, the same shapes."""
    ears = AudioEncoder(
        AudioEncoderConfig(
            num_mels=8, width=16, num_layers=3, num_heads=2, ffn_width=16, window_frames=6, out_width=8
        )
    )  # fmt: skip
    tokenizer = make()
    kept = {k: v for k, v in ears.state_dict().items() if k in tokenizer.state_dict()}
    assert {k.split(".")[0] for k in kept} == {"conv1", "conv2", "layers", "norm"}
    missing, unexpected = tokenizer.load_state_dict(kept, strict=False)
    assert not unexpected and all(name.startswith("fsq.") for name in missing)


def test_configurations_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"gives 50 codes/s, code2wav takes 25"):
        replace(nano(), wav2code=replace(nano().wav2code, pool=1))
    with pytest.raises(ConfigError, match=r"give codes to 4096, dit.num_codes is 1001"):
        replace(nano(), wav2code=replace(nano().wav2code, levels=(8, 8, 8, 8)))
    with pytest.raises(ConfigError, match="multiple"):
        replace(SMALL, block_frames=10)
    with pytest.raises(ConfigError, match="levels"):
        replace(SMALL, levels=(1,))
