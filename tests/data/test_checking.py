"""Checking names every fault, and nothing that is none."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from sample_house import record, tone, write_shards

from thinktalk.data.checking import check_shards
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import InputError


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "PNG")
    return file.getvalue()


def test_good_shards_have_no_faults(speech):
    report = check_shards(speech)
    assert report.faults == [] and report.shards == 3 and report.samples == 30
    assert report.seconds == pytest.approx(sum(0.5 + 0.025 * (n % 7) for n in range(30)))
    assert report.members == {"wav": 30} and report.fields["durations"] == 30
    assert report.words == 90 and set(report.voices) == {"voice0", "voice1", "voice2"}
    assert json.loads(json.dumps(report.as_json()))["samples"] == 30


def test_every_fault_is_named(tmp_path):
    def write(key: str, change: dict, **members: bytes) -> None:
        content = json.dumps(record(0) | change).encode()
        shards.write(key, {"json": content, **members})

    with ShardWriter(tmp_path / "a") as shards:
        write("good", {}, wav=tone(0.5), png=png())
        write("short", {}, wav=tone(0.4))
        write("noise", {}, wav=b"RIFF noise")
        write("picture", {}, png=b"\x89PNG")
        write("film", {}, mp4=b"no film")
        write("record", {"text": 1}, wav=tone(0.5))
    noise = tmp_path / "b.tar"
    noise.write_bytes(b"\x1f\x8b\x08" + bytes(600))
    report = check_shards(tmp_path)
    path = str(shards.paths[0])
    assert report.samples == 1
    assert [f.where for f in report.faults] == [
        f"{path}/short.wav", f"{path}/noise.wav", f"{path}/picture.png", f"{path}/film.mp4",
        f"{path}/record.json", str(noise),
    ]  # fmt: skip
    assert "lasts 0.400 s, the record says 0.500 s" in str(report.faults[0])
    assert "gzip" in report.faults[-1].reason
    quick = check_shards(tmp_path, decode=False)
    assert [f.where for f in quick.faults] == [f"{path}/record.json", str(noise)]
    with pytest.raises(InputError, match=r"holds no \.tar"):
        check_shards(f"{tmp_path}/*.zip.tar")


def test_an_empty_shard_is_a_fault(tmp_path):
    import tarfile

    tarfile.open(tmp_path / "empty.tar", "w").close()
    write_shards(tmp_path, shards=1, samples=1)
    assert [f.reason for f in check_shards(tmp_path).faults] == ["holds no samples"]
