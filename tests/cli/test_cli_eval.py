"""thinktalk eval: rows on paper, in JSON and on the page; what cannot be measured says why, and the rest goes on."""

from __future__ import annotations

import json

import pytest

from thinktalk.cli.main import main
from thinktalk.errors import InputError
from thinktalk.eval import suites
from thinktalk.eval.items import Item
from thinktalk.eval.rows import Row


def sums(bench):
    """Sums."""
    items = [Item(str(n), n) for n in range(bench.n)]
    results = bench.results("sums", items, lambda item: {"right": int(item.content % 4 > 0)})
    yield Row(key="sums", title="sums", tops=[r["right"] for r in results], keys=[r["key"] for r in results], seed=bench.seed)  # fmt: skip


def absent(bench):
    """What nobody has."""
    raise InputError("judge.whl: is not there, expected it; fetch it")


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suites, "abilities", lambda suite: {"sums": sums, "absent": absent})

    def call(*words):
        status = main(["eval", "nano", "--model", tiny_checkpoint, *words])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_a_table_with_intervals(run, tmp_path):
    status, out, err = run("--n", "40")
    assert status == 0 and "== sums" in err and "sums: 40 of 40" in err
    assert "75.0" in out and "not measured" in out and "judge.whl" in out
    told = json.loads((tmp_path / "out/eval/nano.json").read_text())
    assert "judge.whl" in json.dumps(told)
    assert len(list((tmp_path / "out/eval/items").iterdir())) == 1
    # again: nothing is asked, the same is told; a page, JSON, and the comparison with before
    status, again, err = run("--n", "40", "--rows", "sums", "--write", "nano.md", "--json", "--against", "out/eval/nano.json")  # fmt: skip
    assert status == 0 and isinstance(json.loads(again), dict)
    assert "75.0" in (tmp_path / "nano.md").read_text()
    assert "sums" in err


def test_quick_is_twenty(run):
    status, _, err = run("--quick", "--rows", "sums")
    assert status == 0 and "sums: 20 of 20" in err


def test_a_row_may_have_its_own_number(run, tmp_path):
    status, _, err = run("--n", "40", "--rows", "sums=12, absent")
    assert status == 0 and "sums: 12 of 12" in err
    assert "sums 12" in (tmp_path / "out/eval/nano.json").read_text()
    status, _, err = run("--rows", "sums=few")
    assert status == 2 and "'sums=few'" in err and err.count("\n") == 1


def test_what_is_refused(run, tmp_path):
    status, out, err = run("--rows", "sums,dancing")
    assert (status, out) == (2, "")
    assert err == "thinktalk: --rows 'dancing': is unknown; have sums, absent\n"
    status, _, err = run("--make-data", "--no-make")
    assert status == 2 and "--make-data" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists(), "what was refused leaves nothing behind"
