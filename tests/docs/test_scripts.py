"""The scripts that a stranger runs first: they parse, and installing happens once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

pytest_plugins = ["pytester"]

SCRIPTS = [*(ROOT / "scripts").iterdir(), *(ROOT / ".ci").iterdir()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_runs_as_a_command(script: Path):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK) == (script.suffix != ".sh"), f"chmod of {script.name}"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with our set-up script and a .venv whose pip only writes down what it was asked."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\nif [ "$1 $2" = "-m pip" ]; then echo "$@" >>{tmp_path}/asked; else exec {sys.executable} "$@"; fi\n'
    )
    python.chmod(0o755)
    return tmp_path


def asked(house: Path, extras: str) -> list[str]:
    """What pip has been asked after `setup EXTRAS`."""
    script = house / "scripts" / "run"
    script.write_text(f'. "$(dirname "$0")/setup.sh"\nsetup "{extras}"\n')
    subprocess.run(["bash", str(script)], check=True, capture_output=True)
    log = house / "asked"
    return log.read_text().splitlines() if log.exists() else []


def test_set_up_installs_once(house: Path):
    assert len(asked(house, "dev,parity")) == 1
    (line,) = asked(house, "dev,parity")
    assert "-e .[dev,parity] -c constraints.txt" in line
    assert len(asked(house, "")) == 1, "the bare package came with the extras"
    assert len(asked(house, "docs")) == 2, "other extras are another installation"


def test_set_up_installs_again_when_its_ground_changes(house: Path):
    asked(house, "")
    with (house / "constraints.txt").open("a") as file:
        file.write("six==1.17.0\n")
    lines = asked(house, "")
    assert len(lines) == 2
    assert "-e . -c constraints.txt" in lines[1]


def test_a_skipped_test_fails_where_nothing_may_be_skipped(pytester: pytest.Pytester):
    """Otherwise a suite could be green while every parity test is skipped for want of the reference."""
    pytester.makepyfile(
        test_a="import pytest\n@pytest.mark.skip(reason='no gpu')\ndef test_a(): pass\n"
        "@pytest.mark.xfail\ndef test_b(): assert 0\n",
        test_c="import pytest\npytest.importorskip('no_such_module')\n",
    )
    pytester.syspathinsert(ROOT / "tests" / "plugins")
    pytester.runpytest("-p", "no:xdist").assert_outcomes(skipped=2, xfailed=1)
    result = pytester.runpytest(
        "-p", "no:xdist", "-p", "no_skips", "--continue-on-collection-errors"
    )
    result.assert_outcomes(errors=2, xfailed=1)
    result.stdout.fnmatch_lines(["*no gpu*"])


def test_benchmark_driver_needs_transformers(monkeypatch: pytest.MonkeyPatch):
    code = (
        "import runpy, sys; sys.modules['transformers'] = None; sys.argv = ['vs_transformers.py'];"
        "sys.path.insert(0, 'benchmarks'); import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'transformers' else find(name, *a);"
        "runpy.run_path('benchmarks/vs_transformers.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("vs_transformers: transformers is not installed")
    assert done.stderr.count("\n") == 1
