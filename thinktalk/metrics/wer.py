"""WER: reference and hypothesis texts -> errors by kind, one Errors an utterance, and their sum.

    text --normalise--> words --align--> hits, substitutions, deletions, insertions

The rate of a corpus is the sum of its errors over the sum of its reference words, never a mean of rates. Normalisation
follows Whisper's for English where speech cannot tell the difference: case, punctuation, contractions, fillers, numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "ONES",
    "TENS",
    "Errors",
    "align",
    "cer",
    "character_errors",
    "normalise",
    "wer",
    "word_errors",
]


@dataclass(frozen=True, slots=True)
class Errors:
    """Counts of one utterance, or of many added up."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def count(self) -> int:
        """Everything that went wrong."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors a unit of the reference; may exceed 1. Of an empty reference: 0 if nothing was inserted, else infinite."""
        if self.length == 0:
            return 0.0 if self.count == 0 else float("inf")
        return self.count / self.length

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


# ----------------------------------------------------------------------------------------------------------- alignment


ERROR = (
    1 << 32
)  # cost of an error; a substitution costs one more, so that of equal alignments the one with most hits wins


def align(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> list[tuple[str | None, str | None]]:
    """Pairs of an alignment with the fewest errors and, among those, the most hits: (word, word), (word, None), (None, word).

    >>> align("a b c".split(), "a x c d".split())
    [('a', 'a'), ('b', 'x'), ('c', 'c'), (None, 'd')]
    """
    cost = _costs(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    pairs: list[tuple[str | None, str | None]] = []
    while i or j:
        change = ERROR + 1 if i and j and reference[i - 1] != hypothesis[j - 1] else 0
        if i and j and cost[i, j] == cost[i - 1, j - 1] + change:
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and cost[i, j] == cost[i - 1, j] + ERROR:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> np.ndarray:
    """Levenshtein costs (N + 1, M + 1) of all prefixes."""
    numbers = {unit: n for n, unit in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    hyp = np.array([numbers[u] for u in hypothesis], np.int64)
    steps = np.arange(len(hyp) + 1) * ERROR
    cost = np.empty((len(reference) + 1, len(hyp) + 1), np.int64)
    cost[0] = steps
    for i, unit in enumerate(reference, 1):
        row = np.empty_like(steps)
        row[0] = i * ERROR
        change = np.where(hyp != numbers[unit], ERROR + 1, 0)
        row[1:] = np.minimum(cost[i - 1, :-1] + change, cost[i - 1, 1:] + ERROR)
        # an insertion costs one error a step to the right: the running minimum of (cost - step) says where it pays
        cost[i] = np.minimum.accumulate(row - steps) + steps
    return cost


def _errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    pairs = align(reference, hypothesis)
    deletions = sum(h is None for _, h in pairs)
    insertions = sum(r is None for r, _ in pairs)
    hits = sum(r == h for r, h in pairs)
    return Errors(hits, len(pairs) - hits - deletions - insertions, deletions, insertions)


def word_errors(reference: str, hypothesis: str, *, normal: bool = True) -> Errors:
    """Errors of an utterance in words; `normal=False` compares the words as they are written."""
    if normal:
        reference, hypothesis = normalise(reference), normalise(hypothesis)
    return _errors(reference.split(), hypothesis.split())


def character_errors(reference: str, hypothesis: str, *, normal: bool = True) -> Errors:
    """Errors of an utterance in characters, single spaces between words among them."""
    if normal:
        reference, hypothesis = normalise(reference), normalise(hypothesis)
    return _errors(" ".join(reference.split()), " ".join(hypothesis.split()))


def wer(references: Sequence[str], hypotheses: Sequence[str], *, normal: bool = True) -> float:
    """Word error rate of a corpus, as a fraction.

    >>> wer(["Good morning."], ["good mourning"])
    0.5
    """
    pairs = zip(references, hypotheses, strict=True)
    return sum((word_errors(r, h, normal=normal) for r, h in pairs), Errors()).rate


def cer(references: Sequence[str], hypotheses: Sequence[str], *, normal: bool = True) -> float:
    """Character error rate of a corpus, as a fraction."""
    pairs = zip(references, hypotheses, strict=True)
    return sum((character_errors(r, h, normal=normal) for r, h in pairs), Errors()).rate


# ------------------------------------------------------------------------------------------------------- normalisation

FILLERS = {"uh", "um", "uhm", "hm", "hmm", "mm", "mhm", "er", "erm", "ah"}
SHORT = {
    "mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor", "st": "saint", "vs": "versus", "ok": "okay",
    "prof": "professor", "jr": "junior", "sr": "senior",
}  # fmt: skip
CONTRACTIONS = (
    (r"\bwon't\b", "will not"), (r"\bcan't\b", "can not"), (r"\bcannot\b", "can not"), (r"\blet's\b", "let us"),
    (r"\bain't\b", "is not"), (r"\by'all\b", "you all"), (r"\bgonna\b", "going to"), (r"\bwanna\b", "want to"),
    (r"\bgotta\b", "got to"), (r"n't\b", " not"), (r"'re\b", " are"), (r"'ll\b", " will"), (r"'ve\b", " have"),
    (r"'m\b", " am"),
)  # fmt: skip
SYMBOLS = {
    "%": " percent ",
    "&": " and ",
    "+": " plus ",
    "=": " equals ",
    "°": " degrees ",
    "@": " at ",
}
CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBERS = {w: n for n, w in enumerate(ONES)} | {w: 10 * n for n, w in enumerate(TENS, 2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


def normalise(text: str) -> str:
    """Lower-case words, single spaces between them, in the one form that all ways of writing the same speech share.

    >>> normalise("Uh, it's twenty-one %, Dr. Who -- I CAN'T!")
    "it's 21 percent doctor who i can not"
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub("[\u2018\u2019\u02bc`]", "'", text)
    # an accent is no other word: cafe and café sound the same
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    text = re.sub(r"([$£€])\s?(\d[\d,.]*\d|\d)", lambda m: f"{m[2]} {CURRENCIES[m[1]]}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # 1,000
    for symbol, word in SYMBOLS.items():
        text = text.replace(symbol, word)
    for pattern, words in CONTRACTIONS:
        text = re.sub(pattern, words, text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"[^\w\s']|_", " ", text)
    words = [w.strip("'") for w in text.split()]
    words = [SHORT.get(w, w) for w in words if w and w not in FILLERS]
    return " ".join(_digits(words))


def _digits(words: list[str]) -> list[str]:
    """Numbers in words become digits: "one hundred and five" is "105"; numbers side by side stay apart."""
    out: list[str] = []
    i = 0
    while i < len(words):
        value, used = _number(words[i:])
        out.append(str(value) if used else words[i])
        i += used or 1
    return out


def _number(words: list[str]) -> tuple[int, int]:
    """The number that these words begin with, and how many of them it takes; (0, 0) where there is none."""
    total, group, used = 0, 0, 0
    last_scale, room = (
        10**12,
        1000,
    )  # scales fall; `room`: what may still be added to the group is below it
    for i, word in enumerate(words):
        if word in NUMBERS and NUMBERS[word] < room:
            number = NUMBERS[word]
            if number == 0 and used:
                break
            group += number
            room = 10 if number >= 20 else 0
            used = i + 1
            if number == 0:
                break
        elif word == "hundred" and used == i and 0 < group < 10:
            group, room, used = group * 100, 100, i + 1
        elif (
            word in SCALES
            and word != "hundred"
            and used == i
            and group
            and SCALES[word] < last_scale
        ):
            last_scale = SCALES[word]
            total, group, room, used = total + group * last_scale, 0, 1000, i + 1
        elif word == "and" and used == i and i and words[i - 1] in SCALES:
            continue  # counts only where a number follows
        else:
            break
    return total + group, used
