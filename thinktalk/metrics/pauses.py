"""Pauses: a text and when its words were heard -> pauses that punctuation asks for and that are missing, and those out of place.

    "Well, I think so."     a pause between "well" and "i"; none between "i" and "think"
    heard    well 0.1-0.4 s   i 0.6-0.7   think 1.3-1.6   so 1.65-1.9       well|i 0.2 s: kept     i|think 0.6 s: out of place

The second half of the report's reward for speech, beside WER. A place counts when the words on both its sides were heard
right: other words are the WER's business. Where a good recording of the same text is at hand, its pauses are what is
expected instead of thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinktalk.metrics.wer import align, normalise

__all__ = ["PauseErrors", "PauseRules", "Word", "pause_errors", "pauses"]

CLAUSE, SENTENCE = set(",;:–—()"), set(".!?…。？！，、")


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was heard, and when."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseRules:
    """What punctuation asks for, in seconds; the pauses of the Kokoro corpus are 0.05 to 0.18 s at commas, up to 0.13 s elsewhere."""

    clause_s: float = 0.05
    """Shortest pause at a comma, colon, semicolon, dash or bracket."""
    sentence_s: float = 0.12
    """Shortest pause at the end of a sentence that others follow."""
    elsewhere_s: float = 0.25
    """Longest pause where there is no punctuation."""
    tolerance_s: float = 0.12
    """Largest difference to the pause of a recording of the same text, where there is one."""


@dataclass(frozen=True, slots=True)
class PauseErrors:
    """Counts of one utterance, or of many added up."""

    missing: int = 0
    """Punctuation without its pause."""
    extra: int = 0
    """Pauses where nothing asks for one, or that are too long."""
    places: int = 0
    """Places that were looked at: between two words that were both heard."""

    @property
    def rate(self) -> float:
        """Errors a place; 0 where no place could be looked at."""
        return (self.missing + self.extra) / self.places if self.places else 0.0

    def __add__(self, other: PauseErrors) -> PauseErrors:
        return PauseErrors(
            self.missing + other.missing, self.extra + other.extra, self.places + other.places
        )


def pause_errors(
    text: str,
    heard: Sequence[Word],
    *,
    reference: Sequence[Word] | None = None,
    rules: PauseRules = PauseRules(),
) -> PauseErrors:
    """Pauses of a text as it was heard; `reference` are the words of a recording that says it well.

    >>> pause_errors("No, thanks.", [Word("no", 0.0, 0.3), Word("thanks", 0.31, 0.8)])
    PauseErrors(missing=1, extra=0, places=1)
    """
    words, marks = _places(text)
    found = pauses(words, heard)
    expected = pauses(words, reference) if reference is not None else {}
    missing = extra = 0
    for place, pause in found.items():
        if place in expected:
            missing += pause < expected[place] - rules.tolerance_s
            extra += pause > expected[place] + rules.tolerance_s
        elif marks[place]:
            asked = rules.sentence_s if marks[place] == "sentence" else rules.clause_s
            missing += pause < asked
        else:
            extra += pause > rules.elsewhere_s
    return PauseErrors(missing, extra, len(found))


def pauses(words: Sequence[str], heard: Sequence[Word]) -> dict[int, float]:
    """Seconds between word n and n + 1 of a text, for each n whose two words were heard one right after the other.

    `words` are those of `_places`, normal form each.
    """
    spoken = [(part, word) for word in heard for part in normalise(word.text).split()]
    times: dict[int, tuple[int, Word]] = {}  # word of the text -> its number among those heard
    n = m = 0
    for reference, hypothesis in align(words, [part for part, _ in spoken]):
        if reference is not None and reference == hypothesis:
            times[n] = m, spoken[m][1]
        n += reference is not None
        m += hypothesis is not None
    found = {}
    for n in range(len(words) - 1):
        if n in times and n + 1 in times and times[n + 1][0] == times[n][0] + 1:
            # parts of one word ("I'm": "i", "am") have no pause between them
            before, after = times[n][1], times[n + 1][1]
            found[n] = 0.0 if before is after else max(0.0, after.start_s - before.end_s)
    return found


def _places(text: str) -> tuple[list[str], list[str]]:
    """The words of a text in normal form, and what stands after each: "clause", "sentence" or nothing.

    A number in words becomes digits only when its words are together, so a text is made normal as a whole and then parted
    by its punctuation: what stands between two marks is normal by itself.
    """
    words: list[str] = []
    marks: list[str] = []
    piece = ""

    def close(kind: str) -> None:
        nonlocal piece
        own = normalise(piece).split()
        words.extend(own)
        marks.extend("" for _ in own)
        if own and kind:
            marks[-1] = kind
        elif marks and kind == "sentence":
            marks[-1] = kind  # "Well ...": the last mark of several decides
        piece = ""

    for n, c in enumerate(text):
        inside = 0 < n < len(text) - 1 and text[n - 1].isalnum() and text[n + 1].isalnum()
        if (c in CLAUSE or c in SENTENCE) and not inside:  # 3.5 and 1,000 and e.g. are words
            close("sentence" if c in SENTENCE else "clause")
        else:
            piece += c
    close("")
    return words, marks
