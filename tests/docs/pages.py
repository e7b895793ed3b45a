"""Reading the documentation as data: code blocks, headings, links, and the tree of the README."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "headings", "links", "package_files", "tree_files"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    """One fenced code block; `why_not` is the reason of a `<!-- not run: REASON -->` line before it."""

    language: str
    code: str
    line: int
    why_not: str | None


def blocks(text: str) -> list[Block]:
    """The fenced code blocks of a Markdown text, in order."""
    found, lines = [], text.split("\n")
    start, language, why_not = None, "", None
    for number, line in enumerate(lines, 1):
        if start is None:
            if match := re.fullmatch(r"<!-- not run: (.+) -->", line.strip()):
                why_not = match[1]
            elif match := re.fullmatch(r"```(\w*)", line.strip()):
                start, language = number, match[1]
            elif line.strip():
                why_not = None
        elif line.strip() == "```":
            found.append(Block(language, "\n".join(lines[start : number - 1]), start, why_not))
            start, why_not = None, None
    assert start is None, f"the code block of line {start} does not end"
    return found


def prose(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def headings(text: str) -> list[int]:
    """The levels of the headings, in order."""
    return [len(level) for level in re.findall(r"^(#+) ", prose(text), flags=re.M)]


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a page give, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """The targets of the Markdown links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def tree_files(block: str) -> dict[str, set[str]]:
    """folder -> its Python files, from an annotated tree.

    A line is `NAME  words`, two spaces deeper than its folder. The line of a folder (`media/  ...`) names its files
    among the words: `media/  MEDIA IN  audio.py (decode)  image.py`; a line deeper than any folder goes on with it.
    """
    folders: dict[str, set[str]] = {}
    path: list[str] = []
    for line in block.split("\n"):
        indent = len(line) - len(line.lstrip())
        name, _, words = line.strip().partition(" ")
        if indent > 2 * len(path):
            words = line
        else:
            del path[indent // 2 :]
            if name.endswith("/"):
                path.append(name[:-1])
            else:
                folders.setdefault("/".join(path), set()).add(name)
                continue
        named = re.findall(r"(?<![\w/.])\w+\.py\b", re.sub(r"\([^)]*\)", "", words))
        folders.setdefault("/".join(path), set()).update(named)
    return folders


def package_files(root: Path, folder: str) -> dict[str, set[str]]:
    """folder -> its Python files, as they are on disk; folders without any are left out."""
    found: dict[str, set[str]] = {}
    for path in sorted((root / folder).rglob("*.py")):
        found.setdefault(path.parent.relative_to(root).as_posix(), set()).add(path.name)
    return found
