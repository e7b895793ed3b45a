"""LoRA: values, gradients and steps are PEFT's; its files are PEFT's; merged it is the same model."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from reference import part_weights, tiny_reference
from thinker_house import CONFIG, batch, fresh

from thinktalk.errors import ConfigError
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker
from thinktalk.training.lora import LoraConfig, LoraLinear, add_lora, merged, save_adapter
from thinktalk.training.s1_sft import SftStage
from thinktalk.weights.lora import LoraAdapter
from thinktalk.weights.names import official_name

OURS = {"q_proj": "attn.q", "v_proj": "attn.v", "down_proj": "mlp.down"}
SETTINGS = dict(rank=4, alpha=12.0, targets="q,v,down", rslora=True)


def adapted(**options) -> Thinker:
    """The reference's Thinker with adapters whose B is not zero."""
    thinker = Thinker(CONFIG.thinker.text)
    thinker.load_state_dict(part_weights(tiny_reference(), "thinker"))
    torch.manual_seed(3)
    add_lora(thinker, LoraConfig(**{**SETTINGS, **options}))
    for child in thinker.modules():
        if isinstance(child, LoraLinear):
            torch.nn.init.normal_(child.b, std=0.05)
    return thinker


def hidden(thinker: Thinker) -> torch.Tensor:
    ids = torch.arange(20)[None]
    return thinker(Embedded(thinker.embed(ids), torch.arange(20).expand(1, 3, -1)))


def peft_twin(thinker: Thinker) -> PeftModel:
    """PEFT's model over transformers' with the same A and B."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = PeftConfig(r=4, lora_alpha=12, target_modules=list(OURS), use_rslora=True)
        language = copy.deepcopy(tiny_reference()).thinker.model.language_model
        twin = get_peft_model(language, config)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            for theirs, ours in OURS.items():
                if f"{theirs}.lora_" in name:
                    number = name.split("layers.")[1].split(".")[0]
                    layer = thinker.get_submodule(f"layers.{number}.{ours}")
                    parameter.copy_(layer.a if "lora_A" in name else layer.b)
    return twin


def steps(forward, parameters) -> tuple[list[float], list[torch.Tensor]]:
    """Three steps of AdamW on the mean square of the hidden states; losses, and what the parameters are then."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    for _ in range(3):
        loss = (forward() - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, [p.detach() for p in parameters]


def test_it_learns_as_peft_does():
    ours = adapted()
    mine = [p for n, p in ours.named_parameters() if n.endswith((".a", ".b"))]
    for parameter in ours.parameters():
        parameter.requires_grad_(any(parameter is p for p in mine))
    twin = peft_twin(ours)
    theirs = [p for p in twin.parameters() if p.requires_grad]
    ids = torch.arange(20)[None]
    expected = steps(lambda: twin(input_ids=ids).last_hidden_state, theirs)
    found = steps(lambda: hidden(ours), mine)
    # float32, sums in another order; Adam's first steps are of equal size whatever the gradient's
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert len(mine) == len(theirs) == 2 * 3 * CONFIG.thinker.text.num_layers
    order = lambda ps: sorted(ps, key=lambda p: (tuple(p.shape), float(p.abs().sum())))  # noqa: E731
    for a, b in zip(order(found[1]), order(expected[1]), strict=True):
        assert torch.allclose(a, b, atol=2e-4)
    wrong = adapted(rslora=False)  # planted fault: another scale
    assert float((hidden(wrong) - 0.5).square().mean().detach()) != pytest.approx(expected[0][0], rel=1e-4)  # fmt: skip


def test_fresh_adapters_change_nothing_and_are_drawn_as_pefts():
    thinker = Thinker(CONFIG.thinker.text)
    before = hidden(thinker)
    assert len(add_lora(thinker, LoraConfig(rank=8))) == 7 * CONFIG.thinker.text.num_layers
    assert torch.equal(hidden(thinker), before)
    layer = thinker.layers[0].attn.q
    bound = layer.a.shape[1] ** -0.5  # kaiming_uniform with a = sqrt(5)
    assert not layer.b.any() and 0.9 * bound < layer.a.abs().max() <= bound


def test_merged_is_the_same_model_and_leaves_it_alone():
    thinker = adapted()
    names = set(thinker.state_dict())
    whole = merged(thinker)
    assert set(whole.state_dict()) == set(Thinker(CONFIG.thinker.text).state_dict())
    assert set(thinker.state_dict()) == names
    assert whole.embed.weight is thinker.embed.weight  # nothing is held twice
    base = thinker.layers[0].attn.q.base.weight
    difference = (whole.layers[0].attn.q.weight - base).abs().max()
    assert difference > 1e-2
    # float32: W x + s B A x against (W + s B A) x
    assert torch.allclose(hidden(whole), hidden(thinker), rtol=1e-4, atol=1e-4)


def test_peft_and_our_reader_open_what_was_saved(tmp_path):
    thinker = adapted()
    save_adapter(tmp_path / "adapter", "thinker", thinker, LoraConfig(**SETTINGS), base="somewhere")
    whole = merged(thinker).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers
        tuned = PeftModel.from_pretrained(copy.deepcopy(tiny_reference()), tmp_path / "adapter")
    theirs = part_weights(tuned.merge_and_unload(), "thinker")
    adapter = LoraAdapter(tmp_path / "adapter")
    plain = part_weights(tiny_reference(), "thinker")
    assert len(adapter.changes) == 3 * CONFIG.thinker.text.num_layers
    for name, tensor in whole.items():
        assert torch.allclose(theirs[name], tensor, atol=1e-6), name  # one rounding of float32
        assert torch.allclose(adapter.merge(official_name("thinker", name), plain[name]), tensor, atol=1e-6)  # fmt: skip


def test_dropout_only_while_it_learns():
    thinker = adapted(dropout=0.5).train()
    torch.manual_seed(0)
    assert not torch.equal(hidden(thinker), hidden(thinker))
    thinker.eval()
    assert torch.equal(hidden(thinker), hidden(thinker))


def test_a_stage_gives_its_adapters_as_one_matrix():
    stage = SftStage(fresh(), lora=LoraConfig(rank=2))
    with torch.no_grad():
        stage.thinker.layers[0].mlp.up.b.fill_(0.1)
    part = stage.parts()["thinker"]
    base = fresh().thinker.state_dict()
    moved = {n for n, t in part.state_dict().items() if not torch.equal(t, base[n])}
    assert moved == {"layers.0.mlp.up.weight"}
    loss = lambda: float(stage.loss(batch("text"), generator=torch.Generator())[0])  # noqa: E731
    with torch.no_grad():
        expected = loss()
        stage.thinker = part
        assert loss() == pytest.approx(expected, rel=1e-5)


def test_words_for_wrong_numbers():
    with pytest.raises(ConfigError, match=r"lora.targets qkv: no layer is called so; have .*q, up"):
        add_lora(Thinker(CONFIG.thinker.text), LoraConfig(rank=2, targets="q,qkv"))
    with pytest.raises(ConfigError, match="rank -1"):
        LoraConfig(rank=-1)
