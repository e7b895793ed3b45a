"""Thinker batches: what a record becomes, what it is planned to cost, and how sources share a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_house import tone, write_shards
from thinker_house import CONFIG, IDS, tokenizer

from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import ShardWriter
from thinktalk.data.speech import Augmentation
from thinktalk.data.synth import pictures, text
from thinktalk.data.synth.world import make_world
from thinktalk.errors import ConfigError, InputError
from thinktalk.prompt import SPEECH_SYSTEM
from thinktalk.training.parallel import World
from thinktalk.training.thinker_batches import Make, loader, sources, tasks_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def make(**options) -> Make:
    return Make(tokenizer(), CONFIG, **{"max_tokens": 4096, "speech": 0.0, **options})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPOKEN = Sample(
    where="a.tar/0", record={"text": "Good morning, all.", "seconds": 1.3}, media={"wav": tone(1.3)}
)


def words(example) -> str:
    """What is learnt, as text."""
    return tokenizer().decode([t for t in example.labels.tolist() if t >= 0], skip_special=False)


def test_recordings_become_tasks():
    for task in ("transcribe", "repeat", "read"):
        example = make(tasks=(task,))(SPOKEN, generator())
        assert words(example) == "Good morning, all.<|im_end|>"
        assert len(example.audio) == (task != "read")
        assert int((example.token_ids == IDS.audio).sum()) == (32 if task != "read" else 0)
    drawn = {make(tasks=("transcribe", "read"))(SPOKEN, generator(s)).length for s in range(20)}
    assert len(drawn) > 4  # both tasks, several wordings


def test_plain_text_is_learnt_whole_and_long_text_in_stretches():
    record = {"text": "Once upon a time there was a small bird."}
    story = Sample(where="t.tar/0", record=record)
    example = make()(story, generator())
    assert torch.equal(example.labels, example.token_ids) and not example.audio
    assert words(example) == record["text"] + "<|endoftext|>"
    assert make().cost(record) == example.length
    stretches = [make(max_tokens=6)(story, generator(s)) for s in range(30)]
    whole = example.token_ids.tolist()
    assert {e.length for e in stretches} == {6}
    starts = {e.token_ids.tolist()[0] for e in stretches}
    assert len(starts) > 3 and all(s in whole for s in starts)
    with pytest.raises(InputError, match=r"t.tar/1: has neither messages nor a text"):
        make()(Sample(where="t.tar/1", record={}), generator())


def test_the_system_prompt_of_speech_as_often_as_asked():
    told = [SPEECH_SYSTEM in tokenizer().decode(make(speech=0.5)(SPOKEN, generator(s)).token_ids.tolist()) for s in range(40)]  # fmt: skip
    assert 10 < sum(told) < 30
    assert not any(SPEECH_SYSTEM in tokenizer().decode(make()(SPOKEN, generator(s)).token_ids.tolist()) for s in range(5))  # fmt: skip


def test_sounds_elsewhere_are_drawn_with_the_sample():
    augmented = make(augmentation=Augmentation(speeds=(1.0,), room=1.0, noise=1.0))
    one, again, other = (augmented(SPOKEN, generator(s)).audio[0] for s in (0, 0, 3))
    assert torch.equal(one, again) and not torch.equal(one, other)
    plain = make()(SPOKEN, generator()).audio[0]
    assert one.shape == plain.shape and (one - plain).abs().max() > 0.1


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Shards of text, pictures and speech."""
    folder = tmp_path_factory.mktemp("world")
    for name, ask in (("text", text.ask), ("pictures", pictures.ask)):
        make_world(ask, folder / name, counts={"train": 40}, seed=1)
    write_shards(folder / "speech", shards=1, samples=12)
    with ShardWriter(folder / "video" / "train") as shards:
        content = [{"type": "video", "video": "mp4"}, {"type": "text", "text": "What is heard?"}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "A ring."}]  # fmt: skip
        clip = next(EXAMPLES.glob("*.mp4")).read_bytes()
        record = {"messages": messages, "seconds": 6.0, "pixels": {"mp4": [112, 112]}}
        shards.write("0", {"json": json.dumps(record).encode(), "mp4": clip})
    return folder


@pytest.mark.parametrize("speech", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["text", "pictures", "speech"])
def test_plans_are_bounds(world, kind, speech):
    """What planning reckons is never less than what comes, and little more."""
    maker = make(tasks=("transcribe", "repeat", "read"), speech=speech)
    (source,) = sources(str(world / kind), maker)
    lengths = np.array([maker(parse(e), generator(i)).length for i, e in enumerate(source.entries)])
    assert (source.costs >= lengths).all()
    assert (
        source.costs.sum() < 1.5 * lengths.sum()
    )  # wordings differ, and "read" says the text twice
    if kind == "text":  # planned fault: a cost without the template
        with pytest.raises(AssertionError):
            assert (source.costs - 12 - speech * maker._system >= lengths).all()


def test_a_videos_size_is_known_from_its_record():
    """Not the largest there is: a pair of frames each second, sound beside."""
    content = [{"type": "video", "video": "mp4"}]
    record = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]}  # fmt: skip
    known = make().cost({**record, "seconds": 6.0, "pixels": {"mp4": [112, 112]}})
    unknown = make().cost({**record, "seconds": 6.0})
    pair = 12 * 12  # 336 x 336: the least a pair gets is 128 tokens
    assert known == pytest.approx(6 * pair + 150, abs=40) and unknown > 100_000
    longer = make().cost({**record, "seconds": 6.0, "seconds_of": {"mp4": 12.0}, "pixels": {"mp4": [112, 112]}})  # fmt: skip
    assert longer - known == pytest.approx(150, abs=2)


def test_rows_of_everything(world):
    """Sources share tokens by weight; rows are as full as planned and hold what they say."""
    shards = f"{world}/text@2, {world}/pictures, {world}/speech/*.tar"
    batches = iter(loader(shards, make(), tokens=600, seed=0, world=World()))
    seen = {"text": 0, "pictures": 0, "speech": 0}
    for _ in range(12):
        packed = next(batches)
        assert packed.token_ids.shape == (1, packed.tokens) and 200 < packed.tokens <= 600
        for number, name in enumerate(packed.names, 1):
            length = int((packed.segments == number).sum())
            seen[next(k for k in seen if f"/{k}/" in name)] += length
        assert int((packed.token_ids == IDS.image).sum()) == sum(g[1] * g[2] // 4 for _, g in packed.images)  # fmt: skip
    assert all(share > 0 for share in seen.values())
    # costs are bounds, so shares of real tokens are near the weights only
    assert 0.35 < seen["text"] / sum(seen.values()) < 0.65


def test_what_is_too_long_is_passed_by(world):
    batches = loader(f"{world}/video,{world}/text", make(), tokens=300, seed=0, world=World())
    for _, packed in zip(range(4), batches, strict=False):
        assert not packed.videos
    assert batches.plan.grouping.dropped > 0


def test_fixed_rows_have_one_shape(world):
    batches = iter(loader(f"{world}/text", make(), tokens=400, seed=0, world=World(), fixed=True))
    assert {next(batches).token_ids.shape for _ in range(4)} == {(1, 400)}


@pytest.mark.parametrize(
    ("shards", "told"),
    [
        ("a.tar@much", "'much' is no weight"),
        ("a.tar@0", "weight 0.0, expected more than 0"),
        (" , ", "shards: none"),
    ],
)
def test_words_for_wrong_shards(shards, told):
    with pytest.raises(ConfigError, match=told):
        sources(shards, make())


def test_words_for_wrong_tasks():
    assert tasks_of("read, transcribe") == ("read", "transcribe")
    with pytest.raises(ConfigError, match="translate; expected some of transcribe, repeat, read"):
        tasks_of("read,translate")


def test_spliced_recordings_are_of_one_voice_and_told_where(tmp_path):
    """Text and sound of both, by the same person; what is not timed, or nobody's, stays as it is."""
    timed = {"phones": "ab cd", "durations": [10, 5, 5, 5, 5, 5, 10], "frame_seconds": 0.02}
    with ShardWriter(tmp_path / "said") as writer:
        for n, (text, voice) in enumerate([("One two", "a"), ("Three four", "a"), ("Five six", "b"), ("Seven", "a")]):  # fmt: skip
            record = {
                "text": text,
                "voice": voice,
                "seconds": 0.9,
                **(timed if " " in text else {}),
            }
            writer.write(str(n), {"json": json.dumps(record).encode(), "wav": tone(0.9)})
    made = make(tasks=("transcribe",), spliced=1.0, guide=True)
    found = loader(str(writer.paths[0]), made, tokens=200, seed=0, world=World())
    made = found.reader.make
    own = made.timed
    assert {voice: len(entries) for voice, entries in own.items()} == {"a": 2, "b": 1}
    spoken = {words(made(parse(own["a"][0]), generator(s)))[: -len("<|im_end|>")] for s in range(40)}  # fmt: skip
    first, second = ("One", "One two"), ("two", "One two", "four", "Three four")
    assert spoken <= {f"{a} {b}" for a in first for b in second} and len(spoken) > 5
    example = made(parse(own["a"][0]), generator(1))
    slots = example.heard[example.heard[:, 0] >= 0]
    assert (slots[:, 1] > slots[:, 0]).all() and (slots.diff(dim=0) >= 0).all()
    assert words(made(SPOKEN, generator())) == "Good morning, all.<|im_end|>"
    assert words(make(spliced=1.0)(parse(own["a"][0]), generator())) == "One two<|im_end|>"
