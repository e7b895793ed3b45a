"""The same tars through megatron-energon: every sample as ours, exact place, faults by name; no byte of a tar changes.

What needs the package is marked slow: .ci/slow installs the extra `energon`.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_house import RATE, record, tone, write_shards

from thinktalk.data.energon import EnergonData, index
from thinktalk.data.energon_state import objects, plain
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError, InputError
from thinktalk.training.checkpoint import pack, unpack

needs_energon = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def make(sample, generator):
    """The number of a sample, one value of its sound and a random number."""
    number = sample.record["codes"][0]
    if sample.record.get("voice") == "nobody":
        raise InputError(f"{sample.where}: is said by nobody")
    return number, float(sample.pcm(RATE)[7]), float(torch.rand((), generator=generator))


def data(folder, **options) -> EnergonData:
    return EnergonData(folder, make, list, **{"size": 4, "shuffle": 8, "seed": 3, **options})


def take(source, count):
    return list(itertools.islice(source, count))


@pytest.fixture(scope="module")
def indexed(speech, tmp_path_factory):
    folder = tmp_path_factory.mktemp("energon") / "train"
    before = [Path(path).read_bytes() for path in speech]
    assert index(speech, folder) == 30
    assert [Path(path).read_bytes() for path in speech] == before
    return folder


class TestWithEnergon:
    pytestmark = needs_energon

    def test_samples_are_ours(self, indexed):
        batches = take(data(indexed, workers=2), 60)
        seen = {number: value for batch in batches for number, value, _ in batch}
        assert seen == {n: pytest.approx(float(sound(n)[7])) for n in range(30)}
        assert len({random for batch in batches for *_, random in batch}) > 200
        assert all(len(batch) == 4 for batch in batches)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_its_place_is_exact(self, indexed, workers):
        whole = take(data(indexed, workers=workers), 12)
        first = data(indexed, workers=workers)
        assert take(first, 5) == whole[:5]
        state = unpack(pack(first.state_dict()))  # as a checkpoint keeps it
        again = data(indexed, workers=workers)
        again.load_state_dict(state)
        assert take(again, 4) == whole[5:9]
        assert take(again, 3) == whole[9:]  # a second iterator goes on
        assert again.samples == 48
        forgetful = data(indexed, workers=workers)  # planted: the state is not taken
        assert take(forgetful, 4) != whole[5:9]

    def test_ranks_share_the_samples(self, indexed):
        ranks = [take(data(indexed, rank=r, world=2), 40) for r in range(2)]
        numbers = [{n for batch in batches for n, *_ in batch} for batches in ranks]
        assert not numbers[0] & numbers[1] and len(numbers[0] | numbers[1]) == 30

    def test_what_cannot_be_used_is_passed_by(self, tmp_path):
        with ShardWriter(tmp_path / "some") as writer:
            for n in range(8):
                said = record(n) | ({"voice": "nobody"} if n == 2 else {"seconds": -1} if n == 5 else {})  # fmt: skip
                writer.write(f"{n:06d}", {"json": json.dumps(said).encode(), "wav": tone(0.5)})
        assert index(tmp_path, tmp_path / "view") == 8
        one = data(tmp_path / "view")
        batches = take(one, 10)
        assert {n for batch in batches for n, *_ in batch} == {0, 1, 3, 4, 6, 7}
        assert one.skipped == one.samples - sum(map(len, batches)) > 0
        told = {str(fault) for fault in one.faults}
        assert any(f.endswith("000002: is said by nobody") for f in told)
        assert any("seconds is -1" in f for f in told) and len(told) == 2

    def test_mistakes(self, tmp_path, speech):
        write_shards(tmp_path, shards=1, samples=3, name="a")
        write_shards(tmp_path, shards=1, samples=3, name="b")
        with pytest.raises(InputError, match="the key 000000 is in two samples"):
            index(tmp_path, tmp_path / "view")
        with pytest.raises(InputError, match="holds files"):
            index(speech, tmp_path)
        with pytest.raises(InputError, match="two shards are called"):
            index([speech[0], *write_shards(tmp_path / "x", shards=1, samples=1)], tmp_path / "v")


def sound(number: int) -> np.ndarray:
    """The sound of write_shards' sample."""
    import io

    import soundfile

    content = tone((20 + number % 7) * 0.025, hertz=100 + 10 * number)
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def test_states_are_plain_and_come_back():
    state = {"a": [1, (2.5, b"x")], 3: {"n": np.arange(3, dtype=np.uint32)}, "t": torch.ones(2)}
    flat = unpack(pack(plain(state)))
    back = objects(flat)
    assert back["a"] == state["a"] and torch.equal(back["t"], state["t"])
    assert back[3]["n"].dtype == np.uint32 and back[3]["n"].tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="state holds set"):
        plain({"x": {1}})
    with pytest.raises(ConfigError, match="one of energon's classes"):
        objects({"kind": "os:system", "fields": {}})


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "megatron.energon", None)
    for act in (lambda: index(tmp_path, tmp_path), lambda: data(tmp_path)):
        with pytest.raises(ConfigError, match=r"pip install 'thinktalk\[energon\]'"):
            act()
    with pytest.raises(InputError, match="is not there"):
        data(tmp_path / "absent")
