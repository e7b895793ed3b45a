"""Flow matching: noise (2n, 80) -> mel, by walking along the DiT's velocity from t = 0 to t = 1.

    dx/dt = v(x, t),    v = c + guidance (c - u)        c: conditioned, u: free velocity (Ho & Salimans 2022)
    t_i = s_i + sway (cos(pi/2 s_i) - 1 + s_i)          s_i evenly spaced; sway -1 gives 1 - cos (Chen et al. 2024, F5-TTS)

Letters: B rows, n codes, P blocks, F frames a block, M mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinktalk.code2wav.dit import Condition, DiT, Modulation, Timbre
from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError

__all__ = ["METHODS", "Plan", "draw_noise", "integrate", "plan", "sample", "sample_many"]

MIN_GUIDANCE = 1e-5  # below it the reference leaves the free half out


@dataclass(frozen=True)
class Method:
    """An explicit Runge-Kutta method: stage i looks at t + c_i h, at x + h sum_j a_ij k_j; the step is h sum_i b_i k_i."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


METHODS = {
    "rk4": Method(  # Kutta's 3/8 rule, as the reference
        (0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),
    "midpoint": Method((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "euler": Method((0,), ((),), (1,)),
}


@dataclass(frozen=True)
class Plan:
    """The walk: when the velocity is asked, and what the DiT needs to know of those times; good for any utterance."""

    method: Method
    points: Tensor  # (points,) times between steps, on the CPU
    modulation: Modulation  # of the distinct stage times
    stages: tuple[
        tuple[int, ...], ...
    ]  # for each step, for each stage: its index in the modulation


def plan(
    dit: DiT,
    *,
    points: int = 10,
    sway: float | None = -1.0,
    method: str = "rk4",
    dtype: torch.dtype = torch.float32,
) -> Plan:
    """A walk of points - 1 steps. ConfigError for fewer than two points or an unknown method."""
    if method not in METHODS:
        raise ConfigError(f"flow method {method!r}: expected one of {', '.join(METHODS)}")
    if points < 2:
        raise ConfigError(f"flow points {points}: expected at least 2 (one step)")
    rule = METHODS[method]
    t = torch.linspace(0, 1, points, dtype=dtype)
    if sway is not None:
        t = t + sway * (torch.cos(torch.pi / 2 * t) - 1 + t)
    start, end = t[:-1], t[1:]
    # the last stage of a step is the first of the next: their times must be the same number
    times = torch.stack([end if c == 1 else start + c * (end - start) for c in rule.c], 1)
    distinct, index = times.unique(return_inverse=True)
    modulation = dit.modulate(distinct.to(dit.input.weight.device))
    return Plan(rule, t, modulation, tuple(map(tuple, index.tolist())))


def integrate(
    dit: DiT, x_PFM: Tensor, condition: Condition, walk: Plan, *, guidance: float = 0.5
) -> Tensor:
    """Blocks of noise (P, F, M) to blocks of mel, along the plan; x keeps its dtype, the DiT computes in its own."""

    def velocity(x: Tensor, stage: int) -> Tensor:
        v = dit(x, walk.modulation.at(stage), condition).to(x.dtype)
        if not condition.guided:
            return v
        conditioned, free = v.chunk(2)
        return conditioned + (conditioned - free) * guidance

    steps = (walk.points[1:] - walk.points[:-1]).tolist()
    for h, stages in zip(steps, walk.stages, strict=True):
        slopes: list[Tensor] = []
        for weights, stage in zip(walk.method.a, stages, strict=True):
            slopes.append(velocity(_move(x_PFM, h, weights, slopes), stage))
        x_PFM = _move(x_PFM, h, walk.method.b, slopes)
    return x_PFM


def _move(x: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """x + h * sum of weighted slopes."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = torch.add(x, slope, alpha=h * weight)
    return x


def draw_noise(frames: int, num_mels: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Noise (frames, num_mels) of a flow, float32, from `generator` or torch's own.

    On the CPU a frame's noise depends on the seed and its absolute index only, however the draws are cut (num_mels
    being a multiple of 16, the vector width of torch's normal generator).
    """
    device = generator.device if generator is not None else None
    return torch.randn(frames, num_mels, generator=generator, device=device)


@torch.inference_mode()
def sample_many(
    dit: DiT,
    codes: Sequence[Tensor],
    voices: Sequence[Voice | Timbre],
    *,
    noise: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    points: int = 10,
    guidance: float = 0.5,
    sway: float | None = -1.0,
    method: str = "rk4",
    walk: Plan | None = None,
) -> list[Tensor]:
    """Mels (80, 2n) of several utterances of any lengths, codes (n,) each, in one batch of blocks.

    `noise` (2n, 80) each fixes the result; otherwise it is drawn in order from `generator` (or torch's own).
    `walk`, made by plan(), spares repeated calls the time embedding. InputError as DiT.condition.
    """
    bands = dit.config.num_mels
    condition = dit.condition(codes, voices, guided=guidance >= MIN_GUIDANCE)
    blocks = condition.blocks
    if noise is None:
        noise = [draw_noise(n, bands, generator=generator) for n in blocks.frames]
    for given, frames in zip(noise, blocks.frames, strict=True):
        if given.shape != (frames, bands):
            raise InputError(f"noise: got shape {tuple(given.shape)}, expected {(frames, bands)}, a row for each mel frame")  # fmt: skip
    if walk is None:
        walk = plan(dit, points=points, sway=sway, method=method, dtype=noise[0].dtype)
    x_PFM = blocks.pack([x.to(condition.constant.device) for x in noise])
    mel_PFM = integrate(dit, x_PFM, condition, walk, guidance=guidance)
    return [mel.T for mel in blocks.unpack(mel_PFM)]


def sample(
    dit: DiT,
    codes: Tensor,
    voice: Voice,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    points: int = 10,
    guidance: float = 0.5,
    sway: float | None = -1.0,
    method: str = "rk4",
) -> Tensor:
    """Mel (B, 80, 2n) of codes (B, n) spoken by one voice; `noise` is (B, 2n, 80), or (2n, 80) for B = 1.

    The defaults are the reference's: 10 points of the 3/8 rule, 36 evaluations. InputError as DiT.condition.
    """
    if noise is not None and noise.ndim == 2:
        noise = noise[None]
    rows = sample_many(
        dit, list(codes), [voice] * len(codes), noise=None if noise is None else list(noise),
        generator=generator, points=points, guidance=guidance, sway=sway, method=method,
    )  # fmt: skip
    return torch.stack(rows)
