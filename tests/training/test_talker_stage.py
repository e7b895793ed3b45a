"""The Talker's rows are what it reads when it runs; its loss is plain cross-entropy; only the Talker learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from talker_house import house, lines

from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError
from thinktalk.pipeline import Options, embed, recite, talk
from thinktalk.talker.prepare import TalkerFeed
from thinktalk.training.losses import IGNORE
from thinktalk.training.talker_batches import Task
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.hf import load


@pytest.fixture(scope="module")
def parts(tiny_checkpoint):
    return house(tiny_checkpoint)


@pytest.fixture
def stage(tiny_checkpoint):
    return TalkerStage(load(tiny_checkpoint, parts=("thinker", "talker"), dtype="float32"))


def spoken(model, asked, monkeypatch, most=7):
    """What pipeline.talk feeds to the Talker and the codes that came of it, row by row, each alone."""
    fed, step = [], model.talker.step
    monkeypatch.setattr(model.talker, "step", lambda x, *a, **k: (fed.append(x), step(x, *a, **k))[1])  # fmt: skip
    generation = replace(model.config.generation, max_codes=most)
    rows = []
    for line in asked:
        fed.clear()
        thoughts = recite(model, embed(model, [line.prompt]), [line.reply])
        voice = Voice("x", torch.zeros(1, 8), torch.zeros(1, 8, 80), line.voice)
        said = talk(model, thoughts, [voice], Options(generation=generation, seed=3))[0]
        embeds = torch.cat([x.embeds for x in fed], 1)[0]
        rows.append((said, embeds, torch.cat([x.positions for x in fed], 2)[0]))
    monkeypatch.undo()
    return rows


def distance(stage, asked, rows) -> float:
    """Largest difference between rows as they were fed and as they are learned."""
    asked = [replace(line, codes=torch.tensor(said)) for line, (said, _, _) in zip(asked, rows, strict=True)]  # fmt: skip
    layout = stage.layout(asked, stage.tell(asked))
    gaps = []
    for b, (said, embeds, positions) in enumerate(rows):
        n = len(embeds)  # the last code is not read any more
        assert n == asked[b].prompt.length + 1 + len(said)
        gaps.append((layout.inputs.embeds[b, :n] - embeds).abs().max())
        gaps.append((layout.inputs.positions[b, :, :n] - positions).abs().max().float())
    return float(torch.stack(gaps).max().detach())


def test_rows_are_what_talking_feeds(parts, stage, monkeypatch):
    """To 1e-4 of embeddings of size 1: the batch of the frozen part sums in another order than a row alone."""
    model, kit = parts
    asked = lines(kit)
    rows = spoken(model, asked, monkeypatch)
    assert distance(stage, asked, rows) < 1e-4
    # planted faults: another voice, an end of text that is not told, codes one step late, a shorter prompt
    other = [replace(line, voice=kit.anybody) for line in asked]
    assert distance(stage, other, rows) > 1e-2
    brief = [replace(line, reply=line.reply[:1]) for line in asked]
    assert distance(stage, brief, rows) > 1e-2
    late = [(said[1:] + said[:1], *rest) for said, *rest in rows]
    assert distance(stage, asked, late) > 1e-2


def test_rows_after_a_video_whose_positions_lie_above_the_text(stage, parts):
    """TalkerFeed lets the codes begin after the highest position, the opening after the last."""
    _, kit = parts
    line = lines(kit)[1]
    high = line.prompt.positions.clone()
    high[:, 3:6] += 100
    asked = [replace(line, prompt=replace(line.prompt, positions=high))]
    told = stage.tell(asked)
    layout = stage.layout(asked, told)
    talker, thinker = stage.talker, stage.teller.model.thinker
    prompt, reply = recite(stage.teller.model, embed(stage.teller.model, [asked[0].prompt]), [line.reply])[0].chunks  # fmt: skip
    feed = TalkerFeed.start(talker, thinker.embed, voice_token=line.voice)
    pieces = [feed.prompt(prompt)]
    feed.reply(reply)
    feed.end()
    pieces += [feed.opening()] + [feed.next(talker.embed(c)[None, None]) for c in line.codes]
    assert torch.equal(layout.inputs.positions[0], torch.cat([p.positions for p in pieces], 2)[0])
    fed = torch.cat([p.embeds for p in pieces], 1)[0]
    torch.testing.assert_close(layout.inputs.embeds[0], fed, rtol=0, atol=1e-5)  # the same sums
    assert int(layout.inputs.positions.max()) > 100


def test_the_loss_is_cross_entropy_with_heavier_ends(stage, parts):
    """Against torch's own, row by row without padding; what is given is not scored."""
    _, kit = parts
    asked = lines(kit)
    asked[1] = replace(asked[1], given=10)
    asked[2] = replace(asked[2], complete=False)
    loss, seen = stage.loss(asked, generator=torch.Generator())
    loss, total, weight = loss.detach(), 0.0, 0.0
    eos = stage.talker.talker_config.codec_eos
    for line in asked:
        layout = stage.layout([line], stage.tell([line]))
        logits = stage.talker.logits(stage.talker(layout.inputs))[0]
        P, n = line.prompt.length, len(line.codes)
        scored = logits[P + 1 + line.given : P + 1 + n]
        total = total + F.cross_entropy(scored, line.codes[line.given :], reduction="sum")
        weight += n - line.given
        if line.complete:
            total = total + 3.0 * F.cross_entropy(logits[P + 1 + n], torch.tensor(eos))
            weight += 3.0
    assert float(loss) == pytest.approx(float(total.detach() / weight), rel=1e-5)  # float32 sums
    assert weight == stage.weight(asked)
    assert 0 <= float(seen["right"]) <= 1 and float(seen["stop"]) > 0
    plain = TalkerStage(stage.teller.model, eos_weight=1.0)
    assert abs(float(plain.loss(asked, generator=torch.Generator())[0].detach() - loss)) > 1e-4


def test_only_the_talker_learns(stage, parts):
    """Gradients reach every tensor of the Talker, its start and padding codes too, and nothing of the Thinker."""
    _, kit = parts
    stage.loss(lines(kit), generator=torch.Generator())[0].backward()
    for name, parameter in stage.talker.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    config, grad = stage.talker.talker_config, stage.talker.embed.weight.grad
    assert grad[config.codec_bos].abs().sum() > 0 and grad[config.codec_pad].abs().sum() > 0
    assert grad[config.codec_mask].abs().sum() == 0
    model = stage.teller.model
    frozen = [*model.thinker.parameters(), *model.audio.parameters(), *model.vision.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert set(stage.parts()) == {"talker"}


def test_one_batch_is_learned_by_heart(stage, parts):
    """Sixty steps: what the Talker then says by itself, greedily, are the codes, and it stops."""
    model, kit = stage.teller.model, parts[1]
    asked = lines(kit, (6, 8, 4))
    optimizer = torch.optim.AdamW(stage.talker.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for _ in range(60):
        optimizer.zero_grad()
        loss, seen = stage.loss(asked, generator=torch.Generator())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 and float(seen["right"]) == 1
    thoughts = recite(model, embed(model, [x.prompt for x in asked]), [x.reply for x in asked])
    voices = [Voice("x", torch.zeros(1, 8), torch.zeros(1, 8, 80), x.voice) for x in asked]
    generation = replace(model.config.generation, max_codes=20, code_repetition_penalty=1.0)
    said = talk(model, thoughts, voices, Options(generation=generation, greedy=True))
    assert said == [x.codes.tolist() for x in asked]


def test_states_from_the_cache_are_those_of_the_thinker(stage, parts, tmp_path):
    """Half precision: 1e-3 of sizes up to a few; another Thinker, another answer or another sound finds nothing."""
    _, kit = parts
    asked = lines(kit)
    model = stage.teller.model
    kept = TalkerStage(model, cache=tmp_path)
    first = kept.tell(asked)
    again = TalkerStage(model, cache=tmp_path)
    second = again.tell(asked)
    assert (again.teller.cache.hits, again.teller.cache.misses) == (4, 0)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.prompt, b.prompt, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(a.reply, b.reply, rtol=1e-3, atol=1e-3)
        assert torch.equal(a.positions, b.positions)
    louder = replace(asked[1].prompt, audio=[mel + 0.01 for mel in asked[1].prompt.audio])
    for changed in (replace(asked[1], prompt=louder), replace(asked[1], reply=asked[1].reply[:-1])):
        assert again.teller.cache.find(changed.prompt, changed.reply) is None
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(b"cut")
    assert len(TalkerStage(model, cache=tmp_path).tell(asked)) == 4
    model.thinker.norm.weight.data[0] += 1
    other = TalkerStage(model, cache=tmp_path)
    model.thinker.norm.weight.data[0] -= 1
    assert other.teller.cache.find(asked[1].prompt, asked[1].reply) is None


def test_in_bfloat16_the_loss_is_about_the_same(stage, parts):
    asked = lines(parts[1])
    whole = stage.loss(asked, generator=torch.Generator())[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = stage.loss(asked, generator=torch.Generator())[0]
    half.backward()
    whole, half = whole.detach(), half.detach()
    # eight bits of mantissa through three random layers; the loss itself is about 9.6
    assert float(half) == pytest.approx(float(whole), rel=0.03)


def test_what_cannot_be_said_is_named(parts, tiny_checkpoint):
    model, kit = parts
    task = Task([{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "Hi."}], {}, None, None, name="a.tar/7")  # fmt: skip
    with pytest.raises(InputError, match=r"a.tar/7: has no codes.*data codes"):
        kit.line(task)
    with pytest.raises(InputError, match="code 9000, expected codes below 8193"):
        kit.line(task, [1, 9000])
    with pytest.raises(InputError, match="3 codes, expected at most 2"):
        replace(kit, max_codes=2).line(task, [1, 2, 3])
    silent = replace(task, messages=[task.messages[0], {"role": "assistant", "content": ""}])
    with pytest.raises(InputError, match="no words"):
        kit.line(silent, [1])
    with pytest.raises(ConfigError, match="no Talker to train"):
        TalkerStage(load(tiny_checkpoint, parts=("thinker",)))
    with pytest.raises(ConfigError, match="learns from a Thinker"):
        TalkerStage(load(tiny_checkpoint, parts=("talker",)))
    assert kit.line(task, [5]).voice == kit.anybody == model.config.talker.text_start
    layout = TalkerStage(model).layout([kit.line(task, [5])], TalkerStage(model).tell([kit.line(task, [5])]))  # fmt: skip
    assert (layout.targets != IGNORE).sum() == 2


def test_some_of_its_own_codes_are_heard_wrong(stage, parts):
    """What is heard changes, what is to be said does not; none is wrong without being asked for."""
    model, kit = parts
    asked = lines(kit)
    wrong = TalkerStage(model, misheard=0.5)
    generator = torch.Generator().manual_seed(0)
    heard = wrong._misheard(asked, generator)
    assert heard is not None
    share = torch.cat([a != b.codes for a, b in zip(heard, asked, strict=True)]).float().mean()
    assert 0.3 < float(share) < 0.7
    pool = torch.cat([line.codes for line in asked])
    assert torch.isin(torch.cat(list(heard)), pool).all()
    told = wrong.tell(asked)
    plain, other = wrong.layout(asked, told), wrong.layout(asked, told, heard)
    assert torch.equal(plain.targets, other.targets)
    assert not torch.equal(plain.inputs.embeds, other.inputs.embeds)
    assert stage._misheard(asked, generator) is None
    assert wrong.loss(asked, generator=generator)[0] != stage.loss(asked, generator=generator)[0]
