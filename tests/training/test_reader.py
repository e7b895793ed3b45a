"""The reader of codes: what the tokenizer's heads heard, from codes alone; files; what is no code."""

from __future__ import annotations

import pytest
import torch
from test_c1_tokenizer import batch, make

from thinktalk.data.speech import Symbols
from thinktalk.errors import WeightsError
from thinktalk.training.reader import CodeReader

SYMBOLS = Symbols(tuple("abcdef"))


@pytest.fixture(scope="module")
def stage():
    return make()


def test_codes_are_heard_as_they_were_when_they_were_learnt(stage):
    """The heads' logits in training are the reader's of the codes alone, clip by clip and together."""
    tokenizer, heads = stage.modules.tokenizer, stage.modules.heads
    mels = batch().mels
    with torch.no_grad():
        x_ND, pieces = tokenizer.features(mels)
        heard = [heads.ctc(h) for h in heads.slots(tokenizer.fsq(x_ND).embedding, pieces)]
    codes = tokenizer.encode(mels)
    reader = stage.reader(SYMBOLS)
    for got, alone, expected in zip(reader.logits(codes), (reader.logits([c])[0] for c in codes), heard, strict=True):  # fmt: skip
        # float32 sums in other batches
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    # planted fault: codes off by one
    other = reader.logits([c + 1 for c in codes])[0]
    assert (other - heard[0]).abs().max() > 1e-2


def test_letters_errors_and_surprise(stage):
    reader = stage.reader(SYMBOLS)
    codes = stage.modules.tokenizer.encode(batch().mels)
    said = reader.read(codes)
    assert [e.count for e in reader.errors(codes, said)] == [0, 0, 0]
    text = "abc"
    logits = reader.logits(codes[:1])[0]
    labels = torch.tensor([[1, 2, 3]])
    expected = torch.nn.functional.ctc_loss(
        logits[:, None].log_softmax(-1), labels, torch.tensor([len(logits)]), torch.tensor([3]), reduction="sum"
    ) / 3  # fmt: skip
    torch.testing.assert_close(reader.losses(codes[:1], [text])[0], expected)
    assert reader.losses(codes[:1], ["a" * 200])[0] == float("inf")


def test_what_is_no_code_is_nothing(stage):
    reader = stage.reader(SYMBOLS)
    odd = torch.tensor([0, 1001, 5000, 3])
    silent = CodeReader(reader.config, SYMBOLS, num_layers=1)  # its table is zeros
    silent.listener = reader.listener
    torch.testing.assert_close(reader.logits([odd[:3]])[0], silent.logits([odd[:3]])[0])
    assert reader.logits([odd[:0]])[0].shape == (0, 7) and reader.read([odd[:0]]) == [""]


def test_a_file_gives_the_same_reader(stage, tmp_path):
    reader = stage.reader(SYMBOLS)
    reader.save(tmp_path / "run" / "reader.safetensors")
    codes = [torch.arange(1, 60), torch.tensor([7])]
    for path in (tmp_path / "run", tmp_path / "run" / "reader.safetensors"):
        again = CodeReader.load(path)
        assert again.symbols == SYMBOLS and again.config == reader.config
        for a, b in zip(again.logits(codes), reader.logits(codes), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(WeightsError, match="not there"):
        CodeReader.load(tmp_path)
    from thinktalk.weights.store import write_file

    write_file(tmp_path / "reader.safetensors", [])
    with pytest.raises(WeightsError, match="is no reader of codes"):
        CodeReader.load(tmp_path)
