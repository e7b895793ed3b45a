"""c2: the loss against sampling's own path utterance by utterance, borders, gradients, one batch learnt by heart."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import sample_many
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import DiTConfig, SpeakerEncoderConfig, Wav2CodeConfig
from thinktalk.training.c2_flow import FlowConfig, FlowStage, Utterances, begin, hide
from thinktalk.wav2code.encoder import SpeechTokenizer

pytestmark = pytest.mark.xdist_group("trained_world")  # which is trained once

CONFIG = DiTConfig(
    width=32, num_layers=3, num_heads=2, head_dim=16, code_width=16, num_codes=40, num_mels=16, block_frames=4,
    look_ahead_layers=(1,), look_backward_layers=(0, 2), speaker_width=8,
    speaker=SpeakerEncoderConfig(out_width=8, channels=(8, 8, 8, 8, 24), attention_channels=4, se_channels=4),
)  # fmt: skip


def make(**config) -> FlowStage:
    torch.manual_seed(0)
    drawn = FlowConfig(**{"reference_frames": (6, 12), "draft_until": 0.0, **config})
    return FlowStage(DiT(CONFIG), drawn)


def batch(seed: int = 0, *, references: bool = False) -> Utterances:
    g = torch.Generator().manual_seed(seed)
    lengths = [11, 5, 8, 12, 3]
    return Utterances(
        codes=[torch.randint(1, 41, (n,), generator=g) for n in lengths],
        mels=[torch.randn(16, 2 * n, generator=g) for n in lengths],
        references=[torch.randn(16, 9 + i, generator=g) for i in range(5)] if references else None,
        voices=torch.randn(5, 8, generator=g) if references else None,
    )


def draw_of(stage: FlowStage, data: Utterances, seed: int = 3):
    return stage.draw(data, torch.Generator().manual_seed(seed))


def plain(stage: FlowStage, data: Utterances, draw) -> float:
    """Utterance by utterance through what sampling calls; a free one is the free half of a guided evaluation."""
    dit, total, count = stage.modules.dit, 0.0, 0.0
    for i, (codes, mel) in enumerate(zip(data.codes, data.mels, strict=True)):
        start, length = draw.samples[i]
        known = mel if data.references is None else data.references[i]
        sample = known[:, start : start + length].T if length else torch.zeros(dit.speaker.min_frames, 16)  # fmt: skip
        cond = torch.zeros(1, 8) if data.voices is None else data.voices[i : i + 1]
        condition = dit.condition([codes], [Voice("v", cond, sample[None], 0)], guided=True)
        x0, x1, t = draw.noise[i], mel.T, float(draw.times[i])
        x = condition.blocks.pack([(1 - t) * x0 + t * x1])
        said, free = dit(x, dit.modulate(draw.times[i : i + 1]).at(0), condition).chunk(2)
        (velocity,) = condition.blocks.unpack(free if draw.free[i] else said)
        error = (velocity - (x1 - x0)).square().mean(1)
        asked = torch.ones(len(error))
        if data.references is None and not draw.free[i]:
            asked[start : start + length] = 0
        total, count = total + float((error * asked).sum().detach()), count + float(asked.sum())
    return total / count


def compare(stage: FlowStage, data: Utterances, draw, expected: float) -> None:
    # float32 sums in another order
    assert stage.loss_of(data, draw)[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("references", [False, True])
def test_the_loss_is_what_sampling_would_get(references):
    stage, data = make(stream_share=0, free_share=0.4, start_share=0.3), batch(references=references)  # fmt: skip
    draw = draw_of(stage, data, seed=5)
    assert 0 < draw.free.sum() < 5 and (draw.times == 0).any() and not draw.no_after.any()
    expected = plain(stage, data, draw)
    compare(stage, data, draw, expected)
    # every input counts: codes, mel, noise, time, voice, and who is free
    others = [
        (replace(data, codes=[c % 40 + 1 for c in data.codes]), draw),
        (replace(data, mels=[m * 1.1 for m in data.mels]), draw),
        (data, replace(draw, noise=[x * 1.1 for x in draw.noise])),
        (data, replace(draw, times=(draw.times + 0.3).clamp(max=1))),
        (data, replace(draw, samples=[(s + 1, n - 1) if n > 5 else (s, n) for s, n in draw.samples])),
        (data, replace(draw, free=~draw.free)),
    ]  # fmt: skip
    for other, other_draw in others:
        with pytest.raises(AssertionError):
            compare(stage, other, other_draw, expected)


def velocities(stage: FlowStage, codes, x, *, no_after, no_before):
    dit = stage.modules.dit
    voice = Voice("v", torch.zeros(1, 8), torch.zeros(1, 9, 16), 0)
    condition = dit.condition([codes], [voice], guided=False)
    P = len(condition.constant)
    marks = [torch.tensor([n in chosen for n in range(P)]) for chosen in (no_after, no_before)]
    blocks = hide(condition.blocks, no_after=marks[0], no_before=marks[1])
    condition = replace(condition, blocks=blocks)
    y = dit(blocks.pack([x]), dit.modulate(torch.tensor([0.4])).at(0), condition)
    return blocks.unpack(y)[0].detach()


def test_a_border_hides_what_comes_after():
    """Before a border everything is as if the utterance ended there; after one that forgets, as if it began there."""
    stage = make()
    g = torch.Generator().manual_seed(1)
    codes, x = torch.randint(1, 41, (9,), generator=g), torch.randn(18, 16, generator=g)
    cut = velocities(stage, codes, x, no_after=[1], no_before=[])
    ended = velocities(stage, codes[:4], x[:8], no_after=[], no_before=[])
    whole = velocities(stage, codes, x, no_after=[], no_before=[])
    torch.testing.assert_close(cut[:8], ended, rtol=1e-5, atol=1e-5)
    assert (cut[:8] - whole[:8]).abs().max() > 1e-3
    # what comes after still hears what was before ...
    moved = velocities(stage, codes, x + (torch.arange(18) < 8)[:, None], no_after=[1], no_before=[])  # fmt: skip
    assert (moved[8:12] - cut[8:12]).abs().max() > 1e-3
    # ... unless it forgets
    apart = velocities(stage, codes, x, no_after=[1], no_before=[2])
    moved = velocities(stage, codes, x + (torch.arange(18) < 8)[:, None], no_after=[1], no_before=[2])  # fmt: skip
    torch.testing.assert_close(moved[8:], apart[8:], rtol=1e-5, atol=1e-5)


def test_borders_of_one_utterance_stay_in_it():
    """no_before is no_after of the block before: the roll wraps around, where the layout hears nothing anyway."""
    stage, data = make(stream_share=1.0, forget_share=1.0), batch()
    draw = draw_of(stage, data)
    assert torch.equal(draw.no_before, draw.no_after.roll(1)) and draw.no_after.any()
    whole = draw_of(make(stream_share=0.0), data)
    a, b = stage.loss_of(data, draw)[0], stage.loss_of(data, replace(draw, no_after=whole.no_after, no_before=whole.no_before))[0]  # fmt: skip
    assert (a - b).abs() > 1e-4 * a


def test_draws_are_the_generators():
    stage, data = make(), batch()
    one, same, other = (draw_of(stage, data, seed) for seed in (1, 1, 2))
    assert torch.equal(one.times, same.times) and one.samples == same.samples
    assert all(torch.equal(a, b) for a, b in zip(one.noise, same.noise, strict=True))
    assert torch.equal(one.no_after, same.no_after)
    assert not torch.equal(one.times, other.times)
    for (start, length), mel in zip(one.samples, data.mels, strict=True):
        assert start + length <= mel.shape[1] and length <= mel.shape[1] // 2


def test_gradients_reach_everything():
    stage, data = make(free_share=0.0), batch(references=True)
    loss, _ = stage.loss(data, generator=torch.Generator().manual_seed(0))
    loss.backward()
    silent = {n for n, p in stage.modules.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == set()
    assert {id(p) for p in stage.trainable()} == {id(p) for p in stage.modules.parameters()}


def test_one_batch_is_learnt_by_heart():
    stage, data = make(free_share=0.0, start_share=0.5), batch(references=True)
    optimiser = torch.optim.AdamW(stage.trainable(), lr=4e-3)
    draw = draw_of(stage, data)
    losses = []
    for _ in range(45):
        loss, metrics = stage.loss_of(data, draw)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.modules.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0] and "start" in metrics


def test_the_draft_hears_codes_and_voices_alone_and_fades():
    stage, data = make(draft_until=0.5, free_share=0.3), batch(references=True)
    draw = draw_of(stage, data)
    flow = stage.loss_of(data, draw)[1]["flow"].item()
    seen = {}
    for stage.progress in (0.0, 0.25, 0.5, 1.0):
        loss, metrics = stage.loss_of(data, draw)
        assert ("draft" in metrics) == (stage.progress < 0.5)
        seen[stage.progress] = (loss.item() - flow) / float(metrics.get("draft", 1.0))
    assert seen == pytest.approx({0.0: 1.0, 0.25: 0.5, 0.5: 0.0, 1.0: 0.0}, abs=1e-5)
    stage.progress = 0.0

    def draft(data, draw) -> float:
        return stage.loss_of(data, draw)[1]["draft"].item()

    before = draft(data, draw)
    other = replace(draw, noise=[2 * x for x in draw.noise], times=1 - draw.times)
    assert draft(data, other) == before  # neither noise nor time
    assert draft(replace(data, codes=[c % 40 + 1 for c in data.codes]), draw) != before
    assert draft(replace(data, mels=[m + 1 for m in data.mels]), draw) != before
    # who is free of codes is not asked what they say
    asked = next(i for i, free in enumerate(draw.free) if free)
    moved = [m + (i == asked) for i, m in enumerate(data.mels)]
    assert draft(replace(data, mels=moved), draw) == before
    stage.loss_of(data, draw)[0].backward()
    draft_head = stage.modules.draft
    assert (
        draft_head.num_layers == 2 and draft_head.out.weight.grad.any()
    )  # layer 1 hears the next block
    assert not any(name.startswith("draft") for name in dict(stage.parts()["dit"].named_parameters()))  # fmt: skip


def test_what_is_shown_is_what_is_spoken_now():
    stage = make()
    shown = [stage.show(batch(references=True), generator=torch.Generator().manual_seed(0)) for _ in range(2)]  # fmt: skip
    pixels = shown[0]["mel"].pixels
    assert torch.equal(pixels, shown[1]["mel"].pixels) and pixels.shape[2] == 2 * 22
    stage.modules.dit.output.bias.data += 3
    other = stage.show(batch(references=True), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(other["mel"].pixels, pixels)
    assert stage.show(batch(), generator=torch.Generator().manual_seed(0))["mel"].pixels.ndim == 3


def test_a_flow_begins_with_the_mean_and_with_codes_in_their_order():
    stage, mean = make(draft_until=0.3), torch.randn(16) - 6
    tokenizer = SpeechTokenizer(Wav2CodeConfig(num_mels=16, width=16, num_layers=0, num_heads=2, ffn_width=16, levels=(8, 5)))  # fmt: skip
    torch.manual_seed(1)
    begin(stage.modules, tokenizer=tokenizer, mean_mel=mean)
    dit, data = stage.modules.dit, batch()
    voice = Voice("v", torch.zeros(1, 8), torch.zeros(1, 9, 16), 0)
    condition = dit.condition([data.codes[0]], [voice], guided=False)
    x = condition.blocks.pack([data.mels[0].T])
    velocity = dit(x, dit.modulate(torch.tensor([0.4])).at(0), condition)
    torch.testing.assert_close(velocity, mean.expand_as(velocity))
    codes = dit.codes.weight[1:41].detach()
    assert 0.8 < codes.std() < 1.2
    grid = tokenizer.fsq.grid(torch.arange(40)) / tokenizer.fsq.grid(torch.arange(40)).std(0)
    pairs = torch.stack([torch.cdist(grid, grid).flatten(), torch.cdist(codes, codes).flatten()])
    # half of each embedding is its neighbours'; without begin the correlation is the diagonal's alone
    assert torch.corrcoef(pairs)[0, 1] > 0.7
    drawn = torch.randn(40, 16)
    other = torch.stack([pairs[0], torch.cdist(drawn, drawn).flatten()])
    assert torch.corrcoef(other)[0, 1] < 0.5


TABLE = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
"""The mel of codes 1, 2 and 3 in an easy world."""


@functools.cache
def trained_world() -> DiT:
    """A DiT that has learnt the easy world; leave its weights as they are."""
    stage = make(free_share=0.1, start_share=0.3, stream_share=0.3)
    optimiser = torch.optim.AdamW(stage.trainable(), lr=3e-3)
    g = torch.Generator().manual_seed(1)
    for _ in range(170):
        codes = [torch.randint(1, 4, (6,), generator=g) for _ in range(6)]
        mels = [TABLE[c - 1].repeat_interleave(2, 0).T for c in codes]
        data = Utterances(codes=codes, mels=mels, references=[torch.zeros(16, 9)] * 6)
        loss, _ = stage.loss(data, generator=g)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.modules.parameters(), 1.0)
        optimiser.step()
    return stage.modules.dit.requires_grad_(False)


def test_what_is_learnt_is_what_sampling_walks():
    """After training, sampling gives the mel of its codes, from any noise."""
    dit = trained_world()
    voice = Voice("v", torch.zeros(1, 8), torch.zeros(1, 9, 16), 0)
    codes, g = torch.tensor([1, 2, 3, 3, 1]), torch.Generator().manual_seed(2)
    (mel,) = sample_many(dit, [codes], [voice], generator=g, guidance=0.0, points=6)
    true = TABLE[codes - 1].repeat_interleave(2, 0).T
    shuffled = TABLE[codes.roll(1) - 1].repeat_interleave(2, 0).T
    error = (mel - true).abs().mean()
    assert error < 0.35 and error < 0.4 * (mel - shuffled).abs().mean(), error
