"""The plan of batches: whole epochs, shares, buckets, packed rows; and a place that can be left and found again."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from sample_house import record, write_shards

from thinktalk.data.mixture import Draw, Mixture, Source, expand, weighted
from thinktalk.data.plan import Bins, Buckets, Plan
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError, InputError


def test_an_epoch_has_every_sample_once_in_new_order(speech):
    source = Source(speech)
    orders = [source.order(0, 0, epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(30))
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], source.order(0, 0, 0))
    assert not np.array_equal(orders[0], source.order(1, 0, 0))
    # two shards at a time: the first twenty samples are of two shards
    assert len({i // 10 for i in source.order(0, 0, 0, window=2)[:20]}) == 2
    assert Source(speech, shuffle=False).order(0, 0, 5).tolist() == list(range(30))


def test_shares_of_cost_hold_from_the_start(speech, tmp_path):
    """Three times the weight, three times the seconds, whatever the lengths; no source runs dry."""
    other = Source(write_shards(tmp_path, shards=1, samples=4), weight=3.0)
    mixture = Mixture([Source(speech), other])
    spent = np.zeros(2)
    for _ in range(400):
        draw = mixture.draw()
        spent[draw.source] += mixture.cost(draw)
        # one sample of at most 0.65 s is all that a source can be ahead or behind
        assert abs(spent[1] / 3 - spent[0]) < 0.66
    assert draw.epoch > 0


def test_samples_without_a_cost_still_take_their_turn(tmp_path):
    with ShardWriter(tmp_path / "a") as shards:
        for i in range(4):
            shards.write(f"{i}", {"json": json.dumps({"seconds": float(i % 2)}).encode()})
    seen = Counter(d.index for d in (Mixture([Source(shards.paths[0])]).draw() for _ in range(4)))
    assert len(seen) == 1  # four fresh mixtures begin alike
    mixture = Mixture([Source(shards.paths[0]), Source(shards.paths[0])])
    assert {mixture.draw().source for _ in range(2)} == {0, 1}
    with pytest.raises(ConfigError, match="cost nothing"):
        Source(shards.paths[0], measure=lambda record: 0.0)


def test_buckets_hold_their_budget_and_their_kind(speech):
    mixture = Mixture([Source(speech)])
    plan = Plan(mixture, Buckets(3.0, edges=(0.52, 0.6)))
    seen = Counter()
    for draws in itertools.islice(plan, 60):
        costs = [mixture.cost(d) for d in draws]
        assert max(costs) * len(costs) <= 3.0
        assert len({np.searchsorted((0.52, 0.6), c) for c in costs}) == 1
        seen.update(d.index for d in draws)
    assert set(seen) == set(range(30))
    assert max(seen.values()) - min(seen.values()) <= 2  # what waits is all that is owed


def test_a_sample_over_the_budget_comes_alone():
    buckets = Buckets(1.0)
    assert buckets.add(Draw(0, 0, 0), 5.0) is None
    assert buckets.add(Draw(0, 0, 1), 5.0) == [Draw(0, 0, 0)]
    few = Buckets(100.0, max_samples=2)
    assert [few.add(Draw(0, 0, i), 0.1) for i in range(3)] == [None, None, [Draw(0, 0, 0), Draw(0, 0, 1)]]  # fmt: skip


def test_bins_pack_tightly_and_lose_nothing():
    random = np.random.default_rng(0)
    costs = random.integers(5, 60, 2000)
    bins = Bins(100, rows=2, open_rows=16)
    batches = [b for i, c in enumerate(costs) if (b := bins.add(Draw(0, 0, i), float(c)))]
    drawn = [d.index for b in batches for d in b]
    waiting = bins.state_dict()
    left = [d[2] for row in waiting["open"] for d in row] + [d[2] for row in waiting["full"] for d in row]  # fmt: skip
    assert sorted(drawn + left) == list(range(2000))
    fill = sum(costs[i] for i in drawn) / (len(batches) * 2 * 100)
    assert fill > 0.95, fill  # next fit, without open rows, reaches 0.76 here
    assert bins.add(Draw(0, 0, 1), 101.0) is None
    assert bins.dropped == 1


@pytest.mark.parametrize("grouping", [lambda: Buckets(3.0, edges=(0.55,)), lambda: Bins(2.0, rows=2, open_rows=3)])  # fmt: skip
def test_a_plan_goes_on_exactly(speech, tmp_path, grouping):
    sources = [Source(speech), Source(write_shards(tmp_path, shards=2, samples=5), weight=0.5)]

    def fresh() -> Plan:
        return Plan(Mixture(sources, seed=3), grouping())

    whole = list(itertools.islice(fresh(), 80))
    for stop in (0, 1, 7, 33, 79):
        first = fresh()
        assert list(itertools.islice(first, stop)) == whole[:stop]
        state = json.loads(json.dumps(first.state_dict()))  # it survives JSON
        again = fresh()
        again.load_state_dict(state)
        assert list(itertools.islice(again, 80 - stop)) == whole[stop:]
    # a state that forgets what waits does not go on exactly
    state["grouping"] = fresh().grouping.state_dict()
    again.load_state_dict(state)
    first = fresh()
    list(itertools.islice(first, 33))
    forgetful = first.state_dict() | {"grouping": fresh().grouping.state_dict()}
    again.load_state_dict(forgetful)
    assert list(itertools.islice(again, 47)) != whole[33:]


def test_a_state_of_other_data_is_refused(speech):
    state = Plan(Mixture([Source(speech)]), Buckets(3.0)).state_dict()
    with pytest.raises(ConfigError, match=r"sources of \[30\] samples with seed 0"):
        Plan(Mixture([Source(speech[:2])]), Buckets(3.0)).load_state_dict(state)
    with pytest.raises(ConfigError, match="seed 1"):
        Plan(Mixture([Source(speech)], seed=1), Buckets(3.0)).load_state_dict(state)
    with pytest.raises(ConfigError, match="edges"):
        Plan(Mixture([Source(speech)]), Buckets(3.0, edges=(1,))).load_state_dict(state)


def test_what_cannot_be_used_is_counted_and_named(tmp_path):
    with ShardWriter(tmp_path / "a") as shards:
        shards.write("good", {"json": json.dumps(record(1)).encode()})
        shards.write("bad", {"json": b"{"})
        shards.write("long", {"json": json.dumps({"seconds": 99.0}).encode()})
    source = Source(shards.paths[0], keep=lambda record: record["seconds"] < 20)
    assert [e.key for e in source.entries] == ["good"]
    assert [f.where for f in source.faults] == [f"{shards.paths[0]}/bad.json"]
    with pytest.raises(InputError, match=r"no sample can be used; first fault: .*bad"):
        Source(shards.paths[0], keep=lambda record: False)


def test_paths(speech, tmp_path):
    folder = speech[0].rpartition("/")[0]
    assert expand(folder) == expand(f"{folder}/*.tar") == expand([folder, speech[1]]) == speech
    for nothing in (str(tmp_path), f"{tmp_path}/*.tar"):
        with pytest.raises(InputError, match=r"holds no \.tar"):
            expand(nothing)
    with pytest.raises(InputError, match="No such file"):
        Source(f"{tmp_path}/absent.tar")
    with pytest.raises(ConfigError, match="weight 0"):
        Source(speech, weight=0)
    with pytest.raises(ConfigError, match="no sources"):
        Mixture([])
    for wrong in (lambda: Buckets(0), lambda: Buckets(1, edges=(2, 1)), lambda: Bins(0)):
        with pytest.raises(ConfigError):
            wrong()


def test_patterns_with_weights():
    assert weighted("a/*.tar, b@home/x.tar@0.25,") == [("a/*.tar", None), ("b@home/x.tar", 0.25)]
    for wrong, reason in (("a@none", "no weight"), ("a@0", "more than 0"), ("a@inf", "more than 0"), (" ,", "none")):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            weighted(wrong)
