"""thinktalk bench: one JSON object of figures that fit together, a table for people, and who is refused. No time is judged."""

from __future__ import annotations

import json

import pytest
import soundfile

from thinktalk import load as load_model
from thinktalk.cli.main import main
from thinktalk.engine import Busy, Engine, measure

SHORT = ["--seconds", "0.3", "--points", "2", "--method", "euler"]
ROUNDING_MS = (
    0.01  # figures are printed with three digits; medians of one turn add up exactly but for these
)


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        try:
            status = main(["bench", *map(str, words), "--model", tiny_checkpoint])
        except SystemExit as stop:  # argparse
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def check_parts_add_up(told: dict) -> None:
    parts = [told[f"{name}_ms"] for name in ("input", "text_to_code", "code_to_sound")]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(told["first_sound_ms"], abs=ROUNDING_MS)
    assert 0 < told["steps_ms"] <= told["first_sound_ms"] + ROUNDING_MS


def test_latency_prints_one_object_whose_parts_add_up(run, tmp_path):
    soundfile.write(tmp_path / "q.wav", measure.babble(2.3), 16_000)
    status, out, err = run("latency", "--turns", 1, "--audio", "q.wav", "--json", *SHORT)
    assert status == 0, err
    assert out.count("\n") == 1
    told = json.loads(out)
    assert told["bench"] == "latency"
    assert told["flow"] == "euler 2"
    assert (told["codes"], told["seconds"], told["heard_s"]) == (15, 0.3, 2.3)
    check_parts_add_up(told)
    assert told["real_time_factor"] > 0
    assert told["listening_factor"] > 0
    assert set(told["work_ms"]) == {"READ", "BEGIN", "THINK", "OPEN", "TALK", "SOUND"}
    with pytest.raises(AssertionError):  # planted: a part that is counted twice
        check_parts_add_up({**told, "input_ms": told["input_ms"] + told["text_to_code_ms"]})


def test_load_prints_a_table_then_the_object(run):
    status, out, err = run("load", "--sessions", 3, "--spread", 0, *SHORT)
    assert status == 0, err
    *table, last = out.splitlines()
    told = json.loads(last)
    assert (told["sessions"], told["refused"], told["one"]["sessions"]) == (3, 0, 1)
    assert (told["codes"], told["one"]["codes"]) == (45, 15)
    assert told["tokens_per_s_gain"] == pytest.approx(
        told["tokens_per_s"] / told["one"]["tokens_per_s"], rel=1e-2
    )
    assert table[0].split() == ["sessions", "1", "3"]
    assert any(line.startswith("first sound, ms") for line in table)


@pytest.mark.parametrize(
    "words",
    [
        ["speed"],
        ["latency", "--seconds", "0"],
        ["latency", "--turns", "0"],
        ["load", "--sessions", "0"],
        ["load", "--spread", "nan"],
        ["latency", "--audio", "q.wav", "--listen", "1"],
        ["latency", "--audio", "nowhere.wav"],
        ["latency", "--voice", "Nobody"],
    ],
)
def test_what_cannot_be_measured_is_one_line(run, words):
    status, out, err = run(*words)
    assert (status, out, err.count("\n")) == (2, "", 1), err


def test_who_is_refused_is_counted_and_none_is_busy(tiny_checkpoint):
    omni = load_model(tiny_checkpoint)
    short = measure.Question(seconds=0.1, points=2, method="euler")
    engine = Engine(omni.model, omni.tokenizer, max_sessions=2)
    told = measure.load(engine, short, sessions=3, spread_s=0.0)
    assert (told.sessions, told.refused, len(told.turns)) == (2, 1, 2)
    assert not engine.running
    assert not engine.seats
    full = Engine(omni.model, omni.tokenizer, max_bytes=1)
    with pytest.raises(Busy):
        measure.load(full, short, sessions=2)
