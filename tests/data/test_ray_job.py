"""Jobs over shards: whole or not at all, once each, the same here and on Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from thinktalk.data.mixture import expand
from thinktalk.data.ray_job import Task, filtering, making, run
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import scan
from thinktalk.data.synth import text
from thinktalk.data.synth.world import make_world
from thinktalk.errors import ConfigError, InputError


def odd(sample: Sample):
    """Odd samples stay, with a word more in their record; the fifth is said to be silent."""
    number = int(sample.where[-6:])
    if number == 5:
        raise InputError(f"{sample.where}: is silent")
    return {**sample.record, "source": "kept"} if number % 2 else False


class Judge:
    """Work with something that is loaded once."""

    def __init__(self):
        self.tasks = []

    def __call__(self, task: Task):
        self.tasks.append(task.name)
        yield "000000", {"json": json.dumps({"text": f"{len(self.tasks)} {task.name}"}).encode()}


def contents(folder: Path) -> dict[str, bytes]:
    return {Path(path).name: Path(path).read_bytes() for path in expand(folder)}


def test_filtering_keeps_what_it_is_told(speech, tmp_path):
    tasks, work = filtering(speech, odd)
    report = run(tasks, work, tmp_path)
    kept = [parse(entry) for path in expand(tmp_path) for entry in scan(path).entries]
    assert [int(s.where[-6:]) for s in kept] == [1, 3, *range(7, 30, 2)]
    assert {s.record["source"] for s in kept} == {"kept"} and all(s.pcm(16_000).size for s in kept)
    assert report.shards == 3 and report.samples == 14
    assert len(report.faults) == 1 and report.faults[0].endswith("000005: is silent")


def test_a_job_that_was_killed_goes_on(speech, tmp_path):
    tasks, work = filtering(speech, odd)

    def dies(task: Task):
        if task is tasks[1]:
            yield "000000", {"json": b"{}"}
            raise KeyboardInterrupt
        yield from work(task)

    with pytest.raises(KeyboardInterrupt):
        run(tasks, dies, tmp_path / "broken")
    assert len(contents(tmp_path / "broken")) == 1  # nothing that is half written
    again = run(tasks, work, tmp_path / "broken")
    whole = run(tasks, work, tmp_path / "whole")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert again.done_before == 1 and again.samples == whole.samples and again.faults == whole.faults  # fmt: skip
    assert run(tasks, dies, tmp_path / "whole").done_before == 3  # nothing is left to die of


def test_worlds_are_those_of_one_machine(tmp_path):
    make_world(text.ask, tmp_path / "one", counts={"train": 25}, seed=3, shard_samples=10)
    tasks, work = making(text.ask, 25, seed=3, shard_samples=10)
    run(tasks, work, tmp_path / "many")
    assert contents(tmp_path / "many") == contents(tmp_path / "one") != {}
    tasks, work = making(text.ask, 25, seed=4, shard_samples=10)  # planted: another seed
    run(tasks, work, tmp_path / "other")
    assert contents(tmp_path / "other") != contents(tmp_path / "one")


def test_a_shard_of_which_nothing_is_left_is_none(speech, tmp_path):
    tasks, work = filtering(speech, lambda sample: int(sample.where[-6:]) < 10)
    report = run(tasks, work, tmp_path)
    assert report.shards == 1 and report.samples == 10 and len(contents(tmp_path)) == 1


def test_a_class_is_made_once(tmp_path):
    run([Task("a"), Task("b")], Judge, tmp_path)
    said = [parse(e).text for p in expand(tmp_path) for e in scan(p).entries]
    assert said == ["1 a", "2 b"]


def test_mistakes(speech, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="two tasks are called 'a'"):
        run([Task("a"), Task("a")], Judge, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        run([Task("a")], Judge, tmp_path / "file" / "x")
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'thinktalk\[ray\]'"):
        run([Task("a")], Judge, tmp_path / "out", on="ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_does_the_same(speech, tmp_path):
    """Needs the extra `ray`, which .ci/slow installs."""
    import ray

    # workers cannot import this file
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        tasks, work = filtering(speech, odd)
        here = run(tasks, work, tmp_path / "here")
        there = run(tasks, work, tmp_path / "there", on="ray", workers=2)
        assert contents(tmp_path / "there") == contents(tmp_path / "here")
        assert (there.samples, sorted(there.faults)) == (here.samples, sorted(here.faults))
        judged = run([Task("a"), Task("b"), Task("c")], Judge, tmp_path / "judged", on="ray", workers=1)  # fmt: skip
        assert judged.samples == 3
        said = sorted(parse(e).text[0] for p in expand(tmp_path / "judged") for e in scan(p).entries)  # fmt: skip
        assert said == ["1", "2", "3"]  # one judge for all
    finally:
        ray.shutdown()
