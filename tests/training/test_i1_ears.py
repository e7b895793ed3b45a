"""i1: the losses against plain ones block by block, who gets gradients, one batch learnt by heart, what is hidden."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from thinktalk.config import AudioEncoderConfig
from thinktalk.data.speech import LETTERS
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.training.c1_tokenizer import Speech
from thinktalk.training.i1_ears import Ears, EarsConfig, EarsStage, Words, greedy, mask_mel
from thinktalk.training.losses import IGNORE

CONFIG = AudioEncoderConfig(
    num_mels=16, width=32, num_layers=2, num_heads=2, ffn_width=64, window_frames=20, out_width=8
)
PHONES = 5
PLAIN = EarsConfig(time_masks=0, band_masks=0)


def make(config: EarsConfig = PLAIN, phones: int = PHONES) -> EarsStage:
    torch.manual_seed(0)
    return EarsStage(Ears(AudioEncoder(CONFIG), labels=len(LETTERS), phones=phones), config)


def batch(seed: int = 0) -> Speech:
    g = torch.Generator().manual_seed(seed)
    lengths = [91, 40, 57]
    labels = torch.randint(1, len(LETTERS) + 1, (3, 5), generator=g)
    counts = torch.tensor([5, 3, 4])
    labels[torch.arange(5) >= counts[:, None]] = 0
    phones = [torch.randint(0, PHONES, (9,), generator=g).repeat_interleave(6)[: n // 2] for n in lengths]  # fmt: skip
    phones[1][3:9] = IGNORE
    mels = [0.5 * torch.randn(16, n, generator=g) for n in lengths]
    return Speech(mels=mels, labels=labels, label_lengths=counts, phones=phones)


def noise(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(stage: EarsStage, data: Speech) -> dict[str, float]:
    """Each clip alone, block by block, an odd last frame left out as the pooling after it would."""
    ears, sums, counts = stage.modules, {"ctc": 0.0, "phones": 0.0}, {"ctc": 0, "phones": 0}
    for i, mel in enumerate(data.mels):
        blocks = mel[:, : mel.shape[1] // 2 * 2].split(CONFIG.block_frames, 1)
        h = ears.norm(torch.cat([ears.encoder.frames([block[None]])[0] for block in blocks]))
        n = int(data.label_lengths[i])
        loss = F.ctc_loss(
            ears.ctc(h).log_softmax(-1), data.labels[i, :n], torch.tensor(len(h)), torch.tensor(n),
            reduction="sum",
        )  # fmt: skip
        sums["ctc"], counts["ctc"] = sums["ctc"] + loss.item(), counts["ctc"] + n
        for state, phone in zip(h, data.phones[i], strict=False):
            if phone != IGNORE:
                sums["phones"] -= ears.phones(state).log_softmax(-1)[phone].item()
                counts["phones"] += 1
    return {name: sums[name] / counts[name] for name in sums}


def compare(stage: EarsStage, data: Speech, expected: dict[str, float]) -> None:
    total, metrics = stage.loss(data, generator=noise())
    for name, value in expected.items():
        # float32 sums in another order
        assert float(metrics[name]) == pytest.approx(value, rel=2e-5), name
    assert total.item() == pytest.approx(expected["ctc"] + expected["phones"], rel=2e-5)


def test_losses_are_the_plain_ones():
    stage, data = make(), batch()
    expected = plain(stage, data)
    compare(stage, data, expected)
    # another sound moves both by far more than the tolerance
    others = plain(stage, batch(1))
    assert all(abs(others[k] - v) > 2e-3 * v for k, v in expected.items()), (others, expected)


def test_clips_that_hear_each_other_are_found():
    class Bleeds(Ears):
        """Planted fault: all clips as one."""

        def listen(self, mels):
            even = [mel[:, : mel.shape[1] // 2 * 2] for mel in mels]
            (frames,), told = super().listen([torch.cat(even, 1)])
            return list(frames.split([m.shape[1] // 2 for m in even])), told

    stage, data = make(), batch()
    expected = plain(stage, data)
    stage.modules.__class__ = Bleeds
    with pytest.raises(AssertionError):
        compare(stage, data, expected)


def test_gradients_reach_exactly_what_learns():
    stage, data = make(), batch()
    stage.loss(data, generator=noise())[0].backward()
    moved = {n for n, p in stage.modules.named_parameters() if p.grad is not None and p.grad.any()}
    wanted = {id(p) for p in stage.trainable()}
    assert moved == {n for n, p in stage.modules.named_parameters() if id(p) in wanted}
    frozen = {n for n, _ in stage.modules.named_parameters()} - moved
    assert frozen == {f"encoder.{n}" for n in ("norm.weight", "norm.bias", "proj.weight", "proj.bias", "bos_eos.weight")}  # fmt: skip
    assert stage.parts() == {"audio": stage.modules.encoder}


def test_one_batch_is_learnt_by_heart_and_read():
    stage, data = make(), batch()
    optimiser = torch.optim.AdamW(stage.trainable(), lr=3e-3)
    for step in range(150):
        total, metrics = stage.loss(data, generator=noise(step))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert float(metrics["phones_right"]) > 0.9  # chance is 0.2
    letters, _words = stage.errors([data])
    assert letters.length == sum(len(LETTERS.text(row[:n].tolist())) for row, n in zip(data.labels, data.label_lengths, strict=True))  # fmt: skip
    assert letters.rate < 0.2
    untrained, _ = make().errors([data])
    assert untrained.rate > 0.8


def test_speech_without_phones_is_learnt_from_its_letters():
    stage, data = make(phones=0), batch()
    total, metrics = stage.loss(data, generator=noise())
    assert total.item() == metrics["ctc"].item() and "phones" not in metrics
    assert stage.modules.phones is None


# ------------------------------------------------------------------------------------------------ the Thinker's words


def make_words(weight: float = 1.0) -> EarsStage:
    """Ears whose Thinker has a token a letter."""
    torch.manual_seed(0)
    words = Words(0.3 * torch.randn(26, CONFIG.out_width), lambda text: [ord(c) - ord("a") for c in text])  # fmt: skip
    config = EarsConfig(time_masks=0, band_masks=0, words=weight, length=0.5)
    return EarsStage(Ears(AudioEncoder(CONFIG), labels=len(LETTERS), phones=PHONES, words=words), config)  # fmt: skip


def spelt_batch() -> Speech:
    return replace(batch(), texts=["hello", "say", "aloud"])


def plain_words(stage: EarsStage, data: Speech) -> tuple[float, float]:
    """CTC a token of each clip alone through the encoder as it runs when people talk, and the lengths."""
    words, total, tokens, all_told = stage.modules.words, 0.0, 0, []
    labels = torch.cat([words.blank[None], words.table])
    for mel, text in zip(data.mels, data.texts, strict=True):
        (told,) = stage.modules.encoder.encode([mel[:, : mel.shape[1] // 2 * 2]])
        said = torch.tensor([ord(c) - ord("a") + 1 for c in text])
        angles = F.cosine_similarity(told[:, None], labels[None], dim=2)
        log_probs = (words.sharpness.exp() * angles).log_softmax(-1)
        total += F.ctc_loss(log_probs, said, torch.tensor(len(told)), torch.tensor(len(said)), reduction="sum").item()  # fmt: skip
        tokens += len(said)
        all_told.append(told)
    x = torch.cat(all_told)
    gaps = ((x - x.mean(0)).norm(dim=1) / words.table.norm(dim=1).mean()).log().square()
    return total / tokens, gaps.mean().item()


def test_words_are_heard_as_the_thinker_will_hear_them():
    stage, data = make_words(), spelt_batch()
    total, metrics = stage.loss(data, generator=noise())
    words, unlike = plain_words(stage, data)
    # float32 sums in another order
    assert float(metrics["words"]) == pytest.approx(words, rel=2e-5)
    assert float(metrics["unlike"]) == pytest.approx(unlike, rel=2e-5)
    others = float(metrics["ctc"]) + float(metrics["phones"])
    assert total.item() == pytest.approx(others + words + 0.5 * unlike, rel=2e-5)
    assert unlike < 1  # a fresh adapter speaks about as loudly as an embedding
    # planted fault: told without the adapter's norm
    stage.modules.encoder.norm.weight.data[:] = torch.linspace(0.5, 2, CONFIG.width)
    assert float(metrics["words"]) != pytest.approx(plain_words(stage, data)[0], rel=1e-3)


def test_words_teach_the_adapter_and_are_read_from_it():
    stage, data = make_words(), spelt_batch()
    learns = list(stage.trainable())
    assert {id(p) for p in stage.modules.encoder.proj.parameters()} <= {id(p) for p in learns}
    assert not any(p is stage.modules.encoder.bos_eos.weight for p in learns)
    before = stage.modules.words.table.clone()
    optimiser = torch.optim.AdamW(learns, lr=5e-3)
    for step in range(200):
        total, _ = stage.loss(data, generator=noise(step))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    read = ["".join(chr(n + ord("a")) for n in row) for row in stage.written(data.mels)]  # fmt: skip
    assert read == data.texts
    assert torch.equal(stage.modules.words.table, before)  # the Thinker stays as it is


def test_greedy_drops_repetitions_and_blanks():
    frames = torch.tensor([0, 3, 3, 0, 3, 4, 4, 0])
    assert greedy(F.one_hot(frames, 39).float()) == LETTERS.text([3, 3, 4])


def test_masks_hide_in_proportion_and_are_the_generators():
    mel = torch.randn(32, 1000, generator=noise())
    config = EarsConfig(time_masks=2, time_frames=20, band_masks=2, bands=5)
    masked, same, other = (mask_mel(mel, noise(seed), config) for seed in (1, 1, 2))
    assert torch.equal(masked, same) and not torch.equal(masked, other)
    changed = masked != mel
    columns, rows = changed.all(0).sum(), changed.all(1).sum()
    assert 0 < columns <= 4 * 20 and 0 < rows <= 2 * 5  # 10 s: four stretches of time
    assert torch.equal(masked[~changed], mel[~changed]) and masked[changed].unique().numel() == 1
    assert torch.equal(mask_mel(mel, noise(), PLAIN), mel)
    assert mask_mel(mel[:, :0], noise(), config).shape == (32, 0)
    assert mask_mel(mel[:, :3], noise(), EarsConfig(time_masks=500)).shape == (32, 3)
