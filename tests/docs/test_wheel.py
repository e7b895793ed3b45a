"""The wheel holds the package: every module, and the files of a shipped model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from pages import ROOT

SHIPPED = [f"thinktalk/pretrained/nano/{n}" for n in ("talker.safetensors", "config.json", "spk_dict.pt", "README.md")]  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The repository's sources with a model in them."""
    tracked = subprocess.run(["git", "ls-files", "thinktalk"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    for name in [*tracked.stdout.splitlines(), "pyproject.toml", "README.md", "LICENSE", ".gitignore"]:  # fmt: skip
        if (ROOT / name).exists():  # a file that is being moved is still tracked
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for name in [*SHIPPED, "out/nano/model/talker.safetensors"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_wheel_has_the_model_and_all_modules(house: Path):
    packed = {file.distribution_path for file in WheelBuilder(str(house)).recurse_included_files()}
    assert {*SHIPPED, "thinktalk/eval/conformance/layouts.json"} <= packed
    modules = {str(path.relative_to(house)) for path in (house / "thinktalk").rglob("*.py")}
    assert modules <= packed and len(modules) > 100
    assert not any(name.startswith("out/") for name in packed)


def test_a_rule_that_would_lose_the_model_is_found(house: Path):
    """Planted fault: git is told to ignore weights, as many repositories do; hatch heeds that."""
    with (house / ".gitignore").open("a") as file:
        file.write("*.safetensors\n")
    packed = {file.distribution_path for file in WheelBuilder(str(house)).recurse_included_files()}
    assert SHIPPED[0] not in packed and SHIPPED[1] in packed
