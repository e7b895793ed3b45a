"""Safetensors files: what the library writes we read and the reverse; damage is one clear error."""

import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from thinktalk.errors import WeightsError
from thinktalk.weights.files import INDEX, SINGLE, TensorFiles, read_header
from thinktalk.weights.store import Planned, atomic_directory, write_file, write_tensors

TENSORS = {
    "a.weight": torch.randn(7, 5),
    "b": torch.randn(3, 2, 4).bfloat16(),
    "c": torch.randint(-128, 127, (9, 3), dtype=torch.int8),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "half": torch.randn(11).half(),
}


def plan(tensors):
    return [Planned(n, t.dtype, tuple(t.shape), lambda t=t: t) for n, t in tensors.items()]


def same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[n], right[n]) and left[n].dtype == right[n].dtype for n in left)


def test_the_library_reads_what_we_write(tmp_path):
    write_file(tmp_path / "x.safetensors", plan(TENSORS))
    same(load_file(tmp_path / "x.safetensors"), TENSORS)


@pytest.mark.parametrize("how", ["view", "read"])
def test_we_read_what_the_library_writes(tmp_path, how):
    save_file(TENSORS, tmp_path / SINGLE)
    files = TensorFiles(tmp_path)
    same({n: getattr(files, how)(n) for n in files}, TENSORS)


def test_a_view_is_the_file_and_writing_to_it_is_not(tmp_path):
    save_file(TENSORS, tmp_path / SINGLE)
    files = TensorFiles(tmp_path)
    view = files.view("a.weight")
    assert view.untyped_storage().nbytes() == (tmp_path / SINGLE).stat().st_size  # no copy was made
    view.zero_()
    same({"a.weight": TensorFiles(tmp_path).view("a.weight")}, {"a.weight": TENSORS["a.weight"]})


def test_read_casts_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("thinktalk.weights.files._PIECE", 16)
    save_file(TENSORS, tmp_path / SINGLE)
    out = torch.empty(3, 2, 4)
    TensorFiles(tmp_path).read("b", out)
    assert torch.equal(out, TENSORS["b"].float())


@given(limit=st.integers(1, 400))
def test_any_shard_size_gives_the_same_tensors(limit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    paths = write_tensors(directory, plan(TENSORS), max_shard_bytes=limit)
    assert (directory / INDEX).exists() == (len(paths) > 1)
    files = TensorFiles(directory)
    same({n: files.read(n) for n in files}, TENSORS)


def test_only_wanted_shards_are_opened(tmp_path):
    paths = write_tensors(tmp_path, plan(TENSORS), max_shard_bytes=1)
    for path in paths[1:]:
        path.unlink()
    files = TensorFiles(tmp_path, wanted=lambda name: name == "a.weight")
    assert list(files) == ["a.weight"]


@given(data=st.data())
def test_damage_is_a_weights_error_or_harmless(data, tmp_path_factory):
    """Truncate anywhere, flip any byte of the header: a WeightsError, or another valid header; never anything else."""
    path = tmp_path_factory.mktemp("damage") / SINGLE
    save_file(TENSORS, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(WeightsError, match=r"truncated|header|hole"):
            read_header(path)
        return
    header = struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 7 + header))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        files = TensorFiles(path.parent)
        for name in files:
            files.view(name).sum(), files.read(name)
    except WeightsError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "y": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}},
        {"x": {"dtype": "F32", "shape": [1 << 60, 1 << 60], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F32", "shape": [-4], "data_offsets": [0, -16]}},
        {"x": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}},
        {"x": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}},
        {"x": [1, 2]},
        ["x"],
    ],
)  # fmt: skip
def test_hostile_headers(header, tmp_path):
    text = json.dumps(header).encode()
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(WeightsError):
        TensorFiles(tmp_path)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin", "..\\x.safetensors", ".."])  # fmt: skip
def test_an_index_cannot_leave_its_directory(file, tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a.weight": file}}))
    with pytest.raises(WeightsError, match="weight_map"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "\xff"]
)
def test_a_corrupt_index(text, tmp_path):
    (tmp_path / INDEX).write_text(text, encoding="latin1")
    with pytest.raises(WeightsError, match="copy it again"):
        TensorFiles(tmp_path)


def test_nothing_half_written_is_left(tmp_path):
    def fails():
        raise RuntimeError("the power went")

    broken = [*plan(TENSORS), Planned("z", torch.float32, (2,), fails)]
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "out") as fresh:
        write_tensors(fresh, broken)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_checkpoint_is_not_overwritten(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    for overwrite in (False, True):
        with (
            pytest.raises(WeightsError, match="not"),
            atomic_directory(tmp_path, overwrite=overwrite),
        ):
            raise AssertionError("the block must not run")
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


def test_overwriting_keeps_the_old_one_until_the_new_is_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "config.json").write_text("old")
    with pytest.raises(ValueError, match="no"), atomic_directory(target, overwrite=True):
        raise ValueError("no")
    assert (target / "config.json").read_text() == "old"
    with atomic_directory(target, overwrite=True) as fresh:
        (fresh / "config.json").write_text("new")
    assert (target / "config.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
