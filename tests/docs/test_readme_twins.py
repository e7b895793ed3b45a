"""README.zh-CN.md says what README.md says: the same headings, the same code, the same links."""

from __future__ import annotations

import pytest
from pages import ROOT, blocks, headings, links

ENGLISH = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()


def abroad(text: str) -> set[str]:
    """Links to other pages; each twin links to the other one, and to its own headings in its own language."""
    twins = {"README.md", "README.zh-CN.md"}
    return {link for link in links(text) if link not in twins and not link.startswith("#")}


def compare_twins(one: str, other: str) -> None:
    """AssertionError where the two do not have the same shape."""
    assert headings(one) == headings(other), "the headings differ"
    for a, b in zip(blocks(one), blocks(other), strict=True):
        assert (a.language, a.code) == (b.language, b.code), f"code blocks differ: line {a.line}"
        assert (a.why_not is None) == (b.why_not is None), f"line {a.line}: run in only one of them"
    assert abroad(one) == abroad(other), "the links differ"


def test_twins_are_in_step():
    compare_twins(ENGLISH, CHINESE)
    assert "README.zh-CN.md" in links(ENGLISH)
    assert "README.md" in links(CHINESE)


def test_chinese_is_chinese():
    han = sum("\u4e00" <= letter <= "\u9fff" for letter in CHINESE)
    assert han > 800, "the translation has lost its text"


@pytest.mark.parametrize(
    ("was", "becomes"), [("\n## ", "\n### "), ("thinktalk chat", "thinktalk cat")]
)
def test_planted_fault_is_found(was: str, becomes: str):
    assert was in CHINESE
    with pytest.raises(AssertionError):
        compare_twins(ENGLISH, CHINESE.replace(was, becomes, 1))
