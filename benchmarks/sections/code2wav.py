"""Codes to wave: DiT, flow and BigVGAN against transformers on the same random weights, tiny and at the official widths.

The DiT is timed by whole flows (noise to mel, conditioning included) of few layers: every layer costs the same.
"exact" is the reference's walk (3/8 rule); "fast" is the midpoint rule on 6 points, 10 evaluations instead of 36, in bfloat16.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from reference import reference_config
from timing import Row, compare
from torch import Tensor, nn
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as hf

from thinktalk import config as cfg
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import sample
from thinktalk.code2wav.speaker import Voice
from thinktalk.weights.names import PART_PREFIXES, our_name

FAST = {"points": 6, "method": "midpoint"}


def rows(quick: bool) -> list[Row]:
    """All rows of the section."""
    with torch.inference_mode():
        return [*dit_rows(quick), *vocoder_rows(quick)]


def dit_rows(quick: bool) -> list[Row]:
    """Whole flows; 4 evaluations at real width (2 points), 36 against 10 for the fast path."""
    mine, theirs = dit_pair(cfg.tiny())
    out = [flow_row("tiny DiT, 1 s, exact", mine, theirs, 50, 10, repeats=3 if quick else 7)]
    layers, codes = (2, 100) if quick else (4, 250)
    config = cfg.omni_7b()
    assert config.code2wav is not None
    dit = replace(config.code2wav.dit, num_layers=layers, look_ahead_layers=(1,), look_backward_layers=(0,))  # fmt: skip
    mine, theirs = dit_pair(replace(config, code2wav=replace(config.code2wav, dit=dit)))
    name = f"DiT {codes / 50:.0f} s, {layers} layers"
    out.append(flow_row(f"{name}, exact", mine, theirs, codes, 2, repeats=2, target=1.2))
    half, codes = copy.deepcopy(mine).bfloat16(), min(codes, 100)
    name = f"DiT {codes / 50:.0f} s, {layers} layers"
    for label, model in (("fast, bfloat16", half), ("fast, float32", mine)):
        row = flow_row(
            f"{name}, {label}", model, theirs, codes, 10, repeats=1, target=5.0, flow=FAST
        )
        row.note = f"mel differs by {mel_distance(model, mine, codes):.1%} of its deviation"
        out.append(row)
    return out


def vocoder_rows(quick: bool) -> list[Row]:
    """One second of the tiny one; 1 s or 5 s at real size."""
    out = []
    for name, config, frames in (("tiny", cfg.tiny(), 100), ("real", cfg.omni_7b(), 100 if quick else 500)):  # fmt: skip
        assert config.code2wav is not None
        theirs = hf.Qwen2_5OmniToken2WavBigVGANModel(vocoder_config(config)).eval()
        mine = redraw(theirs, "vocoder", BigVGAN(config.code2wav.vocoder))
        mel = torch.randn(1, 80, frames) - 3
        out.append(
            compare(
                f"{name} BigVGAN, {frames / 100:.0f} s",
                lambda mine=mine, mel=mel: mine(mel),
                lambda theirs=theirs, mel=mel: theirs(mel),
                repeats=7 if name == "tiny" else 2,
            )
        )
    return out


def flow_row(name: str, mine: DiT, theirs: nn.Module, codes: int, points: int, *, flow: dict | None = None, **timing) -> Row:  # fmt: skip
    ids, noise, voice = utterance(codes)
    ours_flow = flow or {"points": points}
    return compare(
        name,
        lambda: sample(mine, ids, voice, noise=noise, **ours_flow),
        lambda: theirs.sample(voice.cond, voice.ref_mel, ids, num_steps=points),
        warmup=0 if flow else 1,
        **timing,
    )


def utterance(codes: int) -> tuple[Tensor, Tensor, Voice]:
    g = torch.Generator().manual_seed(1)
    voice = Voice("v", torch.randn(1, 192, generator=g), torch.randn(1, 300, 80, generator=g), 0)
    ids = torch.randint(0, 8193, (1, codes), generator=g)
    return ids, torch.randn(2 * codes, 80, generator=g), voice


def mel_distance(fast: DiT, exact: DiT, codes: int) -> float:
    """Root mean square difference of the fast mel from the exact one, over the exact one's deviation."""
    ids, noise, voice = utterance(codes)
    mel = sample(exact, ids, voice, noise=noise)
    return float((sample(fast, ids, voice, noise=noise, **FAST) - mel).square().mean().sqrt() / mel.std())  # fmt: skip


def dit_pair(config: cfg.OmniConfig) -> tuple[DiT, nn.Module]:
    assert config.code2wav is not None
    theirs = hf.Qwen2_5OmniToken2WavDiTModel._from_config(
        reference_config(config).token2wav_config.dit_config, attn_implementation="sdpa"
    ).eval()
    return redraw(theirs, "dit", DiT(config.code2wav.dit)), theirs


def vocoder_config(config: cfg.OmniConfig):
    return reference_config(config).token2wav_config.bigvgan_config


@torch.no_grad()
def redraw(theirs: nn.Module, part: str, mine: nn.Module) -> nn.Module:
    """Random weights of gain 1 on both sides: default ones make a flow that stands still and a silent vocoder."""
    generator = torch.Generator().manual_seed(0)
    for name, p in theirs.named_parameters():
        fan_in = 1 if "codec_embed" in name else p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()  # fmt: skip
        drawn = torch.randn(p.shape, generator=generator)
        p.add_(0.1 * drawn) if p.ndim == 1 else p.copy_(drawn / fan_in**0.5)
    mine.load_state_dict({our_name(PART_PREFIXES[part] + k)[1]: t for k, t in theirs.state_dict().items()})  # type: ignore[index] # fmt: skip
    return mine.eval()
