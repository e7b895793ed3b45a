"""Live figures come from a process of its own, a value a turn; one that dies is a fault and not the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import thinktalk
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.suites import nano_live


@pytest.fixture
def bench(tmp_path: Path, tiny_checkpoint: str) -> Bench:
    held = HeldOut(folder=tmp_path / "none", n=2, make=False)
    return Bench(omni=thinktalk.load(tiny_checkpoint, parts=("thinker",)), model="tiny", sum="0", held=held, out=tmp_path / "out", n=2)  # fmt: skip


def here(bench, monkeypatch, work):
    """The measurement in this process: another one would import torch for seconds."""
    monkeypatch.setattr(nano_live, "ProcessPoolExecutor", lambda n, context: ThreadPoolExecutor(n))
    monkeypatch.setattr(nano_live, "measured", work)
    return {row.key: row for row in nano_live.live(bench)}


def test_turns_are_measured(bench, monkeypatch):
    monkeypatch.setattr(nano_live, "CORES", 1)
    monkeypatch.setattr(nano_live, "ANSWER_SECONDS", 0.4)
    rows = here(bench, monkeypatch, nano_live.measured)
    for name in ("real_time_factor", "first_sound_ms"):
        row = rows[f"live/{name}"]
        assert len(row.tops) == 2 and min(row.tops) > 0 and row.lower_is_better
        assert "load average" in row.note
    assert 50 < rows["live/memory"].value.value < 1e5


def test_a_process_that_dies_is_a_fault(bench, monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    def dies(*_):
        raise BrokenProcessPool("gone")

    rows = here(bench, monkeypatch, dies)
    assert all("was ended" in row.missing for row in rows.values()) and len(rows) == 3


def test_a_model_without_a_word_is_said(bench, monkeypatch):
    silent = {"peak_mb": 100.0, "busy": 0.0, "real_time_factor": [], "first_sound_ms": []}
    rows = here(bench, monkeypatch, lambda *_: silent)
    assert rows["live/first_sound_ms"].missing == "no answer had sound"
    assert rows["live/memory"].value.value == 100.0
