"""Put measured text into a page between its markers, so that no figure is ever typed by hand."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put"]


def put(page: str | Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- MARK: begin -->` and `<!-- MARK: end -->`; ValueError when the markers are missing."""
    path = Path(page)
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    head, found, rest = path.read_text().partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{path}: has no {begin.strip()} ... {end}; add both lines")
    path.write_text(f"{head}{begin}{text.rstrip()}\n{end}{rest.partition(end)[2]}")
