"""p1, p2, p3, s1 from shards to checkpoints that open, in which only what was trained has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from sample_house import write_shards

from thinktalk.cli.main import main
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training.parallel import World
from thinktalk.weights import hf
from thinktalk.weights.convert import convert
from thinktalk.weights.files import TensorFiles
from thinktalk.weights.lora import LoraAdapter

PARTS = {
    "p1_align": {"thinker.audio_tower", "thinker.visual"},
    "p2_joint": {"thinker.audio_tower", "thinker.visual", "thinker.model"},
    "p3_long": {"thinker.audio_tower", "thinker.visual", "thinker.model"},
    "s1_sft": {"thinker.model"},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    """Recordings, sums, plain text."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "speech", shards=1, samples=8)
    with ShardWriter(folder / "text" / "train") as writer:
        for n in range(24):
            turns = [{"role": "user", "content": f"{n} plus 2?"}, {"role": "assistant", "content": f"{n + 2}."}]  # fmt: skip
            record = {"messages": turns} if n % 2 else {"text": f"Number {n} stood in the rain."}
            writer.write(str(n), {"json": json.dumps(record).encode()})
    return f"{folder}/speech,{folder}/text/*.tar@2"


def train(name: str, start: str, shards: str, out: Path, *more: str) -> None:
    words = ["tokens=512", "steps=2", "optim.lr=1e-3", f"start={start}", f"shards={shards}", *more]
    assert main(["train", name, "--out", str(out), "--json", *[w for s in words for w in ("--set", s)]]) == 0  # fmt: skip


def changed(one: str | Path, other: str | Path) -> set[str]:
    """Beginnings of the names of tensors that differ."""
    a, b = TensorFiles(Path(one)), TensorFiles(Path(other))
    assert set(a) == set(b)
    return {".".join(n.split(".")[:2]) for n in a if not torch.equal(a.read(n), b.read(n))} - {"thinker.lm_head"}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "p3_long" else n for n in PARTS]
)
def test_from_shards_to_a_checkpoint(name, shards, tiny_checkpoint, tmp_path, capsys):
    more = {"p1_align": ["adapters_first=0.0"], "s1_sft": ["cache_mb=1", "precision=bf16"]}
    train(name, tiny_checkpoint, shards, tmp_path / "run", *more.get(name, []))
    said = json.loads(capsys.readouterr().out)
    assert said["step"] == 2 and said["model"] == str(tmp_path / "run" / "model")
    # these shards have no pictures: eyes that learn have nothing to learn from
    assert changed(tiny_checkpoint, said["model"]) | {"thinker.visual"} >= PARTS[name]
    assert changed(tiny_checkpoint, said["model"]) <= PARTS[name]
    hf.load(said["model"])


def test_lora_is_merged_and_written_as_peft(shards, tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "run"
    settings = ["lora.rank=4", "lora.targets=q,up", "frozen=bfloat16", "precision=bf16"]
    train("s1_sft", tiny_checkpoint, shards, out, *settings)
    assert sorted(os.listdir(out / "adapter")) == ["adapter_config.json", "adapter_model.safetensors"]  # fmt: skip
    adapter = LoraAdapter(out / "adapter")
    assert adapter.config["base_model_name_or_path"] == tiny_checkpoint
    convert(tiny_checkpoint, tmp_path / "merged", lora=[out / "adapter"])
    a, b = TensorFiles(out / "model"), TensorFiles(tmp_path / "merged")
    moved = 0
    for name in b:
        ours, theirs = a.read(name), b.read(name)
        # the run held its base in bfloat16, its result does not: float32, one rounding
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6), name
        moved += name in adapter.changes
    assert moved == len(adapter.changes) == 2 * 3


def test_words_for_wrong_numbers(tiny_checkpoint):
    for name, setting, told in (
        ("p2_joint", "tasks=sing", "sing; expected some of"),
        ("p2_joint", "speech=2", "speech is 2.0, expected 0 to 1"),
        ("p2_joint", "tokens=1", "tokens is 1, expected 8 or more"),
    ):
        with pytest.raises(ConfigError, match=told):
            change(find_recipe(name), [setting])
    with pytest.raises(ConfigError, match="set precision=bf16"):
        change(find_recipe("s1_sft"), ["frozen=bfloat16"]).stage()
    with pytest.raises(ConfigError, match="learns ears"):
        change(find_recipe("p2_joint"), [f"start={tiny_checkpoint}", "learns=ears"]).stage()


def test_resumed_rows_are_the_rows(shards, tiny_checkpoint):
    """The place in the data is exact: what comes after a state comes again."""
    recipe = change(find_recipe("p2_joint"), [f"start={tiny_checkpoint}", f"shards={shards}", "tokens=300"])  # fmt: skip
    data = recipe.data(World())
    batches = iter(data)
    for _ in range(3):
        next(batches)
    state, expected = data.state_dict(), next(batches)
    other = recipe.data(World())
    other.load_state_dict(state)
    found = next(iter(other))
    assert torch.equal(found.token_ids, expected.token_ids) and found.names == expected.names
    assert all(torch.equal(a, b) for a, b in zip(found.audio, expected.audio, strict=True))
