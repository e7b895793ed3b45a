"""What the README and the pages of docs/ show is run, on the demo's random model; what cannot be says why not."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from pages import ROOT, Block, blocks

from thinktalk.cli.main import main

PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that the pages may write into."""
    return shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("demo") / "tiny")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the repository after scripts/demo, so far as the snippets look."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "tiny").symlink_to(checkpoint)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(code: str) -> list[list[str]]:
    """The command lines of a shell block, comments and continuations resolved."""
    lines = code.replace("\\\n", " ").split("\n")
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def runnable(page: str, language: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [b for b in blocks(text) if b.language == language and b.why_not is None]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page, "python")])
def test_python_runs(page: str, folder: Path):
    """The blocks of a page in order, in one namespace."""
    namespace: dict = {"__name__": "page"}
    for block in runnable(page, "python"):
        exec(compile("\n" * block.line + block.code, str(ROOT / page), "exec"), namespace)
    if page == "README.md":  # the page shows what a reader will get
        assert namespace["reply"].sample_rate == 24000
        assert len(namespace["texts"]) == 2
        assert namespace["wave"].shape == (4 * 480,)


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page, "sh")])
def test_commands_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    for block in runnable(page, "sh"):
        for program, *arguments in commands(block.code):
            assert program == "thinktalk", f"{page}: say why `{program}` is not run"
            status = main(arguments)
            printed = capsys.readouterr()
            assert status == 0, f"{page}: thinktalk {shlex.join(arguments)}: {printed.err}"
            if "--json" in arguments:
                json.loads(printed.out)
            if "--out" in arguments:
                assert os.path.getsize(arguments[arguments.index("--out") + 1]) > 44


def told(code: str) -> list[tuple[list[str], str]]:
    """A console block's commands, each with what is shown below it."""
    parts = re.split(r"^\$ ", code, flags=re.M)
    assert not parts[0].strip(), "a console block begins with a command"
    pairs = [part.partition("\n") for part in parts[1:]]
    return [(shlex.split(line), shown.strip()) for line, _, shown in pairs]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page, "console")])
def test_what_is_shown_is_what_comes(page: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    """Of the shipped model, word for word."""
    for block in runnable(page, "console"):
        for (program, *arguments), shown in told(block.code):
            assert program == "thinktalk" and main(arguments) == 0
            assert capsys.readouterr().out.strip() == shown, shlex.join(arguments)


def test_every_block_says_what_it_is():
    for page in PAGES:
        for block in blocks((ROOT / page).read_text()):
            assert block.language in {"python", "sh", "text", "console"}, (
                f"{page}, line {block.line}"
            )


def test_planted_fault_is_found(folder: Path):
    """A command that does not work does not pass for one that does."""
    assert main(["transcribe", "--model", "checkpoints/tiny", "examples/no_such_file.wav"]) == 2
    assert told("$ a 'b c'\nd\ne\n$ f") == [(["a", "b c"], "d\ne"), (["f"], "")]
    assert commands("a b \\\n  c  # d\n\n# e\nf 'g h'") == [["a", "b", "c"], ["f", "g h"]]
