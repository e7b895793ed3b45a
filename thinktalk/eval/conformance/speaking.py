"""Laws of speech: what the Talker reads and where it stands, how a code is drawn, when the flow asks.

prompt    e + h          e the embedding (0 where a medium stands), h the Thinker's last hidden state
opening   voice + codec pad, s_0 + codec bos
step t    s_t + code t-1      s = e + h of each reply token read, then text end, then text pad for ever
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from thinktalk.eval.conformance.invariant import Implementation, Invariant, Sampling, Speech

__all__ = ["INVARIANTS", "ORDERS"]

CLOSE = 1e-4  # of the largest value
ALIKE = 1e-5  # of a probability: a float32 softmax is 10 times nearer
FLOW_POINTS = 10


# --------------------------------------------------------------------------------------------------------------- Talker


def _inputs(implementation: Implementation, *, padded: bool) -> str | None:
    told = implementation.speech(padded=padded)
    want = _sums(told)
    if told.inputs_TD.shape != want.shape:
        return f"the Talker read {tuple(told.inputs_TD.shape)}, expected {tuple(want.shape)}"
    gap_T = (told.inputs_TD - want).abs().amax(1) / want.abs().max()
    if not (wrong := (gap_T > CLOSE).nonzero()[:, 0].tolist()):
        return None
    P = len(told.media_P)
    names = {P: "voice + codec pad", P + 1: "first word + codec bos"}
    first = wrong[0]
    what = names.get(first, f"prompt token {first}" if first < P else f"step {first - P - 1}")
    if first < P and bool(told.media_P[first]):
        what += " (a medium: its embedding must be zero here)"
    return f"{what} is {gap_T[first]:.1e} off; {len(wrong)} of {len(want)} inputs differ"


def _sums(told: Speech) -> Tensor:
    """The Talker's inputs (T, D) by the definition."""
    heard = told.prompt_embeds_PD.masked_fill(told.media_P[:, None], 0)
    said = told.reply_embeds_ND + told.reply_hidden_ND
    steps = 1 + len(told.codes_CD)
    s = torch.cat([said, told.words["text_end"][None], told.words["text_pad"].expand(steps, -1)])
    return torch.cat(
        [
            heard + told.prompt_hidden_PD,
            (told.words["voice"] + told.marks["pad"])[None],
            (s[0] + told.marks["bos"])[None],
            told.codes_CD + s[1:steps],
        ]
    )


def _ids(implementation: Implementation) -> str | None:
    """The prompt's own ids, two more after its last token, then on after the largest."""
    told = implementation.speech(padded=True)
    prompt = told.prompt_positions_3P
    here = prompt[:, -1].max()
    opening = torch.stack([here + 1, here + 2]).expand(3, 2)
    then = torch.maximum(prompt.max(), here + 2) + 1 + torch.arange(len(told.codes_CD))
    want = torch.cat([prompt, opening, then.expand(3, -1)], 1)
    if torch.equal(told.positions_3T, want):
        return None
    if told.positions_3T.shape != want.shape:
        return f"ids of shape {tuple(told.positions_3T.shape)}, expected {tuple(want.shape)}"
    first = int((told.positions_3T != want).any(0).nonzero()[0])
    return f"input {first} of {want.shape[1]} stands at {told.positions_3T[:, first].tolist()}, expected {want[:, first].tolist()}"  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- sampler


def _penalty(x: Tensor, said: Tensor, s: Sampling) -> Tensor:
    scores = x.gather(1, said)
    scores = torch.where(scores < 0, scores * s.repetition_penalty, scores / s.repetition_penalty)
    return x.scatter(1, said, scores)


def _suppress(x: Tensor, said: Tensor, s: Sampling) -> Tensor:
    return x.index_fill(1, torch.tensor(s.suppress), -torch.inf)


def _temperature(x: Tensor, said: Tensor, s: Sampling) -> Tensor:
    return x / s.temperature


def _top_k(x: Tensor, said: Tensor, s: Sampling) -> Tensor:
    return x.masked_fill(x < x.topk(s.top_k).values[:, -1:], -torch.inf)


def _top_p(x: Tensor, said: Tensor, s: Sampling) -> Tensor:
    ordered, index = x.sort(1)  # the tail first: drop it while its sum is at most 1 - p
    drop = ordered.softmax(1).cumsum(1) <= 1 - s.top_p
    drop[:, -1] = False
    return x.masked_fill(torch.zeros_like(drop).scatter(1, index, drop), -torch.inf)


Step = Callable[[Tensor, Tensor, Sampling], Tensor]
RIGHT: tuple[Step, ...] = (_penalty, _suppress, _temperature, _top_k, _top_p)
ORDERS: dict[str, tuple[Step, ...]] = {
    "top-p before top-k": (_penalty, _suppress, _temperature, _top_p, _top_k),
    "temperature after top-k and top-p": (_penalty, _suppress, _top_k, _top_p, _temperature),
    "temperature before the repetition penalty and it after top-k": (_suppress, _temperature, _top_k, _penalty, _top_p),
    "the repetition penalty last": (_suppress, _temperature, _top_k, _top_p, _penalty),
    "suppression last": (_penalty, _temperature, _top_k, _top_p, _suppress),
    "no repetition penalty": (_suppress, _temperature, _top_k, _top_p),
    "no suppression": (_penalty, _temperature, _top_k, _top_p),
}  # fmt: skip
"""Other orders, which give other probabilities."""


def drawn_from(order: tuple[Step, ...], logits: Tensor, said: Tensor, s: Sampling) -> Tensor:
    """Probabilities (B, V) float64 after the steps in this order."""
    x = logits.double()
    for step in order:
        x = step(x, said, s)
    return x.softmax(1)


def sampling_case() -> tuple[Tensor, Tensor, Sampling]:
    """Logits (4, 200), codes said (4, 12) among the likely ones, settings in which every step matters."""
    logits = 2 * torch.randn(4, 200, generator=torch.Generator().manual_seed(4))
    best = logits.topk(24).indices
    said = best[:, ::2]
    return logits, said, Sampling(top_k=12, repetition_penalty=1.3, suppress=tuple(best[:, 1].unique().tolist()))  # fmt: skip


def _sampler(implementation: Implementation) -> str | None:
    logits, said, settings = sampling_case()
    got = implementation.probabilities(logits, said, settings).double()
    far = (got - drawn_from(RIGHT, logits, said, settings)).abs().max().item()
    if far <= ALIKE:
        return None
    alike = [
        name
        for name, order in ORDERS.items()
        if (got - drawn_from(order, logits, said, settings)).abs().max() <= ALIKE
    ]
    return f"probabilities differ by {far:.1e}" + (f"; as with {alike[0]}" if alike else "")


# ----------------------------------------------------------------------------------------------------------------- flow


def _flow(implementation: Implementation) -> str | None:
    """9 steps of the 3/8 rule between 1 - cos(pi/2 i/9): thirds of each step, and its end."""
    points = [1 - math.cos(math.pi / 2 * i / (FLOW_POINTS - 1)) for i in range(FLOW_POINTS)]
    want = [a + c * (b - a) for a, b in itertools.pairwise(points) for c in (0, 1 / 3, 2 / 3, 1)]  # fmt: skip
    got = implementation.flow_times()
    if len(got) != len(want):
        return f"the DiT is asked {len(got)} times, expected {len(want)}"
    for n, (a, b) in enumerate(zip(got, want, strict=True)):
        if abs(a - b) > 1e-6:
            return f"evaluation {n} is at t = {a:.6f}, expected {b:.6f}"
    return None


INVARIANTS = (
    Invariant("talker.inputs", "the Talker reads embedding + hidden state (media: hidden state only), voice, then a word a code", functools.partial(_inputs, padded=True)),
    Invariant("talker.inputs-alone", "the same for a prompt without padding", functools.partial(_inputs, padded=False)),
    Invariant("talker.ids", "the Talker's ids are the prompt's, two more, then on after the largest", _ids),
    Invariant("sampler.order", "repetition penalty, suppression, temperature, top-k, top-p, one draw", _sampler),
    Invariant("flow.times", "ten points 1 - cos(pi/2 i/9), the 3/8 rule between them: 36 evaluations", _flow),
)  # fmt: skip
