"""Training and sampling are one: a Talker that knows seconds of speech by heart says them through pipeline.talk, and stops.

Greedy, with the repetition penalty of the reference (1.05: `Sampler.for_codes` takes it from the checkpoint's generation
settings) and with none. The penalty knows the three marks of the reference's prompt and every code said, never the end of speech.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talker_house import house, task

from thinktalk.code2wav.speaker import Voice
from thinktalk.pipeline import Options, embed, recite, talk
from thinktalk.thinker.sampling import Sampler
from thinktalk.training.talker_batches import Line
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.hf import OmniModel

SECONDS = (2.4, 1.6, 0.1)
"""The last is over before its words are: the Talker stops while the Thinker's reply still comes in."""


def speech(number: int, seconds: float) -> list[int]:
    """Codes as speech has them: a few dozen, in runs of one to four, that come again in other company."""
    chance = torch.Generator().manual_seed(number)
    codes: list[int] = []
    while len(codes) < round(50 * seconds):
        code = int(torch.randint(40, (), generator=chance)) * 101
        codes += [code] * int(torch.randint(1, 5, (), generator=chance))
    return codes[: round(50 * seconds)]


@pytest.fixture(scope="module")
def learnt(tiny_checkpoint: str) -> tuple[OmniModel, list[Line]]:
    """The tiny system, and what its Talker has learnt by heart."""
    model, kit = house(tiny_checkpoint)
    stage = TalkerStage(model)
    lines = [kit.line(task(n, 1), speech(n, s)) for n, s in enumerate(SECONDS)]
    told = stage.tell(lines)
    optimizer = torch.optim.AdamW(stage.talker.parameters(), lr=8e-3, betas=(0.9, 0.95))
    stage.tell = lambda batch: told  # what the Thinker tells does not change
    for _ in range(400):
        optimizer.zero_grad()
        loss, _ = stage.loss(lines, generator=torch.Generator())
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    assert float(loss.detach()) < 0.02
    return model, lines


def said(model: OmniModel, lines: list[Line], **changes: float) -> list[list[int]]:
    """What the Talker says by itself after the same words, in the same voices."""
    thoughts = recite(model, embed(model, [x.prompt for x in lines]), [x.reply for x in lines])
    voices = [Voice("x", torch.zeros(1, 8), torch.zeros(1, 8, 80), x.voice) for x in lines]
    generation = replace(model.config.generation, max_codes=200, **changes)
    return talk(model, thoughts, voices, Options(generation=generation, greedy=True))


@pytest.mark.parametrize("penalty", [1.0, 1.05])
def test_what_is_known_by_heart_is_said_and_ends(learnt, penalty):
    model, lines = learnt
    assert model.config.generation.code_repetition_penalty == 1.05  # the reference's
    assert said(model, lines, code_repetition_penalty=penalty) == [x.codes.tolist() for x in lines]


def test_what_is_fed_otherwise_is_not_said(learnt, monkeypatch):
    """Planted faults: places of codes that stand still, and words that come one step late."""
    model, lines = learnt
    right = [x.codes.tolist() for x in lines]
    late = [replace(line, reply=[line.reply[0], *line.reply]) for line in lines]
    assert said(model, late) != right
    step = model.talker.step

    def still(x, state, **options):
        return step(replace(x, positions=x.positions * 0 + 60) if x.length == 1 else x, state, **options)  # fmt: skip

    monkeypatch.setattr(model.talker, "step", still)
    assert said(model, lines) != right


def test_a_rare_end_is_drawn_often_while_all_codes_are_alike():
    """Why a young Talker stops at once: the end, at 2 % of 4,096 like codes, is one of the 40 that top-k leaves, at 68 %."""
    rows, codes = 2000, 4096
    likely = torch.linspace(0.999, 1.001, codes + 1) * 0.98 / codes  # top-k would keep all that tie
    likely[codes] = 0.02
    logits = likely.log().expand(rows, -1)
    for top_k, chance in ((0, 0.02), (40, 0.02 / (0.02 + 39 * 0.98 / codes))):
        sampler = Sampler(top_k=top_k)
        ends = (sampler(logits, sampler.init_state(rows, codes + 1, seeds=range(rows))) == codes).float().mean()  # fmt: skip
        assert abs(float(ends) - chance) < 4 * (chance * (1 - chance) / rows) ** 0.5
    assert chance > 0.6
