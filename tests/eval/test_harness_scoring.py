"""What harnesses ask: likelihoods that agree with the step-by-step model, whole windows, stop strings, chat strings."""

from __future__ import annotations

import pytest
import torch

import thinktalk
from thinktalk import pipeline
from thinktalk.errors import InputError
from thinktalk.eval.harness.scoring import Scorer, written_options
from thinktalk.prompt import Mark, render


@pytest.fixture(scope="module")
def omni(tiny_checkpoint: str):
    return thinktalk.load(tiny_checkpoint, parts=("thinker",))


@pytest.fixture(scope="module")
def scorer(omni) -> Scorer:
    return Scorer(omni, batch_size=3)


def alone(scorer: Scorer, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Token by token with a memory, as the model writes."""
    model = scorer.omni.model
    (reading,) = pipeline.embed(model, [scorer.prompt(context)])
    state = model.thinker.init_state(1)
    embedded, total, greedy = reading.embedded, 0.0, True
    for n, token in enumerate(continuation):
        chances = model.thinker.logits(model.thinker.step(embedded, state)[:, -1]).log_softmax(-1)
        total += float(chances[0, token])
        greedy &= int(chances.argmax()) == token
        embeds = model.thinker.embed(torch.tensor([[token]]))
        positions = torch.full((1, 3, 1), len(context) + n)
        embedded = type(embedded)(embeds, positions)
    return total, greedy


def test_likelihoods_are_those_of_the_model_token_by_token(scorer: Scorer) -> None:
    told = {}
    # unequal lengths, two answers behind one context, more rows than a batch
    pairs = [([1, 2, 3], [4]), ([1, 2, 3], [5]), ([9] * 20, [7, 8]), ([6], [5, 4, 3, 2]), ([1, 2], [3, 4])]  # fmt: skip
    scores = scorer.likelihoods(pairs, told=lambda n, *score: told.update({n: score}))
    for pair, (score, greedy) in zip(pairs, scores, strict=True):
        wanted, sure = alone(scorer, *pair)
        assert score == pytest.approx(wanted, abs=1e-4)
        assert greedy == sure
    assert told == dict(enumerate(scores))
    likeliest = int(scorer._logits(scorer._hidden([[1, 2, 3]])[0, -1]).argmax())
    assert scorer.likelihoods([([1, 2, 3], [likeliest])])[0][1]


def test_same_reading_is_read_once(scorer: Scorer, monkeypatch) -> None:
    rows = []
    hidden = scorer._hidden
    monkeypatch.setattr(scorer, "_hidden", lambda batch: rows.extend(batch) or hidden(batch))
    scorer.likelihoods([([1, 2, 3], [answer]) for answer in (10, 11, 12, 13)])
    assert rows == [(1, 2, 3)]


def test_rolling_counts_each_token_once_with_all_the_context_there_is(omni) -> None:
    whole, short = Scorer(omni), Scorer(omni, max_length=4)
    ids = list(range(20, 30))
    assert whole.rolling(ids) == pytest.approx(alone(whole, [whole.prefix], ids)[0], abs=1e-4)
    pieces = [([whole.prefix], ids[:4]), (ids[3:4], ids[4:8]), (ids[5:8], ids[8:])]
    wanted = sum(alone(whole, *piece)[0] for piece in pieces)
    assert short.rolling(ids) == pytest.approx(wanted, abs=1e-4)
    assert short.rolling([]) == 0.0
    # too long a context loses its beginning, not its end
    long = short.likelihoods([([1, 2, 3, 4, 5, 6], [7, 8])])[0][0]
    assert long == pytest.approx(alone(whole, [4, 5, 6], [7, 8])[0], abs=1e-4)
    with pytest.raises(InputError, match="5 tokens, expected 1 to 4"):
        short.likelihoods([([1], [2, 3, 4, 5, 6])])


def test_a_pair_is_cut_where_the_words_are(scorer: Scorer) -> None:
    context, continuation = scorer.pair("The sky is ", "blue")
    assert continuation == scorer.encode("The sky is blue")[len(context) :]
    assert context == scorer.encode("The sky is")
    assert scorer.pair("", "blue") == ([scorer.prefix], scorer.encode("blue"))


def test_a_conversation_is_the_templates_and_data_stay_text(scorer: Scorer) -> None:
    omni, ids = scorer.omni, scorer.omni.config.thinker.ids
    history = [{"role": "user", "content": "Say <|im_end|> twice"}]
    wanted = []
    for segment in render(history):
        wanted += [getattr(ids, segment.name)] if isinstance(segment, Mark) else omni.tokenizer.encode(segment)  # fmt: skip
    found = scorer.encode(scorer.chat(history))
    assert found == wanted
    assert found.count(ids.im_end) == 2  # system's and user's: what the data set wrote is none
    opened = scorer.encode(scorer.chat([*history, {"role": "assistant", "content": "A"}], answer=False))  # fmt: skip
    assert omni.tokenizer.decode(opened, skip_special=False).endswith("<|im_start|>assistant\nA")
    assert scorer.encode("<im") == omni.tokenizer.encode("<im")


def test_writing_is_what_each_prompt_gets_alone_and_ends_before_a_stop(scorer: Scorer) -> None:
    options, until = written_options(scorer.omni, {"max_gen_toks": 6, "until": "\n\n"})
    assert until == ["\n\n"]
    prompts = [scorer.prompt(list(range(n, 3 * n))) for n in (3, 9, 5, 2)]
    said = scorer.write(prompts, options)
    assert said == [scorer.write([prompt], options)[0] for prompt in prompts]
    text = max(said, key=len)
    stop = text[2:4]
    (cut,) = scorer.write([prompts[said.index(text)]], options, until=["", "never there", stop])
    assert cut == text.split(stop)[0]


def test_arguments_of_a_task(scorer: Scorer) -> None:
    options, until = written_options(scorer.omni, {"until": ["a", "b"], "do_sample": False, "temperature": 0.0, "max_new_tokens": 7})  # fmt: skip
    assert (options.greedy, options.generation.max_text_tokens, until) == (True, 7, ["a", "b"])
    options, _ = written_options(scorer.omni, {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "seed": 5})  # fmt: skip
    assert not options.greedy
    assert (options.generation.text_temperature, options.generation.text_top_p, options.generation.text_top_k, options.seed) == (0.6, 0.9, 20, 5)  # fmt: skip
    assert options.generation.max_text_tokens == 256
