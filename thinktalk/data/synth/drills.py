"""Drills: exercises for a model that reads its first letters and numbers; nothing that the world `text` asks of anybody.

    words that nobody has heard (onset + vowel + coda)    their letters, forwards, backwards, and back to the word
    those and others                                      one letter of them
    numbers beyond those of `text`                        sums, neighbours, rows, larger and smaller
    hours, counted aloud                                  in the split in which `text` has their sum
    names that were just told                             asked for
    words in no order                                     said again, the most frequent drill: copying is how a Thinker
                                                          will later write what it hears

A question of `text` is one of some hundreds: who learns only those learns them by heart, and the held-out ones stay wrong
(LOG.md). Drills are drawn from far more than a small model can remember. What they share with `text` is asked in its
wordings, so that those kept for the test are kept here, too.
"""

from __future__ import annotations

import random

from thinktalk.data.synth import text
from thinktalk.data.synth.facts import WORDS
from thinktalk.data.synth.world import Item

__all__ = ["SKILLS", "ask", "made_up"]


def parts(written: str, *, none: int = 0) -> tuple[str, ...]:
    """What is written, and so many times nothing; what stands there twice comes twice as often."""
    return (*written.split(), *[""] * none)


ONSETS = parts("b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sl sm sn sp st str sw t th tr tw v w wh y z", none=1)  # fmt: skip
VOWELS = parts("a a a e e e i i i o o o u u ai ea ee ie oa oo ou ow y")
CODAS = parts("b ck d dge f g ke l ll ld lk lt m mp n n nch nd nge nk nt ng p r r rd rk rm rn rt s sh sk ss st t t tch th ve x", none=6)  # fmt: skip
ORDINALS = parts("first second third fourth fifth sixth")
ENDINGS = parts("er er en et le ly on or y ing ed ion age ow ey et in")


def made_up(draw: random.Random) -> str:
    """A word that could be English: one or two syllables, and perhaps an ending."""
    word = "".join(draw.choice(part) for part in (ONSETS, VOWELS, CODAS))
    if draw.random() < 0.3:
        word += "".join(draw.choice(part) for part in (ONSETS, VOWELS, CODAS))
    if draw.random() < 0.4:
        word += draw.choice(ENDINGS)
    # a word that `text` may ask about would be no drill
    return made_up(draw) if len(word) < 3 or word in WORDS else word


def letters(draw: random.Random) -> Item:
    """A made-up word, letter by letter."""
    word = made_up(draw)
    return text.spelt(word, draw.random() < 0.5)


def word_of(draw: random.Random) -> Item:
    """Letters, and the word that they make; or how many there are."""
    word = made_up(draw)
    spelt = " ".join(word).upper()
    if draw.random() < 0.3:
        wordings = ("How many letters has {word}?", "How many letters are in {word}?", "Count the letters of {word}.", "Letters in {word}?")  # fmt: skip
        return Item("letters", f"many {word}", wordings, f"{word.capitalize()} has {len(word)} letters.", dict(word=word))  # fmt: skip
    wordings = ("Which word is {spelt}?", "What do the letters {spelt} spell?", "Read the word {spelt}.", "{spelt} is which word?")  # fmt: skip
    return Item("letters", f"word {word}", wordings, f"{spelt} spells {word}.", dict(spelt=spelt))


def letter(draw: random.Random) -> Item:
    """One letter of a word, made up or not: `text` asks for all of them, and nothing else tells a model what a token is made of."""
    word = draw.choice((made_up(draw), draw.choice(WORDS)))
    number = draw.randrange(min(len(word), len(ORDINALS)))
    nth, which = draw.choice(((ORDINALS[number], word[number]), ("last", word[-1])))
    wordings = ("What is the {nth} letter of {word}?", "Which letter of {word} is the {nth}?", "Tell me the {nth} letter of {word}.", "{word} has which {nth} letter?")  # fmt: skip
    return Item("letters", f"{nth} of {word}", wordings, f"The {nth} letter of {word} is {which.upper()}.", dict(nth=nth, word=word))  # fmt: skip


def sums(draw: random.Random) -> Item:
    """Two numbers, of which one is beyond 20."""
    name = draw.choice(("plus", "plus", "minus", "minus", "times"))
    a, b = (draw.randint(0, 9), draw.randint(21, 40)) if name == "times" else (draw.randint(0, 99), draw.randint(21, 99))  # fmt: skip
    if draw.random() < 0.5:
        a, b = b, a
    return text.summed(max(a, b), min(a, b), name) if name == "minus" else text.summed(a, b, name)


def neighbours(draw: random.Random) -> Item:
    """The number before or after, and one that is a little more or less."""
    a, step = draw.randint(0, 999), draw.randint(1, 9)
    more = draw.random() < 0.5 or a < step
    answer = a + step if more else a - step
    word = "more" if more else "less"
    wordings = ("Which number is {step} {word} than {a}?", "What is {step} {word} than {a}?", "{step} {word} than {a} is what?", "Tell me {step} {word} than {a}.")  # fmt: skip
    return Item("neighbours", f"{step} {word} than {a}", wordings, f"{step} {word} than {a} is {answer}.", dict(step=step, word=word, a=a))  # fmt: skip


def rows(draw: random.Random) -> Item:
    """From one number to another beyond 30, up or down."""
    first, many = draw.randint(31, 150), draw.randint(2, 8)
    down = draw.random() < 0.5 and first - many > 30
    return text.counted(first, first - many if down else first + many)


def larger(draw: random.Random) -> Item:
    """Which of two numbers is larger or smaller, one of them beyond 100."""
    a, b = draw.randint(0, 999), draw.randint(100, 999)
    a, b = (a - 1, b) if a == b else (a, b)
    if draw.random() < 0.5:
        a, b = b, a
    return text.compared(a, b, draw.choice(("larger", "smaller")))


def hours(draw: random.Random) -> Item:
    """Hours counted one by one. Its skill and content are those of the clock in `text`, so that it is in the same split."""
    hour, many = draw.randint(1, 12), draw.randint(1, 11)
    word, sign = draw.choice([("after", 1), ("before", -1)])
    clock = [(hour + sign * n - 1) % 12 + 1 for n in range(1, many + 1)]
    plural = "hour" if many == 1 else "hours"
    wordings = ("Count the {plural}: {many} {plural} {word} {hour} o'clock.", "Say each hour to {many} {plural} {word} {hour} o'clock.", "Count {many} {plural} {word} {hour} o'clock.", "Each hour until {many} {plural} {word} {hour} o'clock?")  # fmt: skip
    fields = dict(plural=plural, many=many, word=word, hour=hour)
    return Item("clock", f"{many} hours {word} {hour}", wordings, f"{', '.join(map(str, clock))} o'clock.", fields)  # fmt: skip


def told(draw: random.Random) -> Item:
    """Something that was just said, asked for."""
    what, name = draw.choice(("dog", "cat", "horse", "ship", "friend", "street", "school", "doll")), made_up(draw).capitalize()  # fmt: skip
    before = (f"My {what} is called {name}.", f"{name} is a nice name.")
    wordings = ("What is my {what} called?", "What is the name of my {what}?", "Tell me the name of my {what}.", "How is my {what} called?")  # fmt: skip
    item = Item("told", f"{what} {name}", wordings, f"Your {what} is called {name}.", dict(what=what), before=(before,))  # fmt: skip
    if draw.random() < 0.5:
        other = draw.choice((larger, neighbours, rows))(draw)
        between = (other.wordings[0].format(**other.fields), other.answer)
        return Item(item.skill, item.content, wordings, item.answer, item.fields, before=(before, between))  # fmt: skip
    return item


def again(draw: random.Random) -> Item:
    """Words in no order, said again as they are, up to 20 of them: what comes next is known to nobody who does not look."""
    kinds = (made_up, lambda d: str(d.randint(0, 999)), *[lambda d: d.choice(WORDS)] * 3)
    said = " ".join(
        draw.choice(kinds)(draw) for _ in range(draw.choice((2, 3, 4, 5, 6, 8, 10, 14, 20)))
    )
    said = f"{said[:1].upper()}{said[1:]}."
    wordings = ("Say after me: {said}", "Repeat these words: {said}", "Say it again: {said}", "Please say: {said}", "Read this: {said}", "{said} Now you.")  # fmt: skip
    return Item("again", said, wordings, said, dict(said=said))


SKILLS = (letters, letters, letter, letter, word_of, sums, sums, neighbours, rows, larger, hours, told, told, *[again] * 4)  # fmt: skip


def ask(draw: random.Random) -> Item:
    """An exercise of any kind."""
    return draw.choice(SKILLS)(draw)
