"""The annotated tree in the README is the tree on disk: nothing missing, nothing invented."""

from __future__ import annotations

import pytest
from pages import ROOT, blocks, package_files, tree_files

README = (ROOT / "README.md").read_text()


def the_tree(text: str) -> str:
    (block,) = [b for b in blocks(text) if b.code.startswith("README.md ")]
    return block.code


def compare_tree(text: str) -> None:
    """AssertionError where the tree and the disk differ."""
    told, real = tree_files(the_tree(text)), package_files(ROOT, "thinktalk")
    for folder, files in real.items():
        extra = {"__init__.py"} - told.get(folder, set())  # need not be named
        missing = files - told.get(folder, set()) - extra
        assert not missing, f"the README's tree does not name {sorted(missing)} of {folder}/"
    for folder, files in told.items():
        for name in files:
            assert (ROOT / folder / name).exists(), f"the README's tree invents {folder}/{name}"
        assert (ROOT / folder).is_dir(), f"the README's tree invents {folder}/"
    for path in ROOT.iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert path.name in told, f"the README's tree does not name the package {path.name}/"


def test_tree_is_true():
    compare_tree(README)


def test_top_level_is_named():
    told = the_tree(README)
    for name in ("tests/", "benchmarks/", "examples/", "docs/", "scripts/", "LOG.md"):
        assert f"\n{name}" in told
        assert (ROOT / name).exists()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("names.py", "nomes.py"),  # a file renamed without the README
        ("  stream.py ", "  strim.py "),
        ("  thinker/ ", "  thinkers/ "),
        ("  stream.py ", "  "),
    ],
)
def test_planted_fault_is_found(was: str, becomes: str):
    tree = the_tree(README)
    assert was in tree
    with pytest.raises(AssertionError, match="README's tree"):
        compare_tree(README.replace(tree, tree.replace(was, becomes)))
