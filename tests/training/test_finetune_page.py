"""docs/finetune.md holds the memory that the configurations give; the products of benchmarks/stack.py are those torch counts."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from thinktalk.config import tiny
from thinktalk.layers.decoder import Decoder
from thinktalk.messages import Embedded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["7B", "3B"])
def test_the_table_is_true(name, benchmarks):
    text = (ROOT / "docs" / "finetune.md").read_text()
    told = text.split(f"<!-- memory {name}: begin -->\n")[1].split("<!-- memory ")[0].strip()
    assert told == importlib.import_module("finetune_memory").page(name)


def test_products_are_counted_as_torch_counts(benchmarks):
    config, T = tiny().thinker.text, 32
    told = importlib.import_module("stack").model_flops(config, [T])
    decoder = Decoder(config)
    x = Embedded(torch.randn(1, T, config.width), torch.arange(T).expand(1, 3, -1))
    with FlopCounterMode(display=False) as counter:
        decoder(x).sum().backward()
    pairs = config.num_layers * 12 * config.num_heads * config.head_dim
    # attention apart: torch counts all T x T scores and, backward, the scores once more
    counted = counter.get_total_flops()
    expected = told - pairs * T * (T + 1) / 2
    attention = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "attention" in str(op))  # fmt: skip
    assert counted - attention == expected
