"""Sharing: items split among processes are asked once each, whoever was killed, and the first process has them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from thinktalk.errors import ConfigError, InputError
from thinktalk.eval import sharing
from thinktalk.eval.items import Item
from thinktalk.eval.sharing import ALONE, Share, run_shared

ITEMS = [Item(f"item {n}", n, told={"text": str(n)}) for n in range(7)]
IDENTITY = {"weights": "abc"}


def shared(folder: Path, share: Share, asked: list[int] | None = None, items=ITEMS, **more):
    def work(item: Item) -> dict:
        if asked is not None:
            asked.append(item.content)
        return {"twice": 2 * item.content, "by": share.rank}

    return run_shared(items, work, folder, "doubling", identity=IDENTITY, share=share, **more)


def lines(folder: Path) -> list[str]:
    """Keys of all results on disk."""
    found = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]  # fmt: skip
    return sorted(line["key"] for line in found if "key" in line)


def test_each_process_has_its_part_and_the_first_has_all(tmp_path):
    asked: list[int] = []
    assert [r["key"] for r in shared(tmp_path, Share(1, 3), asked)] == ["item 1", "item 4"]
    assert asked == [1, 4]
    shared(tmp_path, Share(2, 3))
    results = shared(tmp_path, Share(0, 3), asked)
    assert [r["twice"] for r in results] == [2 * n for n in range(7)]
    assert [r["by"] for r in results] == [n % 3 for n in range(7)]
    assert lines(tmp_path) == sorted(i.key for i in ITEMS), "a line each, in all files together"


@pytest.mark.parametrize("world", [1, 2, 5])
def test_what_was_begun_by_some_is_ended_by_others(tmp_path, world):
    shared(tmp_path, Share(1, 3))
    shared(tmp_path, ALONE, items=ITEMS[:1]) if world == 1 else None
    asked: list[int] = []
    for rank in reversed(range(world)):
        results = shared(tmp_path, Share(rank, world), asked)
    assert [r["twice"] for r in results] == [2 * n for n in range(7)]
    assert not {1, 4} & set(asked) and len(asked) == len(set(asked))
    assert lines(tmp_path) == sorted(i.key for i in ITEMS)
    again: list[int] = []
    assert shared(tmp_path, ALONE, again) == results and again == []


def test_planted_what_others_wrote_is_not_looked_at(tmp_path, monkeypatch):
    shared(tmp_path, Share(1, 3))
    monkeypatch.setattr(sharing, "_files", lambda *_: [])
    asked: list[int] = []
    shared(tmp_path, Share(1, 2), asked)
    assert asked == [1, 3, 5] and len(lines(tmp_path)) > len(set(lines(tmp_path)))


def test_a_share_that_gathers_nothing_waits_for_nobody(tmp_path):
    share = Share.of_environment({"RANK": "0", "WORLD_SIZE": "2", "THINKTALK_GATHER": "0"})
    assert not share.leads and len(shared(tmp_path, share)) == 4
    assert [r["by"] for r in shared(tmp_path, ALONE)] == [0] * 7, "what is left is asked by one"
    assert lines(tmp_path) == sorted(i.key for i in ITEMS)


def test_alone_it_is_one_file(tmp_path):
    shared(tmp_path, ALONE)
    assert len(list(tmp_path.iterdir())) == 1 and ".part" not in next(tmp_path.iterdir()).name


def test_a_process_that_never_comes_is_named_by_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"doubling: 3 of 7 results are missing \('item 1' first\)"):  # fmt: skip
        shared(tmp_path, Share(0, 2), patience=0.05)


def test_two_of_one_name_are_refused_in_any_part(tmp_path):
    with pytest.raises(InputError, match="two items are called 'item 0'"):
        shared(tmp_path, Share(0, 2), items=[ITEMS[0], ITEMS[0]])


def test_torchrun_says_who_one_is():
    assert Share.of_environment({}) == ALONE
    assert Share.of_environment({"RANK": "3", "WORLD_SIZE": "8"}) == Share(3, 8)
    for wrong in ({"RANK": "8", "WORLD_SIZE": "8"}, {"RANK": "x", "WORLD_SIZE": "2"}):
        with pytest.raises(ConfigError, match="torchrun"):
            Share.of_environment(wrong)


WORKER = """
import sys
from thinktalk.eval import sharing
from thinktalk.eval.items import Item
from thinktalk.eval.sharing import Share, run_shared
items = [Item(f"item {n}", n) for n in range(12)]
found = run_shared(items, lambda i: {"n": i.content}, sys.argv[1], "n", identity={}, share=Share.of_environment(), patience=60)
print(len(found))
"""


def test_processes_at_the_same_time(tmp_path):
    import os

    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}, stdout=subprocess.PIPE)
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0] and int(said[0]) == 12
    assert len(lines(tmp_path)) == len(set(lines(tmp_path))) == 12
