"""Random checkpoints: the same seed is the same bytes, and under their weights every input moves the output."""

from dataclasses import replace

import pytest
import torch

from thinktalk import config as cfg
from thinktalk.code2wav.model import Code2Wav
from thinktalk.messages import Embedded
from thinktalk.weights.files import SINGLE
from thinktalk.weights.hf import load
from thinktalk.weights.random import random_checkpoint, random_model, random_voices

MOVES = 0.01  # of the largest sample: 100 times the tolerance of waveforms (1e-4)
TEXT_MOVES = 1e-3  # of the largest logit: 100 times the tolerance of parts (1e-5)


@pytest.fixture(scope="module", params=["tiny", "nano"])
def model(request):
    """Nano's language models are left out to save time: they are tiny's, only wider."""
    if request.param == "tiny":
        return random_model(cfg.tiny())
    return random_model(cfg.nano(), parts=("code2wav",))


def moves(run, first, *others, least=MOVES):
    with torch.inference_mode():
        base = run(*first)
        assert base.isfinite().all()
        for other in others:
            change = (run(*other) - base).abs().max() / base.abs().max()
            assert change > least, change


def test_sound_hears_every_input(model):
    config = model.config.code2wav
    speak = Code2Wav(model.dit, model.vocoder, config)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(1, config.dit.num_codes, (30,), generator=generator)
    noise = torch.randn(60, config.dit.num_mels, generator=generator)
    voices = list(random_voices(model.config).values())
    voice = voices[0]
    other_code = codes.clone()
    other_code[7] = (codes[7] + 500) % config.dit.num_codes

    def run(codes, voice, noise):
        wave = speak(codes, voice, noise=noise, points=3, method="euler")
        assert (
            wave.std() > 0.01 and (wave.abs() >= 1).float().mean() < 0.2
        )  # neither silent nor clipped flat
        return wave

    moves(
        run,
        (codes, voice, noise),
        (other_code, voice, noise),
        (codes, replace(voice, cond=voices[1].cond), noise),
        (codes, replace(voice, ref_mel=voices[1].ref_mel), noise),
        (codes, voice, noise + 0.1 * torch.randn(noise.shape, generator=generator)),
    )


def test_text_hears_every_input():
    model = random_model(cfg.tiny(), parts=("thinker", "talker"))
    generator = torch.Generator().manual_seed(0)
    mel, patches = (
        torch.randn(1, 128, 260, generator=generator),
        torch.randn(64, 1176, generator=generator),
    )
    ids = torch.randint(0, 700, (1, 6), generator=generator)

    def run(mel, patches, ids):
        seen = model.vision.encode([patches], [(1, 8, 8)])[0][None]
        embeds = torch.cat([model.audio(mel), seen, model.thinker.embed(ids)], 1)
        positions = torch.arange(embeds.shape[1]).expand(1, 3, -1)
        return model.thinker.logits(model.thinker(Embedded(embeds, positions))[:, -1])

    louder, brighter, other = mel.clone(), patches.clone(), ids.clone()
    louder[..., 30] += 1
    brighter[9] += 1
    other[0, 2] = (ids[0, 2] + 1) % 700
    others = (louder, patches, ids), (mel, brighter, ids), (mel, patches, other)
    moves(run, (mel, patches, ids), *others, least=TEXT_MOVES)

    def codes(embeds, shift):
        positions = torch.arange(embeds.shape[1]).expand(1, 3, -1) * shift
        return model.talker.logits(model.talker(Embedded(embeds, positions))[:, -1])

    embeds = torch.randn(1, 5, 64, generator=generator)
    changed = embeds.clone()
    changed[0, 1] += 0.3
    moves(codes, (embeds, 1), (changed, 1), (embeds, 3), least=TEXT_MOVES)


def test_a_seed_is_its_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        random_checkpoint(cfg.tiny(), tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / SINGLE).read_bytes() for name in "abc")
    assert a == b != c
    parts = random_model(cfg.tiny(), seed=5, parts=("talker",))
    assert torch.equal(parts.talker.head.weight, load(tmp_path / "a").talker.head.weight)
