"""k1: how tasks are drawn, so that the words of a sentence never have to tell its voice."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from sample_house import tone
from spoken_house import SENTENCES, write_dialogues, write_sentences
from talker_house import house

from thinktalk.data.mixture import Source
from thinktalk.data.samples import parse
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError, InputError
from thinktalk.omni import READ_ALOUD
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.talker_batches import phones_of


@pytest.fixture(scope="module")
def world(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    sources = [Source(write_sentences(folder)), Source(write_dialogues(folder))]
    samples = [parse(entry) for source in sources for entry in source.entries]
    return house(tiny_checkpoint)[1], Sentences.of(sources), samples


def draws(world, samples, count=60, **context):
    """(sample, task, line) of many draws."""
    kit, sentences, _ = world
    make = InContext(kit, sentences, Context(**context))
    for n in range(count):
        sample = samples[n % len(samples)]
        task = make.task(sample, torch.Generator().manual_seed(n))
        yield sample, task, make(sample, torch.Generator().manual_seed(n))


def asker_tells_the_voice(world, samples) -> bool:
    """Whether the sound that is asked with is ever that of the voice that answers."""
    found = 0
    for sample, task, _ in draws(world, samples, repeat=1.0, lead=0.0):
        for content in task.media.values():
            found += 1
            owner = next(n for n in range(len(SENTENCES)) if content == tone(0.5, hertz=200 + 20 * n))  # fmt: skip
            assert SENTENCES[owner][1] == sample.text == task.text  # the same words
            if SENTENCES[owner][0] == sample.voice:
                return True
    assert found > 10
    return False


def test_who_repeats_is_never_who_asked(world, monkeypatch):
    samples = world[2][: len(SENTENCES)]
    assert not asker_tells_the_voice(world, samples)
    # planted fault: one's own recording asks
    monkeypatch.setattr(InContext, "_other", lambda self, sample, generator: sample)
    assert asker_tells_the_voice(world, samples)


def test_a_voice_is_told_by_its_token_or_by_a_lead(world):
    """Never by the words alone, as long as the voice has another sentence."""
    kit, _, samples = world
    tokens = Counter()
    for sample, task, line in draws(world, samples[: len(SENTENCES)], count=160, lead=0.5):
        assert task.voice == sample.voice
        tokens[sample.voice, line.voice == kit.anybody, line.given > 0] += 1
        if sample.voice in kit.voices:
            assert line.voice == kit.voices[sample.voice] or line.given
        elif sample.voice == "stranger":
            assert line.given and line.voice == kit.anybody
    for voice in ("Ethan", "Chelsie"):  # token alone, both, lead alone
        assert all(tokens[voice, hidden, led] for hidden, led in ((False, False), (False, True), (True, True)))  # fmt: skip
    assert tokens["hermit", True, False] == 20


def test_a_lead_is_another_sentence_of_the_same_voice(world):
    kit, _, samples = world
    own = {(s.voice, s.text): s.codes.tolist() for s in samples[: len(SENTENCES)]}
    leads = set()
    for sample, task, line in draws(world, samples[: len(SENTENCES)], count=80, lead=1.0):
        if not task.given:
            continue
        lead = task.text.removesuffix(sample.text).strip()
        assert lead and lead != sample.text
        assert line.codes[: line.given].tolist() == own[sample.voice, lead]
        assert line.codes[line.given :].tolist() == own[sample.voice, sample.text]
        assert line.reply == kit.tokenizer.encode(f"{lead} {sample.text}")
        assert kit.tokenizer.decode(line.prompt.token_ids.tolist()).count(READ_ALOUD.strip()) == 1
        leads.add((sample.voice, lead))
    assert ("stranger", "How are you?") in leads and ("stranger", "Good morning.") in leads


def test_a_lead_can_be_learned_too(world):
    """As one longer reading: nothing of it is only heard, and its voice is told by its token or by nobody."""
    kit, _, samples = world
    longer = 0
    for sample, task, line in draws(world, samples[: len(SENTENCES)], lead=1.0, learned=1.0):
        assert not line.given and len(line.codes) >= len(sample.codes)
        assert line.voice == kit.voices.get(sample.voice, kit.anybody)
        longer += len(line.codes) > len(sample.codes) and task.text != sample.text
    assert longer > 20
    given = [line.given > 0 for _, _, line in draws(world, samples[: len(SENTENCES)], lead=1.0)]
    assert any(given)  # the fault: nobody asked for it


def test_a_dialogue_is_taken_as_it_is(world):
    kit, _, samples = world
    for sample, task, line in draws(world, samples[len(SENTENCES) :], count=4, lead=1.0):
        assert task.messages == sample.messages and not line.given
        assert line.codes.tolist() == sample.record["answer_codes"]
        assert line.voice == kit.voices[sample.record["answer_voice"]]
        assert len(line.prompt.audio) == 1 and kit.tokenizer.decode(line.reply) == task.text


def test_draws_are_the_samples_own(world):
    """The same numbers give the same line; `fixed` gives it in every epoch."""
    kit, sentences, samples = world
    make = InContext(kit, sentences)
    fixed = replace(make, fixed=True)

    def drawn(make, seed):
        return make(samples[0], torch.Generator().manual_seed(seed))

    def same(a, b):
        return torch.equal(a.codes, b.codes) and torch.equal(a.prompt.token_ids, b.prompt.token_ids)

    assert all(same(drawn(make, seed), drawn(make, seed)) for seed in range(5))
    assert not all(same(drawn(make, 0), drawn(make, seed)) for seed in range(1, 9))
    assert all(same(drawn(fixed, 0), drawn(fixed, seed)) for seed in range(1, 9))


def test_what_cannot_be_drawn(world):
    kit, sentences, samples = world
    with pytest.raises(ConfigError, match=r"context.lead is 2, expected a share"):
        Context(lead=2)
    make = InContext(kit, sentences)
    turned = replace(samples[-1], record={"messages": samples[-1].messages[:1]})
    with pytest.raises(InputError, match="ends with a message of user"):
        make(turned, torch.Generator())
    mute = replace(samples[0], record={"text": "Good evening.", "voice": "Ethan"})
    with pytest.raises(InputError, match="has no codes"):
        make(mute, torch.Generator().manual_seed(0))


def test_nobody_needs_to_ask(world):
    """A bare row begins with the opening of the answer's turn; with a lead, too, and never where a sound is repeated."""
    kit, _, samples = world
    opening = kit.tokenizer.encode("assistant\n")
    lengths = set()
    for _, task, line in draws(world, samples[: len(SENTENCES)], bare=1.0, repeat=0.0, lead=0.5):
        assert task.bare and line.prompt.token_ids.tolist()[1:] == opening
        assert line.reply == kit.tokenizer.encode(task.text)
        lengths.add(line.given > 0)
    assert lengths == {True, False}
    asked = [task for _, task, _ in draws(world, samples[:3], bare=1.0, repeat=1.0, lead=0.0)]
    assert any(task.media and not task.bare for task in asked)
    for _, task, line in draws(world, samples[: len(SENTENCES)], repeat=0.0):
        assert not task.bare and line.prompt.length > 10


def test_sentences_are_spliced_between_words(world, tmp_path):
    """Codes and times of both sentences of one voice; the token that each code says is one of its own half."""
    kit = world[0]
    rate = kit.codes_per_second
    phones = {
        "phones": "ab cd ef",
        "durations": [5, 4, 4, 2, 4, 4, 2, 4, 4, 7],
        "frame_seconds": 0.02,
    }
    with ShardWriter(tmp_path / "timed") as writer:
        for n, text in enumerate(("Red is nice", "Up we go")):
            codes = list(range(100 * n, 100 * n + round(0.8 * rate)))
            record = {"text": text, "voice": "Ethan", "seconds": 0.8, "codes": codes, **phones}
            writer.write(str(n), {"json": json.dumps(record).encode()})
    source = Source(str(writer.paths[0]))
    make = InContext(kit, Sentences.of([source]), Context(lead=0, repeat=0, aloud=1, spliced=1.0))
    texts = set()
    for n in range(60):
        sample = parse(source.entries[0])
        task = make.task(sample, torch.Generator().manual_seed(n))
        line = make(sample, torch.Generator().manual_seed(n))
        words = task.text.split()
        texts.add(task.text)
        assert len(words) == len(task.times) and len(line.said) == len(task.codes)
        # code 7 of a sentence says what its own record has there, wherever it stands now
        own = [phones_of(parse(e).record, len(parse(e).codes), rate) for e in source.entries]
        assert line.phones.tolist() == [int(own[c // 100][c % 100]) for c in task.codes]
        cut = next(
            (i for i in range(1, len(task.codes)) if task.codes[i] != task.codes[i - 1] + 1), None
        )
        assert task.messages[0]["content"] == READ_ALOUD + task.text
        if cut is not None:  # the word that is said at the cut is the second sentence's
            ends = [end for _, end in task.times]
            before = sum(end <= cut / rate for end in ends)
            assert words[:before] == sample.text.split()[:before]
    assert {"Red go", "Red Up we go", "Red is nice go"} <= texts
    plain = make.task(world[2][0], torch.Generator().manual_seed(0))  # not timed: as it is
    assert plain.text == world[2][0].text
