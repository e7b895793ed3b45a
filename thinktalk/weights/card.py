"""The model card of a packed model: what people wrote stays, the tables between the markers follow from the files.

README.md so far, configuration, {stage: parameters, bytes, sha256} -> README.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from thinktalk.config import OmniConfig

__all__ = ["card"]

BEGIN, END = "<!-- parts: written by thinktalk convert --pack -->", "<!-- end of parts -->"

WHAT = {
    "audio": "hears: log-mel to embeddings",
    "vision": "sees: patches to embeddings",
    "thinker": "understands and writes",
    "talker": "speaks in codes",
    "dit": "codes to mel",
    "vocoder": "mel to wave",
    "wav2code": "wave to codes: the speech tokenizer, for training and for new voices",
}

TEMPLATE = """\
# Model card

Packed by `thinktalk convert --pack`: matrices in int8 with one scale a row, one file a part.

{parts}
"""
"""The card of a model that has none yet."""


def card(text: str, config: OmniConfig, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The card with its tables as the files are now; `text` is the card so far, "" gives a first one."""
    tables = f"{BEGIN}\n{_tables(config, parts)}\n{END}"
    if BEGIN not in text or END not in text:
        return (text.rstrip() + "\n\n" + tables + "\n") if text.strip() else TEMPLATE.format(parts=tables)  # fmt: skip
    # a function, not a text: backslashes in it would be read as groups
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: tables, text, count=1, flags=re.DOTALL)  # fmt: skip


def _tables(config: OmniConfig, parts: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| part | | parameters | bytes | sha256 |", "|---|---|---|---|---|"]
    for stage, row in parts.items():
        lines.append(f"| `{stage}.safetensors` | {WHAT[stage]} | {row['parameters'] / 1e6:.2f} M | {row['bytes']:,} | `{row['sha256'][:16]}` |")  # fmt: skip
    total = sum(row["parameters"] for row in parts.values())
    size = sum(row["bytes"] for row in parts.values())
    lines += [f"| in all | | {total / 1e6:.2f} M | {size:,} | |", "", _rates(config)]
    return "\n".join(lines)


def _rates(config: OmniConfig) -> str:
    text = config.thinker.text
    said = f"Context {text.max_positions} tokens, vocabulary {text.vocab_size}"
    if (c := config.code2wav) is not None:
        said += f"; {float(c.codes_per_second):g} codes and {float(c.mel_frames_per_second):g} mel frames a second, sound at {c.sample_rate} Hz"  # fmt: skip
    return said + "."
