"""Tar shards: every sample where it lies, every damaged place named, nothing fatal, nothing half-written."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktalk.data.shards import ShardWriter, scan, split_name
from thinktalk.errors import InputError

BLOCK = 512


def contents(path) -> dict[str, dict[str, bytes]]:
    return {entry.key: entry.read() for entry in scan(path).entries}


def by_tarfile(path) -> dict[str, dict[str, bytes]]:
    """The same, read by Python's own module."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            if info.isreg():
                key, name = split_name(info.name)
                samples.setdefault(key, {})[name] = tar.extractfile(info).read()
    return samples


def make(path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    members = {}
    for key in "abc":
        members[f"{key}.json"] = json.dumps({"text": key}).encode()
        members[f"{key}.opus"] = key.encode() * 700
    return make(tmp_path / "three.tar", members)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_reads_what_tarfile_reads(tmp_path: Path, form: int):
    long = "folder/" * 25 + "key" if form != tarfile.USTAR_FORMAT else "folder/key"
    members = {f"{long}.json": b"{}", f"{long}.0.png": b"\x89PNG", "ü.json": b"[1]", "ü.txt": b""}
    path = make(tmp_path / "a.tar", members, form)
    assert contents(path) == by_tarfile(path)
    assert scan(path).faults == []
    assert set(contents(path)) == {long, "ü"}


def test_writer_is_read_back_and_is_deterministic(tmp_path: Path):
    for name in ("one", "two"):
        with ShardWriter(tmp_path / name, max_bytes=3000) as shards:
            for i in range(5):
                shards.write(f"{i:03d}", {"wav": bytes([i]) * 900, "json": b"{}"})
        assert shards.samples == 5
        assert [p.name for p in shards.paths] == [f"{name}-{n:05d}.tar" for n in range(3)]
    one = [p.read_bytes() for p in sorted(tmp_path.glob("one-*"))]
    assert one == [p.read_bytes() for p in sorted(tmp_path.glob("two-*"))]
    everything = {k: v for p in sorted(tmp_path.glob("one-*")) for k, v in contents(p).items()}
    assert everything == {f"{i:03d}": {"json": b"{}", "wav": bytes([i]) * 900} for i in range(5)}


def test_nothing_half_written(tmp_path: Path):
    def fails() -> None:
        with ShardWriter(tmp_path / "a") as shards:
            shards.write("0", {"json": b"{}"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert list(tmp_path.iterdir()) == []
    with ShardWriter(tmp_path / "a") as shards, pytest.raises(InputError, match="without a dot"):
        shards.write("0.5", {"json": b"{}"})
    with ShardWriter("/proc/none/a") as shards, pytest.raises(InputError, match="cannot be"):
        shards.write("0", {"json": b"{}"})


def test_shards_of_another_run_are_not_mixed_in(tmp_path: Path):
    """A shorter second run would leave the first one's last shards in place, read together with the new ones."""
    with ShardWriter(tmp_path / "train", max_bytes=1) as shards:
        for i in range(3):
            shards.write(f"{i}", {"json": b"{}"})
    with pytest.raises(InputError, match=r"train-00000\.tar: is already there"), ShardWriter(tmp_path / "train"):  # fmt: skip
        pass
    with ShardWriter(tmp_path / "train-more"):
        pass
    assert len(list(tmp_path.iterdir())) == 3


def test_disk_full_leaves_finished_shards(tmp_path: Path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with ShardWriter(tmp_path / "a", max_bytes=1) as shards:
        shards.write("0", {"json": b"{}"})
        monkeypatch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(InputError, match="No space left"):
            shards.write("1", {"json": b"{}"})
    assert [p.name for p in tmp_path.iterdir()] == ["a-00000.tar"]


def check_survivors(path: Path, keys: str, fault: str) -> None:
    """AssertionError unless exactly these samples are whole and one fault says where."""
    shard = scan(path)
    assert "".join(e.key for e in shard.entries if len(e.members) == 2) == keys
    assert any(fault in str(f) and str(path) in str(f) for f in shard.faults), shard.faults


def spoil(path: Path, at: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def test_a_damaged_header_costs_one_sample(three: Path):
    """Python's tarfile takes the damage for the end of the file and says nothing."""
    start = scan(three).entries[1].members[0].start - BLOCK
    spoil(three, start, b"damage")
    assert set(by_tarfile(three)) == {"a"}
    check_survivors(three, "ac", f"damaged header at byte {start}")
    with pytest.raises(AssertionError):
        check_survivors(three, "abc", "damaged header")


def test_a_hole_of_zeros_is_not_the_end(three: Path):
    start = scan(three).entries[1].members[0].start - BLOCK
    check_survivors(spoil(three, start, bytes(2 * BLOCK)), "ac", f"zeros at byte {start}")


def test_joined_tars_are_read_through(three: Path, tmp_path: Path):
    joined = tmp_path / "joined.tar"
    joined.write_bytes(three.read_bytes() + make(tmp_path / "d.tar", {"d.json": b"{}", "d.opus": b"d"}).read_bytes())  # fmt: skip
    check_survivors(joined, "abcd", "zeros")


def test_a_shard_cut_short_says_so(three: Path):
    last = scan(three).entries[2].members[1]
    data = three.read_bytes()
    three.write_bytes(data[: last.start + 100])
    check_survivors(three, "ab", "ends after 100 of 700 bytes")
    three.write_bytes(data[: last.start + 2 * BLOCK])
    check_survivors(three, "abc", "no end mark")


def test_no_tar_at_all(tmp_path: Path):
    path = tmp_path / "noise.tar"
    path.write_bytes(bytes(range(256)) * 40)
    shard = scan(path)
    assert shard.entries == []
    assert "is no tar from byte 0" in str(shard.faults[0])
    path.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match="compressed with gzip"):
        scan(path)
    with pytest.raises(InputError, match="No such file"):
        scan(tmp_path / "absent.tar")


def test_a_sample_without_json_and_a_member_twice_are_named(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("x.opus", "y.json", "y.json"):
            tar.addfile(tarfile.TarInfo(name))
    faults = [str(f) for f in scan(path).faults]
    assert faults == [f"{path}/y.json: is there twice, the first one is used", f"{path}/x: has opus and no json"] or faults == [f"{path}/x: has opus and no json", f"{path}/y.json: is there twice, the first one is used"]  # fmt: skip


def test_a_shard_that_shrank_after_its_scan(three: Path):
    entry = scan(three).entries[2]
    three.write_bytes(three.read_bytes()[: entry.members[1].start + 1])
    with pytest.raises(InputError, match=r"c\.opus: 1 bytes, expected 700"):
        entry.read()
    three.unlink()
    with pytest.raises(InputError, match="No such file"):
        entry.read()


@settings(max_examples=60)
@given(st.data())
def test_any_damage_is_survived(tmp_path_factory, data):
    """Flip, cut or zero anything: a scan ends, and what it gives lies inside the file."""
    path = tmp_path_factory.mktemp("fuzz") / "a.tar"
    make(path, {f"{k}.{n}": bytes(300) for k in "ab" for n in ("json", "opus")})
    content = bytearray(path.read_bytes()[: 10 * BLOCK])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 3] = data.draw(st.binary(min_size=0, max_size=6))
    path.write_bytes(content)
    for entry in scan(path).entries:
        assert all(m.start + m.size <= len(content) for m in entry.members)
        entry.read()
