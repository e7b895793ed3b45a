"""Guided attention: which token a code says, and that the loss is the attention a layer really pays."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import groupby

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sample_house import tone
from talker_house import house, lines
from thinker_house import CONFIG, fresh, tokenizer

from thinktalk.data.packing import pack, packed_hidden
from thinktalk.data.samples import Sample
from thinktalk.data.speech import PHONES, Augmentation
from thinktalk.data.words import word_times
from thinktalk.errors import ConfigError
from thinktalk.layers import attention
from thinktalk.messages import Embedded
from thinktalk.thinker.model import merge_media
from thinktalk.training.guide import guided, tokens_heard, tokens_said
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.lora import LoraConfig
from thinktalk.training.losses import IGNORE
from thinktalk.training.p2_joint import JointStage
from thinktalk.training.s1_sft import SftStage
from thinktalk.training.talker_batches import Task, phones_of
from thinktalk.training.talker_stage import TalkerStage, _spelt
from thinktalk.training.thinker_batches import Make

RECORD = {"phones": "ab cde.", "durations": [4, 2, 2, 1, 3, 3, 3, 2, 4], "frame_seconds": 0.1}
"""Silence to 0.4 s, "ab" to 0.8, a space to 0.9, "cde." to 2.0, silence to 2.4."""


def sentence(record) -> Task:
    """The task of a sentence alone."""
    messages = [
        {"role": "user", "content": "Read."},
        {"role": "assistant", "content": record["text"]},
    ]
    phones = phones_of(record, len(record["codes"]), 50.0)
    return Task(messages, {}, record["codes"], None, times=word_times(record), phones=phones)


@pytest.fixture(scope="module")
def parts(tiny_checkpoint):
    return house(tiny_checkpoint)


def test_words_have_the_times_of_their_phones() -> None:
    times = word_times(RECORD)
    assert [(round(a, 6), round(b, 6)) for a, b in times] == [(0.4, 0.8), (0.9, 2.0)]
    assert word_times(
        {f"answer_{k}": v for k, v in RECORD.items() if k != "frame_seconds"}, "answer_"
    ) == [(a / 4, b / 4) for a, b in times]
    assert word_times({"phones": "ab"}) is None
    assert word_times(RECORD | {"durations": [1, 2]}) is None


def test_each_code_says_a_token() -> None:
    """Ten codes a second; tokens "Hi", " th", "ere" end after 2, 5 and 8 letters; " th" at 0.9 + 2/5 of 1.1 s."""
    said = tokens_said("Hi there", [2, 5, 8], word_times(RECORD), 24, 10.0)
    assert said.tolist() == [0] * 8 + [1] * 5 + [2] * 7 + [3] * 4
    assert tokens_said("Hi there you", [2, 5, 12], word_times(RECORD), 24, 10.0) is None
    assert tokens_said("Hi there", [2, 5, 9], word_times(RECORD), 24, 10.0) is None
    assert tokens_said("Hi there", [2, 5, 8], None, 24, 10.0) is None


def test_a_lead_is_timed_before_the_sentence(parts) -> None:
    """The words of the sentence come as much later as the lead has codes."""
    _, kit = parts
    make = InContext(kit, Sentences({}, {}), Context())
    record = {"text": "Hi there.", "codes": [1] * 100, **RECORD}
    task = make._after(sentence(record), record, record["codes"])
    later = 100 / kit.codes_per_second
    assert task.times == [
        *word_times(record),
        *((a + later, b + later) for a, b in word_times(record)),
    ]
    line = kit.line(task)
    assert line.said is not None and len(line.said) == len(line.codes)
    names = dict(enumerate(PHONES.symbols, 1))
    heard = [names.get(n, "") for n in line.phones.tolist()[100:]]
    assert "".join(p for p, _ in groupby(heard)) == "abd", (
        "c and e are none of the alphabet, codes of them are not scored"
    )
    assert (line.said.diff() >= 0).all() and int(line.said.max()) <= len(line.reply)


@torch.no_grad()
def test_the_loss_is_what_the_first_heads_pay(parts, monkeypatch) -> None:
    """Weights as torch's own softmax has them inside the layers, float32 sums in another order."""
    model, kit = parts
    stage = TalkerStage(model, guide=0.5)
    asked = [replace(x, said=torch.arange(len(x.codes)) // 3) for x in lines(kit)]
    asked[1] = replace(asked[1], said=None)
    layout = stage.layout(asked, stage.tell(asked))
    paid: list[torch.Tensor] = []

    def spy(q, k, v, mask):
        T = q.shape[1]
        scores = q[:, :, 0] @ k[:, 0].transpose(1, 2) * q.shape[-1] ** -0.5
        paid.append(scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1))
        return original(q, k, v, mask)

    original = attention.attend
    monkeypatch.setattr(attention, "attend", spy)
    with guided(stage.talker, layout.said) as heads:
        stage.talker(layout.inputs)
    which = (layout.said[..., 0] != IGNORE).nonzero()
    inner = paid[1:-1] or paid[-1:]
    assert len(heads) == len(inner) > 0 and len(which) > 20
    for (loss, looked), weights in zip(heads, inner, strict=True):
        wanted = torch.stack([weights[b, t, layout.said[b, t, 0]] for b, t in which])
        assert float(loss) == pytest.approx(float(-wanted.log().mean()), rel=1e-5)
        assert float(looked) == pytest.approx(float(wanted.mean()), rel=1e-5)
    moved = torch.where(
        layout.said == IGNORE, IGNORE, layout.said - 1
    )  # planted: one slot too early
    with guided(stage.talker, moved) as wrong:
        stage.talker(layout.inputs)
    assert any(abs(float(a[0] - b[0])) > 1e-4 for a, b in zip(heads, wrong, strict=True))


@torch.no_grad()
def test_what_is_looked_at_is_the_token_that_was_told(parts) -> None:
    """The slot holds the token's own embedding and state; a token that is told only later is not asked for."""
    model, kit = parts
    stage = TalkerStage(model)
    line = lines(kit)[1]
    line = replace(line, said=torch.arange(len(line.codes)) // 2)
    told = stage.tell([line])
    layout = stage.layout([line], told)
    P, codes = line.prompt.length, stage.talker.embed.weight
    for t in (2, 7, 11):
        slot, end = layout.said[0, P + 1 + t].tolist()
        assert end == slot + 1
        before = line.codes[slot - P - 2]
        token = layout.inputs.embeds[0, slot] - codes[before]
        assert F.mse_loss(token, told[0].reply[int(line.said[t])]) < 1e-10
    early = replace(line, said=torch.full_like(line.codes, 5))
    slots = stage.layout([early], told).said[0, P + 1 :, 0]
    assert (slots[:5] == IGNORE).all() and (slots[5 : len(line.codes)] == P + 1 + 5).all()


def test_phones_are_named_by_heads_that_are_thrown_away(parts) -> None:
    """Before the last layer that of each next code, two layers in those of each token; the Talker alone is exported."""
    model, kit = parts
    torch.manual_seed(0)
    stage, plain = TalkerStage(model, phones=0.5), TalkerStage(model)
    asked = lines(kit)
    bare = float(plain.loss(asked, generator=torch.Generator())[0].detach())
    unknown, seen = stage.loss(asked, generator=torch.Generator())
    assert float(unknown.detach()) == bare and float(seen["named"]) == float(seen["spelt"]) == 0
    labelled = [replace(x, phones=torch.arange(len(x.codes)) % 5) for x in asked]
    labelled[1].phones[3:9] = IGNORE
    told = [replace(x, said=torch.arange(len(x.codes)) // 3) for x in labelled]
    loss, _ = stage.loss(labelled, generator=torch.Generator())
    both, seen = stage.loss(told, generator=torch.Generator())
    layout = stage.layout(told, stage.tell(told))
    given = {}
    hooks = [layer.register_forward_pre_hook(lambda layer, args, n=n: given.update({n: args[0]})) for n, layer in enumerate(stage.talker.layers)]  # fmt: skip
    stage.talker(layout.inputs)
    for hook in hooks:
        hook.remove()
    last, early = given[len(given) - 1], given[min(2, len(given) - 1)]
    naming = F.cross_entropy(stage.namer(last).flatten(0, 1), layout.phones.flatten())
    spelling = F.cross_entropy(stage.speller(early).reshape(-1, len(PHONES) + 1), layout.spelt.flatten())  # fmt: skip
    assert float((loss - bare).detach()) == pytest.approx(0.5 * float(naming.detach()), rel=1e-4)
    assert float((both - loss).detach()) == pytest.approx(0.5 * float(spelling.detach()), rel=1e-4)
    both.backward()
    assert stage.namer.weight.grad.any() and stage.speller.weight.grad.any()
    assert set(stage.parts()) == {"talker"}
    late = [replace(x, phones=x.phones.roll(1)) for x in labelled]  # planted: one code late
    assert (
        abs(float(stage.loss(late, generator=torch.Generator())[0].detach() - loss.detach())) > 1e-4
    )


def test_a_token_is_spelt_where_it_is_read(parts) -> None:
    """Phones of its codes, one after the other, once each: neither silence nor what is not known, and as many as are learned."""
    _, kit = parts
    line = lines(kit)[0]
    n, R, P = 12, 3, line.prompt.length
    line = replace(
        line, codes=torch.arange(1, n + 1),
        said=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 3]), phones=torch.tensor([0, 7, 7, IGNORE, 1, 2, 1, 3, 4, 5, 6, 9]),
    )  # fmt: skip
    spelt = _spelt(line, P, R, torch.device("cpu"))
    known = (spelt != IGNORE).any(-1).nonzero().flatten().tolist()
    assert known == [P + 1, P + 2], "the third token says nothing, the end of the text is none"
    assert spelt[P + 1].tolist() == [7, 0, 0, 0, 0, 0] and spelt[P + 2].tolist() == [1, 2, 1, 3, 4, 5]  # fmt: skip


def test_guiding_adds_its_share_and_nothing_without_labels(parts) -> None:
    model, kit = parts
    plain, stage = TalkerStage(model), TalkerStage(model, guide=0.5)
    asked = lines(kit)
    bare = [float(x.loss(asked, generator=torch.Generator())[0].detach()) for x in (plain, stage)]
    assert bare[0] == bare[1]
    labelled = [replace(x, said=torch.arange(len(x.codes)) // 3) for x in asked]
    loss, seen = stage.loss(labelled, generator=torch.Generator())
    assert 0 < float(seen["looked"]) < 1 and float(loss.detach()) > bare[0] + 0.1
    loss.backward()
    assert all(not layer._forward_pre_hooks for layer in stage.talker.layers)


# --------------------------------------------------------------------------------------------------------- the Thinker


def test_each_token_is_heard_somewhere() -> None:
    """Ten slots a second, 22 of them, "Hi" to 0.8 s, "there" 0.9 to 2.0 s: one more on either side, never beyond the sound."""
    heard = tokens_heard("Hi there", [2, 5, 8], word_times(RECORD), 20, 10.0)
    assert heard.tolist() == [[3, 9], [8, 15], [12, 20]]
    assert tokens_heard("Hi there", [2, 5, 8], word_times(RECORD), 4, 10.0).tolist() == [[3, 4]] * 3
    assert tokens_heard("Hi there", [2, 5, 8], word_times(RECORD), 0, 10.0) is None
    assert tokens_heard("Hi you there", [2, 6, 12], word_times(RECORD), 20, 10.0) is None


SPOKEN = Sample(
    where="a.tar/0",
    record={"text": "Hi there", "seconds": 2.4, **RECORD},
    media={"wav": tone(2.4)},
)


def test_a_transcript_tells_where_it_is_heard() -> None:
    """Of what is asked of the sound alone, after its speed was changed; 25 slots a second."""
    make = Make(tokenizer(), CONFIG, max_tokens=4096, tasks=("repeat",), speech=0.0, guide=True)
    example = make(SPOKEN, torch.Generator())
    sound = (example.token_ids == CONFIG.thinker.ids.audio).nonzero().flatten()
    answer = (example.labels != IGNORE).nonzero().flatten()
    known = (example.heard[:, 0] != IGNORE).nonzero().flatten()
    assert (
        known.tolist() == (answer[:-1] - 1).tolist()
    )  # where they are predicted; the end is not heard
    first, last = example.heard[known[0]], example.heard[known[-1]]
    assert int(first[0] - sound[0]) == 9 and int(last[1] - sound[0]) == 51
    slow = replace(
        make,
        augmentation=Augmentation(speeds=(0.5,), room=0, noise=0, microphone=0, gain_db=(0, 0)),
    )
    later = slow(SPOKEN, torch.Generator())
    start = (later.token_ids == CONFIG.thinker.ids.audio).nonzero().flatten()[0]
    assert int(later.heard[:, 0].max() - start) > int(example.heard[:, 0].max() - sound[0]) + 10
    for other in (replace(make, tasks=("read",)), replace(make, guide=False)):
        assert other(SPOKEN, torch.Generator()).heard is None


def places_of(example, token: int) -> list[tuple[str, list[int]]]:
    """What is guided: the token that is predicted there, and its slots counted from the first one of the medium."""
    start = int((example.token_ids == token).nonzero()[0])
    known = (example.heard[:, 0] != IGNORE).nonzero().flatten().tolist()
    read = tokenizer().decode
    return [(read([int(example.token_ids[k + 1])]), (example.heard[k] - start).tolist()) for k in known]  # fmt: skip


def spelt(places: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """The tokens of each place in one piece."""
    return [("".join(t for t, _ in group), list(k)) for k, group in groupby(places, key=lambda p: tuple(p[1]))]  # fmt: skip


def test_answers_tell_where_things_are_seen_and_heard() -> None:
    """A picture of 4 x 4 tokens, a sound of 25 a second at half its speed; nothing where there are two pictures."""
    make = Make(tokenizer(), CONFIG, max_tokens=4096, speech=0.0, guide=True)
    pixels = io.BytesIO()
    Image.new("RGB", (112, 112), "white").save(pixels, "PNG")
    picture, asked = {"type": "image", "image": "png"}, {"type": "text", "text": "What is left?"}
    answer = {"role": "assistant", "content": "The red star."}
    things = [
        {"name": "ring", "colour": "blue", "box": [0.6, 0.6, 1, 1]},
        {"name": "star", "colour": "red", "box": [0, 0.2, 0.5, 0.4]},
    ]
    record = {"messages": [{"role": "user", "content": [picture, asked]}, answer], "things": things}
    shown = Sample(where="a.tar/0", record=record, media={"png": pixels.getvalue()})
    assert spelt(places_of(make(shown, torch.Generator()), CONFIG.thinker.ids.image)) == [(" red star", [4, 6])]  # fmt: skip
    two = [{"role": "user", "content": [picture, picture, asked]}, answer]
    assert make(replace(shown, record={**record, "messages": two}), torch.Generator()).heard is None
    assert replace(make, guide=False)(shown, torch.Generator()).heard is None
    sound = {"type": "audio", "audio": "wav"}
    events = [{"name": "star", "start": 0.2, "end": 0.4}]
    record = {"messages": [{"role": "user", "content": [sound, asked]}, answer], "events": events}
    heard = Sample(where="a.tar/1", record=record, media={"wav": tone(1.0)})
    slow = replace(
        make,
        augmentation=Augmentation(speeds=(0.5,), room=0, noise=0, microphone=0, gain_db=(0, 0)),
    )
    assert spelt(places_of(slow(heard, torch.Generator()), CONFIG.thinker.ids.audio)) == [(" star", [10, 20])]  # fmt: skip


@torch.no_grad()
def test_rows_of_conversations_pay_as_each_alone() -> None:
    """Two transcripts in a row: the mean over both, float32 sums in another order; planted: segments that are not told."""
    make = Make(tokenizer(), CONFIG, max_tokens=4096, tasks=("repeat",), speech=0.0, guide=True)
    one = make(SPOKEN, torch.Generator())
    two = make(replace(SPOKEN, media={"wav": tone(1.9)}), torch.Generator().manual_seed(1))
    stage = JointStage(fresh(), guide=1.0)

    def pay(*examples, told: bool = True) -> list[list[float]]:
        row = pack(examples, pad_id=CONFIG.thinker.ids.pad)
        media, _ = stage.features(row)
        embeds, _ = merge_media(stage.thinker.embed(row.token_ids), row.token_ids, media)
        with guided(stage.thinker, row.heard, row.segments if told else None) as heads:
            packed_hidden(stage.thinker, Embedded(embeds, row.positions), row.segments)
        return [x.tolist() for x in heads]

    both, count = pay(one, two), [int((x.heard[:, 0] != IGNORE).sum()) for x in (one, two)]
    expected = [
        [(a * count[0] + b * count[1]) / sum(count) for a, b in zip(x, y, strict=True)]
        for x, y in zip(pay(one), pay(two), strict=True)
    ]
    for found, wanted in zip(both, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    wrong = pay(one, two, told=False)
    assert any(abs(a[0] - b[0]) > 1e-2 for a, b in zip(both, wrong, strict=True))


def test_the_thinker_is_guided_where_sound_is_labelled() -> None:
    make = Make(tokenizer(), CONFIG, max_tokens=4096, tasks=("repeat",), speech=0.0, guide=True)
    labelled = pack([make(SPOKEN, torch.Generator())], pad_id=CONFIG.thinker.ids.pad)
    plain, stage = JointStage(fresh()), JointStage(fresh(), guide=0.5)
    bare = float(plain.loss(labelled, generator=torch.Generator())[0].detach())
    stage.modules.requires_grad_()
    loss, seen = stage.loss(labelled, generator=torch.Generator())
    assert 0 < float(seen["looked"]) < 1 and float(loss.detach()) > bare + 0.1
    loss.backward()
    assert all(p.grad is not None for p in stage.audio.proj.parameters())
    quiet = replace(labelled, heard=None)
    assert float(stage.loss(quiet, generator=torch.Generator())[0].detach()) == bare


def test_adapters_are_not_guided() -> None:
    with pytest.raises(ConfigError, match="lora"):
        SftStage(fresh(), lora=LoraConfig(rank=2), guide=0.1)
