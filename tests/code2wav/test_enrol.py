"""Enrolling: a frozen DiT tells which `cond` explains a clip, frames it was not fitted to among them; who is nearest."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from thinktalk.code2wav import enrol
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.enrol import fit_cond, has_cond, nearest
from thinktalk.code2wav.flow import sample
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import DiTConfig, SpeakerEncoderConfig
from thinktalk.errors import ConfigError, InputError

CONFIG = DiTConfig(
    width=32, num_layers=2, num_heads=2, head_dim=16, code_width=8, num_codes=50, block_frames=8, num_mels=16,
    look_ahead_layers=(1,), look_backward_layers=(0,), speaker_width=16,
    speaker=SpeakerEncoderConfig(
        out_width=6, channels=(8, 8, 8, 16), kernels=(5, 3, 3, 1), dilations=(1, 2, 3, 1), attention_channels=4, se_channels=4
    ),
)  # fmt: skip
BLOCKS = 40
CODES = torch.randint(1, 50, (BLOCKS * 4,), generator=torch.Generator().manual_seed(0))


def voice(seed: int, size: float = 1.0) -> Voice:
    g = torch.Generator().manual_seed(seed)
    cond = size * torch.randn(1, 16, generator=g)
    return Voice(f"v{seed}", cond, torch.randn(1, 30, 16, generator=g) - 4, seed)


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    model = DiT(CONFIG).requires_grad_(False)
    for p in model.parameters():
        p.normal_(std=0.1 if p.ndim == 1 else p[0].numel() ** -0.5)
    model.input.weight[:, -CONFIG.speaker_width :].mul_(3)  # this model listens to `cond`
    return model


@pytest.fixture(scope="module")
def clip(dit: DiT) -> Tensor:
    """Spoken by this very DiT with a `cond` of its own."""
    g = torch.Generator().manual_seed(2)
    return sample(dit, CODES[None], voice(1, 2.0), points=5, method="euler", guidance=0.0, generator=g)[0].T  # fmt: skip


def lowers(fit: enrol.Fit) -> None:
    """The law: frames that were not learnt from are explained better."""
    assert fit.after < 0.9 * fit.before, (fit.before, fit.after)


def test_fitting_lowers_the_flow_loss_of_held_out_frames(dit: DiT, clip: Tensor) -> None:
    before = {name: t.clone() for name, t in dit.state_dict().items()}
    steps: list[int] = []
    fit = fit_cond(dit, clip, voice(3).cond, codes=CODES, steps=40, on_step=steps.append)
    lowers(fit)
    assert steps == list(range(1, 41)) and fit.steps == 40
    assert fit.cond.shape == (1, 16) and fit.cond.isfinite().all() and not fit.cond.requires_grad
    # most of the way to what the vector reaches with which the clip was made
    truth = fit_cond(dit, clip, voice(1, 2.0).cond, codes=CODES, steps=0)
    assert truth.after == truth.before < fit.after < fit.before - 0.6 * (fit.before - truth.before)
    assert all(torch.equal(t, before[name]) for name, t in dit.state_dict().items())
    assert all(p.grad is None for p in dit.parameters())
    again = fit_cond(dit, clip, voice(3).cond, codes=CODES, steps=40)
    assert torch.equal(again.cond, fit.cond)  # a seed decides
    # without codes, by the null code: what is found serves with codes, too
    blind = fit_cond(dit, clip, voice(3).cond, steps=40)
    lowers(blind)
    told = fit_cond(dit, clip, blind.cond, codes=CODES, steps=0)
    assert truth.before < told.before < fit.before - 0.6 * (fit.before - truth.before)


@pytest.mark.parametrize("fault", ["uphill", "another clip", "deaf"])
def test_planted_fault_is_found(dit: DiT, clip: Tensor, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    learn = enrol._Clip.loss

    def loss(self, cond: Tensor) -> Tensor:
        match fault:
            case "uphill":
                return -learn(self, cond)
            case "another clip":
                self_mel, self.mel = self.mel, -self.mel
                try:
                    return learn(self, cond)
                finally:
                    self.mel = self_mel
            case _:
                return learn(self, cond.detach() + 0 * cond)

    monkeypatch.setattr(enrol._Clip, "loss", loss)
    fit = fit_cond(dit, clip, voice(3).cond, codes=CODES, steps=20)
    assert fit.after <= fit.before  # the start is always among the candidates
    with pytest.raises(AssertionError):
        lowers(fit)


def test_what_cannot_be_fitted_is_said(dit: DiT, clip: Tensor) -> None:
    with pytest.raises(InputError, match="has 5 blocks of 8 mel frames, expected at least 6"):
        fit_cond(dit, clip[:47], voice(3).cond)
    with pytest.raises(InputError, match="has 2 blocks"):
        fit_cond(dit, clip, voice(3).cond, codes=CODES[:11])
    small = DiT(CONFIG).requires_grad_(False)
    small.register_buffer("int8", torch.zeros(1, dtype=torch.int8))
    with pytest.raises(ConfigError, match="int8"):
        fit_cond(small, clip, voice(3).cond)


def test_who_goes_ends_the_fit(dit: DiT, clip: Tensor) -> None:
    class GoneError(Exception):
        pass

    def on_step(step: int) -> None:
        if step == 2:
            raise GoneError

    with pytest.raises(GoneError):
        fit_cond(dit, clip, voice(3).cond, on_step=on_step)


def test_the_nearest_voice_is_found_by_ear(dit: DiT) -> None:
    have = {name: voice(seed) for name, seed in (("a", 4), ("b", 5), ("c", 6))}
    for name, known in have.items():
        heard = known.ref_mel + 0.05 * torch.randn(1, 30, 16, generator=torch.Generator().manual_seed(9))  # fmt: skip
        # `cond` says nothing here: that of the clip is not known
        others = {n: dataclasses.replace(v, cond=torch.zeros(1, 16)) for n, v in have.items()}
        assert nearest(dit, heard, others) is others[name]
    assert has_cond(have) and not has_cond(others)
