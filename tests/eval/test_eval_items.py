"""Items: each is asked once, whatever ends the run; results of another model are another file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thinktalk.errors import InputError
from thinktalk.eval.items import Item, journal_path, read_results, run_items

ITEMS = [Item(f"item {n}", n, told={"text": f"number {n}"}) for n in range(6)]
IDENTITY = {"weights": "abc", "seed": 0}


class Asked:
    """Doubles, and remembers whom it was asked for."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, item: Item) -> dict:
        self.keys.append(item.key)
        if item.content == 4:
            raise InputError("four: is no number, expected another\n; take it")
        return {"twice": 2 * item.content}


def check_whole(path: Path, results: list[dict]) -> None:
    """Each item has one line in the file, in any order, and one result, in theirs."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[0] == {"identity": IDENTITY}
    assert sorted(line["key"] for line in lines[1:]) == sorted(item.key for item in ITEMS)
    assert [r["key"] for r in results] == [item.key for item in ITEMS]
    assert all(r["text"] == item.told["text"] for r, item in zip(results, ITEMS, strict=True))


def ask(folder: Path, work, **more) -> list[dict]:
    return run_items(ITEMS, work, folder, "doubling", identity=IDENTITY, **more)


def test_one_result_an_item_and_a_fault_is_one(tmp_path):
    asked, seen = Asked(), []
    results = ask(tmp_path, asked, watch=lambda done, of: seen.append((done, of)))
    assert [r.get("twice") for r in results] == [0, 2, 4, 6, None, 10]
    assert results[4]["fault"] == "four: is no number, expected another ; take it"
    assert results[4]["text"] == "number 4"
    assert seen == [(n, 6) for n in range(1, 7)]
    path = journal_path(tmp_path, "doubling", IDENTITY)
    check_whole(path, results)
    assert ask(tmp_path, asked) == results == read_results(path)
    assert len(asked.keys) == 6, "what is on disk is not asked again"


def test_results_of_another_model_are_another_file(tmp_path):
    ask(tmp_path, Asked())
    other = Asked()
    run_items(ITEMS, other, tmp_path, "doubling", identity={**IDENTITY, "weights": "xyz"})
    assert len(other.keys) == 6
    assert len(list(tmp_path.iterdir())) == 2


WORKER = """
import os, signal, sys
from thinktalk.eval.items import Item, run_items
folder, deadly = sys.argv[1], int(sys.argv[2])
def work(item):
    with open(folder + "/log", "a") as log:
        log.write(f"{item.content}\\n")
    if item.content == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"twice": 2 * item.content}
items = [Item(f"item {n}", n, told={"text": f"number {n}"}) for n in range(6)]
run_items(items, work, folder, "doubling", identity={"weights": "abc", "seed": 0})
"""


def test_a_killed_run_goes_on_and_repeats_nothing(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for deadly, status in ((3, -signal.SIGKILL), (5, -signal.SIGKILL), (99, 0)):
        assert subprocess.run([*command, str(deadly)], env=environment).returncode == status
    asked = (tmp_path / "log").read_text().split()
    # who was asked when the kill came is asked again, and nobody else
    assert asked == ["0", "1", "2", "3", "3", "4", "5", "5"]
    path = journal_path(tmp_path, "doubling", IDENTITY)
    results = ask(tmp_path, lambda item: pytest.fail("all are done"))
    check_whole(path, results)
    # planted: a line that is lost, and one that is there twice
    lines = path.read_bytes().splitlines(keepends=True)
    for planted in (lines[:-1], [*lines, lines[-1]]):
        path.write_bytes(b"".join(planted))
        with pytest.raises(AssertionError):
            check_whole(path, results)


@pytest.mark.parametrize("cut", [1, 12, 40])
def test_half_a_line_is_asked_again(tmp_path, cut):
    results = ask(tmp_path, Asked())
    path = journal_path(tmp_path, "doubling", IDENTITY)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Asked()
    renewed = ask(tmp_path, again)
    assert again.keys == ["item 5"]
    check_whole(path, renewed)
    assert [r.get("twice") for r in renewed] == [r.get("twice") for r in results]


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="two items are called 'item 0'"):
        run_items([ITEMS[0], ITEMS[0]], Asked(), tmp_path, "x", identity={})

    told = []

    def nested(item: Item) -> dict:
        with pytest.raises(InputError, match="is written by another process"):
            ask(tmp_path, Asked())
        told.append(item.key)
        return {}

    ask(tmp_path, nested)
    assert len(told) == len(ITEMS)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run_items(ITEMS, Asked(), file, "x", identity={})


def test_a_fault_of_the_program_ends_the_run_and_keeps_what_was_done(tmp_path):
    def broken(item: Item) -> dict:
        if item.content == 2:
            raise RuntimeError("a mistake of ours")
        return {"twice": 2 * item.content}

    with pytest.raises(RuntimeError):
        ask(tmp_path, broken)
    again = Asked()
    ask(tmp_path, again)
    assert again.keys == [item.key for item in ITEMS[2:]]
