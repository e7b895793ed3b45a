"""The direction of imports is law: import-linter reads it from pyproject.toml."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from pages import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def lint(config: Path, monkeypatch: pytest.MonkeyPatch, contract: str) -> int:
    """import-linter configures logging and silences every logger there is: the server's, too, for all later tests."""
    monkeypatch.chdir(ROOT)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "disabled", logger.disabled)
    return lint_imports(str(config), limit_to_contracts=(contract,), no_cache=True)


@pytest.mark.parametrize("contract", ["direction", "independence"])
def test_imports_go_down_the_house(
    contract: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert lint(ROOT / "pyproject.toml", monkeypatch, contract) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "layers",
    [
        ["messages : events : stream : config : errors", "cli"],  # upside down
        ["cli"],  # modules without a place
    ],
)
def test_planted_fault_is_found(layers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "importlinter.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "thinktalk"\n'
        '[[tool.importlinter.contracts]]\nid = "direction"\nname = "wrong"\ntype = "layers"\n'
        f'containers = ["thinktalk"]\nexhaustive = {str(len(layers) == 1).lower()}\nlayers = {layers!r}\n'
    )
    assert lint(config, monkeypatch, "direction") != 0


def test_the_reference_is_forbidden():
    (contract,) = [c for c in CONTRACTS["contracts"] if c["id"] == "independence"]
    assert "transformers" in contract["forbidden_modules"]
    # but for the kit that examines it
    assert contract["ignore_imports"] == ["thinktalk.eval.conformance.upstream -> transformers"]
