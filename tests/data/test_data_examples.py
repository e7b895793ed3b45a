"""Examples: the conversation as it will be at run time, and labels on answers only."""

from __future__ import annotations

import pytest
import torch
from sample_house import tone

from thinktalk.config import tiny
from thinktalk.data.examples import IGNORED, TokenCost, encode, from_sample
from thinktalk.data.samples import Sample
from thinktalk.errors import InputError
from thinktalk.prompt import Tokenizer, build_prompt
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = tiny()
IDS = CONFIG.thinker.ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(CONFIG, folder)
    return Tokenizer.load(folder)


CHAT = [
    {"role": "user", "content": [{"type": "audio", "audio": "wav"}, {"type": "text", "text": "What is said?"}]},
    {"role": "assistant", "content": "Good morning."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "\n  assistant\nNothing."},
]  # fmt: skip
SAMPLE = Sample(
    where="a.tar/0", record={"messages": CHAT, "seconds": 0.5}, media={"wav": tone(0.5)}
)


def learned(example, tokenizer) -> list[str]:
    """The runs of tokens that have labels, as text."""
    runs, run = [], []
    for token, label in zip(example.token_ids.tolist(), example.labels.tolist(), strict=True):
        if label == IGNORED:
            runs, run = runs + ([run] if run else []), []
        else:
            assert label == token
            run.append(token)
    return [tokenizer.decode(r, skip_special=False) for r in runs + ([run] if run else [])]


def check_labels(example, tokenizer) -> None:
    assert learned(example, tokenizer) == ["Good morning.<|im_end|>", "\n  assistant\nNothing.<|im_end|>"]  # fmt: skip


def test_answers_are_learned_and_nothing_else(tokenizer):
    example = from_sample(SAMPLE, tokenizer=tokenizer, config=CONFIG)
    check_labels(example, tokenizer)
    assert example.name == "a.tar/0" and len(example.audio) == 1
    example.labels = example.token_ids.clone()
    with pytest.raises(AssertionError):
        check_labels(example, tokenizer)


def test_it_reads_as_the_prompt_does_at_run_time(tokenizer):
    """Up to the answer, ids and TMRoPE positions are those of build_prompt; the answer goes on from there."""
    example = from_sample(SAMPLE, tokenizer=tokenizer, config=CONFIG)
    messages = SAMPLE.resolved()
    prompt = build_prompt(messages[:1], tokenizer=tokenizer, config=CONFIG, speech=False)
    T = prompt.length
    assert torch.equal(example.token_ids[:T], prompt.token_ids)
    assert torch.equal(example.positions[:, :T], prompt.positions)
    assert torch.equal(example.audio[0], prompt.audio[0])
    assert int(example.labels[T]) == int(example.token_ids[T])  # the first token of the answer
    assert example.positions[:, T].tolist() == [prompt.next_position] * 3
    # the second answer begins with line breaks: cut behind "assistant\n" all the same
    prompt = build_prompt(messages[:3], tokenizer=tokenizer, config=CONFIG, speech=False)
    assert torch.equal(example.token_ids[: prompt.length], prompt.token_ids)


def test_planned_cost_is_never_too_small(tokenizer):
    cost = TokenCost(tokenizer, CONFIG)
    example = from_sample(SAMPLE, tokenizer=tokenizer, config=CONFIG)
    system = encode(CHAT[2:], tokenizer=tokenizer, config=CONFIG)
    for one, planned in ((example, cost(SAMPLE.record)), (system, cost({"messages": CHAT[2:]}))):
        assert one.length <= planned <= one.length + 12


def test_what_cannot_be_learned_is_refused(tokenizer):
    with pytest.raises(InputError, match="x: no assistant message"):
        encode(CHAT[2:3], tokenizer=tokenizer, config=CONFIG, name="x")
    with pytest.raises(InputError, match="expected at most 20"):
        from_sample(SAMPLE, tokenizer=tokenizer, config=CONFIG, max_tokens=20)
