"""c1's second mode: codes that are known are found again by asking the frozen decoder alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_c2_flow import CONFIG as DIT
from test_c2_flow import TABLE, trained_world

from thinktalk.code2wav.dit import DiT
from thinktalk.config import Wav2CodeConfig
from thinktalk.data.speech import Symbols
from thinktalk.errors import ConfigError
from thinktalk.training.c1_inverse import Inverse, InverseConfig, InverseModules, InverseStage
from thinktalk.training.c1_tokenizer import Speech, TokenizerHeads
from thinktalk.training.c2_flow import FlowConfig, Utterances
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.wav2code.pieces import Pieces

pytestmark = pytest.mark.xdist_group("trained_world")  # as test_c2_flow.py

CONFIG = Wav2CodeConfig(
    num_mels=16, width=32, num_layers=1, num_heads=2, ffn_width=32, block_frames=12, pool=1, choices=40
)  # fmt: skip
FLOW = FlowConfig(start_share=0.5, free_share=0, stream_share=0, reference_frames=(5, 5), draft_until=0)  # fmt: skip


def make(dit: DiT | None = None, *, heads: bool = True, **config) -> InverseStage:
    torch.manual_seed(0)
    ears = TokenizerHeads(CONFIG, labels=4, num_layers=1) if heads else None
    modules = InverseModules(SpeechTokenizer(CONFIG), dit or DiT(DIT), ears)
    return InverseStage(modules, InverseConfig(flow=FLOW, **config))


def batch(generator: torch.Generator, clips: int = 6) -> Inverse:
    """Clips of the easy world of test_c2_flow, whose codes are known; the ears hear the same mel."""
    codes = [torch.randint(1, 4, (12,), generator=generator) for _ in range(clips)]
    mels = [TABLE[c - 1].repeat_interleave(2, 0).T for c in codes]
    noisy = [m + 0.1 * torch.randn(m.shape, generator=generator) for m in mels]
    labels = torch.randint(1, 5, (clips, 3), generator=generator)
    speech = Speech(noisy, labels, torch.full((clips,), 3))
    return Inverse(heard=speech, mels=mels, codes=codes)


def test_known_codes_are_found_again():
    """40 codes to choose from, 3 of them true; the decoder is never told which, nor are its weights touched."""
    dit = trained_world()
    before = {n: p.clone() for n, p in dit.named_parameters()}
    stage, g = make(dit, heads=False), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(stage.trainable(), lr=4e-3)
    found = []
    for step in range(100):
        stage.progress = step / 100
        loss, metrics = stage.loss(batch(g), generator=g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(metrics["recovered"]))
    assert found[0] < 0.3 and sum(found[-5:]) / 5 > 0.9, found[::10]
    assert metrics["hardness"] == 1.0
    fresh = batch(torch.Generator().manual_seed(99))
    codes = stage.modules.tokenizer.encode(fresh.heard.mels)
    right = (torch.cat(codes) == torch.cat(list(fresh.codes))).float().mean()
    assert right > 0.9
    assert all(torch.equal(before[n], p) for n, p in dit.named_parameters())


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_single_code_is_what_will_be_spoken():
    """Fully hard, the loss is the DiT's own of those codes; soft, it is another."""
    stage, data = make(heads=False, harden_until=0.5), batch(chance())
    soft, _ = stage.loss(data, generator=chance())
    stage.progress = 0.6
    hard, seen = stage.loss(data, generator=chance())
    assert seen["hardness"] == 1.0
    g = chance()
    codes = stage.modules.tokenizer.encode(data.heard.mels)
    torch.rand(sum(map(len, codes)), generator=g)  # whether each frame is hard
    spoken = Utterances(codes=codes, mels=data.mels)
    own, _ = stage.flow.loss_of(spoken, stage.flow.draw(spoken, g))
    # float32: the difference of embeddings passes the input layer as zeros
    assert hard.item() == pytest.approx(own.item(), rel=1e-5)
    assert abs(soft.item() - own.item()) > 1e-3 * own.item()


def test_only_the_encoder_learns_and_does_so_when_hard():
    for progress in (0.0, 1.0):
        stage, data = make(), batch(chance())
        stage.progress = progress
        learning = {id(p) for p in stage.trainable()}
        for p in stage.modules.parameters():
            p.requires_grad_(id(p) in learning)
        loss, metrics = stage.loss(data, generator=chance())
        loss.backward()
        got = {
            n for n, p in stage.modules.named_parameters() if p.grad is not None and p.grad.any()
        }
        assert not any(n.startswith("dit.") for n in got)
        assert {n for n, _ in stage.modules.tokenizer.named_parameters()} == {
            n.removeprefix("tokenizer.") for n in got if n.startswith("tokenizer.")
        }
        assert metrics["ctc"] > 0 and "lift.weight" in got


def test_it_hardens_with_the_run():
    stage, seen = make(harden_until=0.5), []
    for stage.progress in (0.0, 0.25, 0.5, 1.0):
        seen.append(stage.loss(batch(chance()), generator=chance())[1]["hardness"])
    assert seen == [0.0, 0.5, 1.0, 1.0]
    assert make(harden_until=0.0).loss(batch(chance()), generator=chance())[1]["hardness"] == 1.0


def test_its_reader_hears_what_the_heads_heard():
    stage = make()
    reader = stage.reader(Symbols(tuple("abcd")))
    modules = stage.modules
    codes = torch.tensor([1, 7, 40, 3])
    pieces = Pieces.cut([4], 6)
    (hidden,) = modules.heads.slots(modules.lift(modules.dit.codes(codes)), pieces)
    torch.testing.assert_close(reader.logits([codes])[0], modules.heads.ctc(hidden).detach())
    assert set(stage.parts()) == {"wav2code"}


def test_what_does_not_fit_is_refused():
    tokenizer = SpeechTokenizer(replace(CONFIG, choices=41))
    with pytest.raises(ConfigError, match=r"choices 41 from code 1: expected 1 to 40"):
        InverseStage(InverseModules(tokenizer, DiT(DIT)))
    with pytest.raises(ConfigError, match="free_share"):
        InverseConfig(flow=FlowConfig())
