"""Flow: orders of the solvers, the times of the walk, the noise."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from thinktalk.code2wav.dit import Modulation
from thinktalk.code2wav.flow import METHODS, draw_noise, integrate, plan
from thinktalk.errors import ConfigError


class Decay:
    """A velocity field with a known path: dx/dt = -x cos(3 t), x(1) = x(0) exp(-sin(3) / 3)."""

    input = SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, free: bool = False):
        self.free, self.asked = free, []

    def modulate(self, times: Tensor) -> Modulation:
        return Modulation((), times)

    def __call__(self, x: Tensor, modulation: Modulation, condition: object) -> Tensor:
        self.asked.append(float(modulation.final))
        v = -x * torch.cos(3 * modulation.final)
        return torch.cat([v, 3 * v]) if self.free else v


UNGUIDED, GUIDED = SimpleNamespace(guided=False), SimpleNamespace(guided=True)


def solve(method: str, points: int, **kw) -> float:
    field = Decay(**kw)
    walk = plan(field, points=points, method=method, dtype=torch.float64)  # type: ignore[arg-type]
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    condition = GUIDED if kw else UNGUIDED
    return float(integrate(field, x, condition, walk, guidance=0.5))  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_convergence(method: str, order: int) -> None:
    """Twice the steps divide the error by 2^order: within 20 %, since the next term of the error is still felt."""
    exact = math.exp(-math.sin(3) / 3)
    coarse, fine = (abs(solve(method, points) - exact) for points in (33, 65))
    assert coarse / fine == pytest.approx(2**order, rel=0.2)


def test_order_notices_a_wrong_rule(monkeypatch) -> None:
    """Planted: the 3/8 rule with the weights of the other fourth-order rule is of first order."""
    from dataclasses import replace

    monkeypatch.setitem(METHODS, "rk4", replace(METHODS["rk4"], b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)))
    with pytest.raises(AssertionError):
        test_order_of_convergence("rk4", 4)


def test_evaluations_of_the_reference() -> None:
    """10 points are 9 steps of 4 stages; 28 of the 36 times differ, and those are embedded once."""
    field = Decay()
    walk = plan(field)  # type: ignore[arg-type]
    assert len(walk.modulation.final) == 28
    integrate(field, torch.ones(1, 1, 1), UNGUIDED, walk)  # type: ignore[arg-type]
    assert len(field.asked) == 36
    assert field.asked[0] == 0
    assert field.asked[-1] == 1
    sway = [1 - math.cos(math.pi / 2 * i / 9) for i in range(10)]
    assert walk.points.tolist() == pytest.approx(sway, abs=1e-6)  # float32 times
    even = plan(field, points=5, sway=None).points  # type: ignore[arg-type]
    assert even.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_guidance_pushes_away_from_the_free_velocity() -> None:
    """v + 0.5 (v - 3 v) = 0: the walk stands still."""
    assert solve("rk4", 4, free=True) == 1.0


def test_plans_that_are_none() -> None:
    with pytest.raises(ConfigError, match="rk4, midpoint, euler"):
        plan(Decay(), method="heun")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 2"):
        plan(Decay(), points=1)  # type: ignore[arg-type]


def test_noise_of_a_frame_does_not_depend_on_the_cuts() -> None:
    """A session draws window by window, a whole run at once: the same seed gives the same noise."""

    def draw(*frames: int) -> Tensor:
        g = torch.Generator().manual_seed(4)
        return torch.cat([draw_noise(n, 80, generator=g) for n in frames])

    whole = draw(100)
    assert torch.equal(draw(1, 24, 3, 72), whole)
    assert torch.equal(draw(24), whole[:24])
    assert not torch.equal(draw(100)[1:], whole[:-1])
