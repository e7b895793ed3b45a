"""Packages: what is pinned comes, whole and once; anything else does not."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from thinktalk.data.synth import packages
from thinktalk.data.synth.packages import Package, cache_folder, fetch, files
from thinktalk.errors import InputError

INSIDE = {"package/dict/data.noun": b"| a dog", "package/LICENSE": b"free"}


def tgz() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in INSIDE.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.mkdir("package")
        for name, content in INSIDE.items():
            archive.writestr(name, content)
    return file.getvalue()


def deb() -> bytes:
    def member(name: str, content: bytes) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        return head + content + b"\n" * (len(content) % 2)

    return b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", b"odd") + member("data.tar.gz", tgz())  # fmt: skip


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry that has one file; its client copies it here and counts how often."""
    served = tmp_path / "served.tgz"
    served.write_bytes(tgz())
    calls = tmp_path / "calls"
    copy = f"import shutil; shutil.copy({str(served)!r}, '.'); open({str(calls)!r}, 'a').write('x')"
    monkeypatch.setitem(packages.CLIENTS, "npm", (sys.executable, "-c", copy))
    calls.touch()
    return served, calls


def pinned(content: bytes) -> Package:
    return Package("npm", "@words/list", "1.2.3", hashlib.sha256(content).hexdigest())


def test_a_package_is_fetched_once_and_checked_each_time(registry, tmp_path):
    served, calls = registry
    package, cache = pinned(tgz()), tmp_path / "cache"
    path = fetch(package, cache)
    assert path.read_bytes() == served.read_bytes() and path.parent == cache
    assert fetch(package, cache) == path and calls.read_text() == "x"
    path.write_bytes(b"damaged on this disk")
    assert fetch(package, cache).read_bytes() == served.read_bytes() and calls.read_text() == "xx"
    assert [p.name for p in cache.iterdir()] == [path.name], "nothing else stays behind"


def test_another_sum_is_refused_and_not_kept(registry, tmp_path):
    """The planted fault: one byte of what the registry sends is another."""
    served, _ = registry
    package = pinned(served.read_bytes())
    served.write_bytes(served.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"npm package @words/list 1\.2\.3: has the SHA-256"):
        fetch(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_clients_that_are_absent_or_fail(monkeypatch, tmp_path):
    package = pinned(b"")
    monkeypatch.setitem(packages.CLIENTS, "npm", ("no-such-client",))
    with pytest.raises(InputError, match="no-such-client is not installed"):
        fetch(package, tmp_path)
    monkeypatch.setitem(packages.CLIENTS, "npm", (sys.executable, "-c", "raise SystemExit('no {name} there')"))  # fmt: skip
    with pytest.raises(InputError, match=r"could not be downloaded \(no @words/list there\)"):
        fetch(package, tmp_path)
    monkeypatch.setitem(packages.CLIENTS, "npm", (sys.executable, "-c", "pass"))
    with pytest.raises(InputError, match="0 files came"):
        fetch(package, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        fetch(package, tmp_path / "file" / "below")


def test_the_cache_is_where_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("THINKTALK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path and cache_folder("here") == Path("here")
    monkeypatch.delenv("THINKTALK_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "thinktalk"


@pytest.mark.parametrize("make", [tgz, wheel, deb])
def test_archives_of_every_kind(make, tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(make())
    assert dict(files(path)) == INSIDE
    assert dict(files(path, "*/dict/*")) == {"package/dict/data.noun": b"| a dog"}
    path.write_bytes(make()[: len(make()) // 2])
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(files(path))


def test_no_archive(tmp_path):
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(files(tmp_path / "absent"))
