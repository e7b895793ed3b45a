"""c1: the losses against plain ones clip by clip, who gets gradients, one batch learnt by heart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from thinktalk.config import AudioEncoderConfig, Wav2CodeConfig
from thinktalk.data.speech import Symbols
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.errors import ConfigError
from thinktalk.metrics.wer import word_errors
from thinktalk.training.c1_tokenizer import (
    Speech,
    TokenizerHeads,
    TokenizerModules,
    TokenizerStage,
    Weights,
    noisy_copy,
)
from thinktalk.training.losses import IGNORE
from thinktalk.training.shown import spectrogram
from thinktalk.wav2code.encoder import SpeechTokenizer

CONFIG = Wav2CodeConfig(
    num_mels=16, width=32, num_layers=1, num_heads=2, ffn_width=64, block_frames=40
)
LABELS, PHONES, SPEAKERS = 6, 5, 3


def make(config: Wav2CodeConfig = CONFIG, **weights: float) -> TokenizerStage:
    torch.manual_seed(0)
    heads = TokenizerHeads(config, labels=LABELS, phones=PHONES, speakers=SPEAKERS, num_layers=1)
    modules = TokenizerModules(SpeechTokenizer(config), heads)
    return TokenizerStage(modules, weights=Weights(**weights))


def batch(seed: int = 0, *, loud: float = 0.5) -> Speech:
    g = torch.Generator().manual_seed(seed)
    lengths = [90, 40, 57]
    labels = torch.randint(1, LABELS + 1, (3, 5), generator=g)
    counts = torch.tensor([5, 3, 4])
    labels[torch.arange(5) >= counts[:, None]] = 0
    phones = [
        torch.randint(0, PHONES, (9,), generator=g).repeat_interleave(6)[: n // 2] for n in lengths
    ]
    phones[1][3:9] = IGNORE
    return Speech(
        mels=[loud * torch.randn(16, n, generator=g) for n in lengths],
        labels=labels, label_lengths=counts, phones=phones, speakers=torch.tensor([0, 2, 1]),
    )  # fmt: skip


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def plain(stage: TokenizerStage, data: Speech) -> dict[str, float]:
    """Each clip alone, block by block, in loops."""
    tokenizer, heads = stage.modules.tokenizer, stage.modules.heads
    pool, per, block = tokenizer.config.pool, tokenizer.config.frames_per_code, tokenizer.block
    g = noise()
    sums = dict.fromkeys(("ctc", "phones", "mel", "agreement"), 0.0)
    counts = dict.fromkeys(sums, 0)
    for i, mel in enumerate(data.mels):
        other = noisy_copy(mel, g)
        embedded, hidden = [], []
        for start in range(0, mel.shape[1] // per * per, block):
            x, pieces = tokenizer.features([mel[:, start : start + block]])
            y, _ = tokenizer.features([other[:, start : start + block]])
            made, copy = tokenizer.fsq(x), tokenizer.fsq(y)
            sums["agreement"] += (copy.bounded - made.rounded).square().sum().item()
            counts["agreement"] += copy.bounded.numel()
            embedded.append(made.embedding)
            hidden += heads.slots(made.embedding, pieces)
        h = torch.cat(hidden)
        assert len(h) == mel.shape[1] // per * pool
        n = int(data.label_lengths[i])
        loss = F.ctc_loss(
            heads.ctc(h).log_softmax(-1), data.labels[i, :n], torch.tensor(len(h)), torch.tensor(n),
            reduction="sum",
        )  # fmt: skip
        sums["ctc"], counts["ctc"] = sums["ctc"] + loss.item(), counts["ctc"] + n
        for state, phone in zip(h, data.phones[i], strict=False):
            if phone != IGNORE:
                sums["phones"] -= heads.phones(state).log_softmax(-1)[phone].item()
                counts["phones"] += 1
        (drawn,) = heads.draw([torch.cat(embedded)], data.speakers[i : i + 1])
        sums["mel"] += (drawn - mel[:, : drawn.shape[1]]).abs().sum().item()
        counts["mel"] += drawn.numel()
    return {name: sums[name] / counts[name] for name in sums}


def compare(stage: TokenizerStage, data: Speech, expected: dict[str, float]) -> None:
    _, metrics = stage.loss(data, generator=noise())
    for name, value in expected.items():
        # float32 sums in another order
        assert float(metrics[name]) == pytest.approx(value, rel=2e-5), name


@pytest.mark.parametrize("pool", [1, 2])
def test_losses_are_the_plain_ones(pool):
    stage, data = make(Wav2CodeConfig(**{**CONFIG_FIELDS, "pool": pool})), batch()
    expected = plain(stage, data)
    compare(stage, data, expected)
    total, _ = stage.loss(data, generator=noise())
    weights = stage.weights
    assert total.item() == pytest.approx(sum(getattr(weights, k) * v for k, v in expected.items()), rel=2e-5)  # fmt: skip
    # another input moves every loss by far more than the tolerance
    others = plain(stage, batch(1, loud=2.0))
    assert all(abs(others[k] - v) > 2e-3 * v for k, v in expected.items()), (others, expected)


CONFIG_FIELDS = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}


class Bleeds(TokenizerHeads):
    """Planted fault: the mel head's convolutions run on over the padding, where the speaker's vector stands."""

    def draw(self, embedding, speakers):
        most = max(len(clip) for clip in embedding)
        padded = [F.pad(clip, (0, 0, 0, most - len(clip))) for clip in embedding]
        per = self.config.frames_per_code
        return [m[:, : len(clip) * per] for m, clip in zip(super().draw(padded, speakers), embedding, strict=True)]  # fmt: skip


def test_a_head_that_hears_the_padding_is_found():
    stage, data = make(), batch()
    expected = plain(stage, data)
    stage.modules.heads.__class__ = Bleeds
    compare(stage, data, {k: v for k, v in expected.items() if k != "mel"})
    with pytest.raises(AssertionError, match="mel"):
        compare(stage, data, expected)


def test_gradients_reach_everything_and_agreement_only_moves_the_copy():
    stage, data = make(), batch()
    total, _ = stage.loss(data, generator=noise())
    total.backward()
    silent = [n for n, p in stage.modules.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    # agreement alone: the encoder learns, no head does
    alone = make(ctc=0, phones=0, mel=0)
    alone.loss(data, generator=noise())[0].backward()
    moved = {n for n, p in alone.modules.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved and all(n.startswith("tokenizer.") and not n.startswith("tokenizer.fsq.up") for n in moved)  # fmt: skip


def test_one_batch_is_learnt_by_heart():
    stage, data = make(), batch()
    stage.weights = Weights(
        mel=0.2, agreement=0.2
    )  # three clips are soon at one with their noisy copies, and say no more
    optimiser = torch.optim.AdamW(stage.trainable(), lr=3e-3)
    first = None
    for step in range(115):
        total, metrics = stage.loss(data, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        first = first or {name: float(value) for name, value in metrics.items()}
    assert float(metrics["ctc"]) < 0.2 * first["ctc"]
    assert float(metrics["phones_right"]) > 0.7  # chance is 0.2
    assert float(metrics["mel"]) < 0.9 * first["mel"]
    assert float(metrics["codes_used"]) > 0.02  # 46 codes in the batch, a thousand to choose from


def test_noise_is_the_generators_and_leaves_speech_audible():
    mel = batch().mels[0]
    one, same, other = (noisy_copy(mel, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.isfinite().all() and (one.amax() - one.amin()) <= 2.0 + 1e-6  # 8 / 4
    assert noisy_copy(mel[:, :0], noise()).shape == (16, 0)
    # loud frames stay louder than quiet ones
    quiet = torch.full((16, 20), -1.0)
    both = noisy_copy(torch.cat([quiet, quiet + 1.5], 1), noise())
    assert both[:, 20:].mean() > both[:, :20].mean() + 0.1


def test_it_starts_from_ears_that_recognise():
    torch.manual_seed(5)
    ears = AudioEncoder(
        AudioEncoderConfig(num_mels=16, width=32, num_layers=3, num_heads=2, ffn_width=64, window_frames=20, out_width=8)
    )  # fmt: skip
    stage = make()
    tokenizer, heads = stage.modules.tokenizer, stage.modules.heads
    taken = stage.start_from(ears)
    assert {"tokenizer.conv1.weight", "tokenizer.layers.0.attn.q.weight"} < set(taken)
    assert not any(name.startswith(("tokenizer.layers.1", "tokenizer.norm", "heads.layers.1")) for name in taken)  # fmt: skip
    assert torch.equal(tokenizer.layers[0].mlp.up.weight, ears.layers[0].mlp.up.weight)
    # above the codes go the layers that came after them in the ears
    assert torch.equal(heads.layers[0].mlp.up.weight, ears.layers[1].mlp.up.weight)
    assert not torch.equal(heads.layers[0].mlp.up.weight, ears.layers[2].mlp.up.weight)
    with pytest.raises(ConfigError, match=r"wav2code.width 32: expected 48"):
        stage.start_from(AudioEncoder(replace(ears.config, width=48)))


def test_what_is_shown_and_counted_is_of_codes():
    """The picture is what the mel head draws of the first clip alone; errors are those of what the reader reads."""
    stage, data = make(), batch()
    symbols = Symbols(tuple("abcdef"))
    tokenizer, heads = stage.modules.tokenizer, stage.modules.heads
    shown = stage.show(data, generator=noise())["mel"].pixels
    codes = tokenizer.encode(data.mels[:1])[0]
    (drawn,) = heads.draw([tokenizer.fsq.embed(codes - 1)], data.speakers[:1])
    expected = spectrogram(data.mels[0][:, : drawn.shape[1]], drawn).pixels
    torch.testing.assert_close(shown, expected, atol=1e-4, rtol=0)
    letters, words = stage.errors([data, data], symbols)
    assert letters.length == 2 * int(data.label_lengths.sum())
    said = stage.reader(symbols).read(tokenizer.encode(data.mels))
    texts = [symbols.text(row.tolist()) for row in data.labels]
    assert words.count == 2 * sum(word_errors(t, s).count for t, s in zip(texts, said, strict=True))
