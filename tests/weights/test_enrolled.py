"""Enrolled voices: whole or not there, whatever dies or fills up; seen by other processes; names are never paths."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from thinktalk import config as cfg
from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError, WeightsError
from thinktalk.weights import enrolled
from thinktalk.weights.enrolled import Enrolled, VoiceStore
from thinktalk.weights.voices import write_voice_file

CONFIG = cfg.tiny()


def made(name: str, frames: int = 40, seed: int = 0) -> Enrolled:
    g = torch.Generator().manual_seed(seed)
    voice = Voice(
        name, torch.randn(1, 192, generator=g), torch.randn(1, frames, 80, generator=g), 927
    )
    return Enrolled(
        voice, created_at=1_700_000_000 + seed, experimental=seed % 2 == 1, owner="key:1"
    )


def same(one: Enrolled, other: Enrolled) -> bool:
    a, b = one.voice, other.voice
    plain = (one.created_at, one.experimental, one.owner, a.name, a.bos_token) == (other.created_at, other.experimental, other.owner, b.name, b.bos_token)  # fmt: skip
    return plain and torch.equal(a.cond, b.cond) and torch.equal(a.ref_mel, b.ref_mel)


def test_what_is_added_is_read_by_others_and_removed(tmp_path: Path) -> None:
    store, other = VoiceStore(tmp_path / "v", CONFIG), VoiceStore(tmp_path / "v", CONFIG)
    assert not other.read() and not (tmp_path / "v").exists()
    voices = [made("Ada", seed=0), made("Zoë 2", seed=1), made("小明", seed=2)]
    for one in voices:
        store.add(one)
        assert one.voice.name in other.read()  # at once, however coarse the clock of the disk is
    found = other.read()
    assert list(found) == ["Ada", "Zoë 2", "小明"] and all(
        same(found[v.voice.name], v) for v in voices
    )
    with pytest.raises(InputError, match="is there already"):
        store.add(made("ADA", seed=5))  # capitals aside
    assert same(other.read()["Ada"], voices[0])
    store.remove("ada")
    assert list(other.read()) == ["Zoë 2", "小明"]
    with pytest.raises(InputError, match=r"'ada' is not enrolled; have Zoë 2, 小明"):
        other.remove("ada")


def test_looking_again_costs_nothing_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    long_ago = time.time_ns() - 10 * 10**9
    os.utime(tmp_path, ns=(long_ago, long_ago))
    first = store.read()
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("looked again"))
    assert store.read() is first
    monkeypatch.undo()
    read = []
    monkeypatch.setattr(enrolled, "read_voice_file", lambda path, config: read.append(path) or {})
    VoiceStore(tmp_path, CONFIG).add(made("Bob"))
    store.read()
    assert [path.name for path in read] == [store.path("Bob").name]  # only what is new


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond so many bytes; Python turns the signal into an OSError."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def nothing_is_lost(store: VoiceStore, before: set[str]) -> None:
    assert {path.name for path in store.directory.iterdir()} == before
    assert same(VoiceStore(store.directory, CONFIG).read()["Ada"], made("Ada"))


@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_full_disk_loses_nothing(tmp_path: Path, room: int) -> None:
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    before = {path.name for path in tmp_path.iterdir()}
    with full_disk(room), pytest.raises(OSError):
        store.add(made("Bob", frames=400))
    nothing_is_lost(store, before)
    store.add(made("Bob", frames=400))
    assert list(store.read()) == ["Ada", "Bob"]


def test_planted_fault_a_file_written_in_its_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    before = {path.name for path in tmp_path.iterdir()}

    def in_place(voices, path, *, metadata=None) -> None:
        with store.path("Bob").open("wb", buffering=0) as file:
            file.write(b"half of it")
            file.write(bytes(500))

    monkeypatch.setattr(enrolled, "write_voice_file", in_place)
    with full_disk(100), pytest.raises(OSError):
        store.add(made("Bob"))
    with pytest.raises(AssertionError):
        nothing_is_lost(store, before)


WRITER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_enrolled import CONFIG, VoiceStore, made
store = VoiceStore(sys.argv[1], CONFIG)
store.add(made("Ada"))
print("begun", flush=True)
number = 0
while True:
    store.add(made(f"v{number}", frames=2000, seed=number))
    number += 1
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_only_whole_voices(tmp_path: Path) -> None:
    for attempt in range(3):
        place = tmp_path / str(attempt)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(place), str(Path(__file__).parent)], stdout=subprocess.PIPE) as writer:  # fmt: skip
            assert writer.stdout is not None and writer.stdout.readline() == b"begun\n"
            time.sleep(0.05 + 0.03 * attempt)
            writer.send_signal(signal.SIGKILL)
        found = VoiceStore(place, CONFIG).read()
        whole = {path for path in place.iterdir() if path.suffix == ".safetensors" and path.name[0] != "."}  # fmt: skip
        assert len(found) == len(whole) >= 1
        for name, one in found.items():
            number = int(name[1:]) if name != "Ada" else 0
            assert same(one, made(name, frames=40 if name == "Ada" else 2000, seed=number))


def test_what_killed_writers_left_goes_after_an_hour_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    left: list[str] = []
    monkeypatch.setattr(enrolled, "_link", lambda fresh, where: left.append(fresh.name))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as after SIGKILL
    store.add(made("Bob"))
    store.add(made("Eve"))
    monkeypatch.undo()
    old, young = (tmp_path / name for name in left)
    mine = tmp_path / ".bashrc"  # --voices-dir may be anywhere
    mine.write_text("alias")
    half = tmp_path / f".{old.name}.partial"
    half.write_bytes(b"half")
    for path in (old, half, mine, store.path("Ada")):
        os.utime(path, (0, 0))
    store.sweep()
    assert [path.exists() for path in (old, half, young, mine)] == [False, False, True, True]
    assert list(store.read()) == ["Ada"]


def test_a_place_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    VoiceStore(tmp_path / "not yet", CONFIG).check()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be read"):
        VoiceStore(tmp_path / "file", CONFIG).check()
    assert not VoiceStore(tmp_path / "file", CONFIG).read()


def test_a_broken_file_is_named_and_passed_by(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    whole = store.path("Ada").read_bytes()
    half, elsewhere = store.path("half"), store.path("Bob")
    half.write_bytes(whole[: len(whole) // 2])
    elsewhere.write_bytes(whole)  # a voice of another name: it could not be removed by its own
    (tmp_path / "nonsense.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "folder.safetensors").mkdir()
    nobody = store.path("nobody")  # tensors are whole, what is told of them is not
    write_voice_file({"nobody": made("nobody").voice}, nobody, metadata={"created_at": "soon"})
    (tmp_path / "link.safetensors").symlink_to("/dev/zero")
    assert list(store.read()) == ["Ada"]
    told = [record.getMessage() for record in caplog.records]
    for name in (half.name, elsewhere.name, "nonsense.safetensors", "folder.safetensors", "link.safetensors", nobody.name):  # fmt: skip
        assert sum(name in line for line in told) == 1, (name, told)
        assert all("\n" not in line for line in told)
    assert list(store.read()) == ["Ada"] and len(caplog.records) == len(told)  # said once
    wrong = made("Eve")
    with pytest.raises(WeightsError, match="expected floats"):
        store.add(Enrolled(Voice("Eve", wrong.voice.cond[:, :5], wrong.voice.ref_mel, 1)))
    assert not store.path("Eve").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a\\b", "con", "x" * 64, ".hidden", "~", "a\u202eb"])  # fmt: skip
def test_no_name_becomes_a_path(tmp_path: Path, name: str) -> None:
    store = VoiceStore(tmp_path / "v", CONFIG)
    path = store.path(name)
    assert path.parent == tmp_path / "v" and len(path.name) == 40 + len(".safetensors")
    assert path.stem.isalnum() and path.stem.isascii()


def test_where_there_are_no_links_a_name_is_still_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def no_links(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    store = VoiceStore(tmp_path, CONFIG)
    store.add(made("Ada"))
    with pytest.raises(InputError, match="already"):
        store.add(made("Ada", seed=3))
    assert same(store.read()["Ada"], made("Ada")) and len(list(tmp_path.iterdir())) == 1
