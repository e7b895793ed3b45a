"""docs/memory.md holds the numbers that the configurations give."""

from pathlib import Path

import pytest
from torch import nn

from thinktalk import config as cfg
from thinktalk.weights.model import PARTS, build

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
MODELS = {"7B": cfg.omni_7b, "3B": cfg.omni_3b, "nano": cfg.nano}


def table(name: str) -> list[str]:
    text = PAGE.read_text().split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    return text.strip().splitlines()[2:]


def weights() -> list[str]:
    rows = []
    for name, config in MODELS.items():
        stages = build(config()).stages()
        for part, members in PARTS.items():
            modules = [stages[stage] for stage in members]
            count = sum(p.numel() for module in modules for p in module.parameters())
            linear = [
                m.weight for module in modules for m in module.modules() if isinstance(m, nn.Linear)
            ]
            matrices, channels = sum(w.numel() for w in linear), sum(len(w) for w in linear)
            int8 = matrices + 4 * channels + 2 * (count - matrices)
            sizes = " | ".join(f"{size / 1e9:.2f}" for size in (4 * count, 2 * count, int8))
            rows.append(f"| {name} | {part} | {count / 1e6:.1f} M | {sizes} |")
    return rows


def context() -> list[str]:
    rows = []
    for name, config in MODELS.items():
        decoders = (config().thinker.text, config().talker.decoder)
        token = sum(2 * 2 * d.num_layers * d.num_kv_heads * d.head_dim for d in decoders)
        sizes = " | ".join(
            f"{tokens * token / 1e9:.2f} GB" for tokens in (4096, decoders[0].max_positions)
        )
        rows.append(f"| {name} | {token / 1000:.0f} KB | {sizes} |")
    return rows


@pytest.mark.parametrize("name", ["weights", "context"])
def test_the_tables_are_true(name):
    assert table(name) == {"weights": weights, "context": context}[name]()
