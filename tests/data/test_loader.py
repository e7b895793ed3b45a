"""The loader: the same batches for any workers and ranks, exact resume in the middle of a shard, faults passed by."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from sample_house import RATE, record, write_shards
from torchdata.stateful_dataloader import StatefulDataLoader

from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Bins, Buckets, Plan
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.errors import ConfigError, InputError
from thinktalk.training.stage import Data, Resharding


def make(sample, generator):
    """A sound's first samples and a random number, as augmentation would draw one."""
    return sample.record["codes"][0], float(sample.pcm(RATE)[7]), float(torch.rand((), generator=generator))  # fmt: skip


def loader(paths, **options) -> Loader:
    plan = Plan(Mixture([Source(paths)], seed=5), Buckets(2.5, edges=(0.55,)))
    return Loader(plan, make, list, **options)


def take(source, count):
    return list(itertools.islice(source, count))


@pytest.fixture(scope="module")
def whole(speech):
    batches = take(loader(speech), 24)
    assert len({x for b in batches for x in b}) > 60  # numbers differ from draw to draw
    return batches


def test_workers_do_not_change_anything(speech, whole):
    assert take(loader(speech, workers=2), 24) == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_one_plan(speech, whole, world):
    ranks = [iter(loader(speech, rank=r, world=world)) for r in range(world)]
    together = [next(ranks[n % world]) for n in range(24)]
    assert together == whole


@pytest.mark.parametrize(("stop", "before", "after"), [(0, 2, 0), (5, 2, 0), (6, 0, 2), (13, 2, 1)])
def test_resume_is_exact_whoever_reads(speech, whole, stop, before, after):
    """Two workers have read ahead when the run stops: what was not delivered must come again."""
    first = loader(speech, workers=before)
    assert take(first, stop) == whole[:stop]
    state = json.loads(json.dumps(first.state_dict()))
    again = loader(speech, workers=after)
    again.load_state_dict(state)
    assert take(again, 24 - stop) == whole[stop:]
    assert again.samples == sum(map(len, whole))


def test_resume_with_another_world(speech, whole):
    first = [loader(speech, rank=r, world=3) for r in range(3)]
    heads = [take(one, 4) for one in first]
    assert [b for step in zip(*heads, strict=True) for b in step] == whole[:12]
    again = [loader(speech, rank=r, world=2) for r in range(2)]
    for one in again:
        assert isinstance(one, Data) and isinstance(one, Resharding)
        one.reshard([former.state_dict() for former in first])
    tails = [take(one, 6) for one in again]
    assert [b for step in zip(*tails, strict=True) for b in step] == whole[12:]


def test_ranks_that_parted_are_refused(speech):
    first = [loader(speech, rank=r, world=2) for r in range(2)]
    take(first[0], 3)
    with pytest.raises(ConfigError, match=r"stood at batches \[0, 6\]"):
        loader(speech).reshard([one.state_dict() for one in first])


def test_many_snapshots_later(speech):
    """The plan's state is kept every 64 batches; the place is exact between them, and a second iterator goes on."""
    one = loader(speech)
    batches = take(one, 150)
    state = one.state_dict()
    assert 64 <= state["plan"]["number"] <= 150
    following = take(one, 10)
    again = loader(speech)
    again.load_state_dict(state)
    assert take(again, 10) == following
    assert take(loader(speech), 160) == batches + following


def check_resume(batches, whole):
    assert batches == whole


def test_planted_fault_the_plan_itself_has_read_ahead(speech, whole):
    """Saving where the plan stands, not where the deliveries are, loses the batches on their way."""
    first = loader(speech, workers=2)
    running = iter(first)
    take(running, 5)
    ahead = first.plan.state_dict()
    state = first.state_dict() | {"number": ahead["number"], "plan": ahead}
    again = loader(speech)
    again.load_state_dict(state)
    with pytest.raises(AssertionError):
        check_resume(take(again, 5), whole[5:10])


@pytest.fixture
def spoiled(speech, tmp_path):
    """The second shard's first two sounds are noise."""
    paths = [shutil.copy(path, tmp_path) for path in speech]
    entries = scan(paths[1]).entries[:2]
    with open(paths[1], "r+b") as file:
        for entry in entries:
            member = next(m for m in entry.members if m.name == "wav")
            file.seek(member.start)
            file.write(b"\0" * member.size)
    return paths, [entry.where for entry in entries]


@pytest.mark.parametrize("workers", [0, 2])
def test_spoiled_samples_are_passed_by_counted_and_named(spoiled, whole, workers):
    paths, names = spoiled
    one = loader(paths, workers=workers)
    batches = take(one, 24)
    numbers = {int(name[-6:]) for name in names}
    assert batches == [[x for x in b if x[0] not in numbers] for b in whole]
    missing = sum(x[0] in numbers for b in whole for x in b)
    assert one.skipped == missing > 0 and one.samples == sum(map(len, whole))
    assert {f.where.rpartition(".")[0] for f in one.faults} == set(names)


def test_a_batch_that_loses_all_takes_neighbours(spoiled):
    """Ranks stay in step: every planned batch is a batch."""
    paths, _ = spoiled
    plan = Plan(Mixture([Source(paths, shuffle=False)]), Buckets(1e-3))
    one = Loader(plan, make, list)
    batches = take(one, 12)
    assert [len(b) for b in batches] == [1] * 12
    assert [b[0][0] for b in batches] == [*range(10), 12, 12]
    assert one.skipped == 3


def test_too_many_faults_stop_the_run(tmp_path):
    with ShardWriter(tmp_path / "a") as shards:
        for i in range(90):
            shards.write(f"{i}", {"json": json.dumps(record(i)).encode(), "wav": b"noise"})
    plan = Plan(Mixture([Source(shards.paths[0])]), Buckets(5.0))
    with pytest.raises(InputError, match=r"samples in a row cannot be used, the last one: .*a-00000.tar"):  # fmt: skip
        take(Loader(plan, make, list), 1)
    more = write_shards(tmp_path, shards=1, samples=60)
    plan = Plan(Mixture([Source([str(shards.paths[0]), *more])]), Buckets(5.0))
    with pytest.raises(InputError, match=r"of \d+ samples cannot be used"):
        take(Loader(plan, make, list), 100)


def test_a_plan_that_fills_nothing_says_so(speech):
    bins = Bins(0.1)
    plan = Plan(Mixture([Source(speech)]), bins)
    plan.mixture.sources[0].costs[:] = 1e9
    with pytest.raises(InputError, match="filled no batch"):
        plan.next()
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        loader(speech, rank=2, world=2)


# torchdata 0.11 calls a counter that torch 2.13 gave up
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_torchdata_resumes_it_too(speech, whole):
    """Those who drive torchdata's StatefulDataLoader over the plan get the same batches, and its own resume."""

    def stateful_loader():
        one = loader(speech)
        return StatefulDataLoader(
            one.reader, batch_size=None, sampler=one.plan, collate_fn=lambda x: x
        )

    first = stateful_loader()
    running = iter(first)
    assert [x for x, _, _ in take(running, 7)] == whole[:7]
    state = first.state_dict()
    again = stateful_loader()
    again.load_state_dict(state)
    assert [x for x, _, _ in take(again, 9)] == whole[7:16]
