"""Text: questions about a small world, typed or to be read aloud, each with one exact answer."""

from __future__ import annotations

import random
from dataclasses import replace

from thinktalk.data.synth.facts import (
    CAPITALS,
    COLOUR_OF,
    DAYS,
    LEGS,
    MONTHS,
    NAMES,
    OPPOSITES,
    PLACES,
    SOUND_OF,
    THINGS,
    WORDS,
    YOUNG_OF,
)
from thinktalk.data.synth.world import Item

__all__ = ["SKILLS", "ask", "compared", "counted", "spelt", "summed"]

NOBODY = ("my neighbour", "the man in the shop", "your sister", "the teacher next door", "the driver of that bus", "my cousin")  # fmt: skip
SECRETS = ("name", "birthday", "phone number", "favourite colour", "age", "middle name")


def arithmetic(draw: random.Random) -> Item:
    """Two numbers to 20, three operations; no answer below zero."""
    name = draw.choice(["plus", "minus", "times"])
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    return summed(max(a, b), min(a, b), name) if name == "minus" else summed(a, b, name)


def summed(a: int, b: int, name: str) -> Item:
    """What a plus, minus or times b is."""
    result = {"plus": a + b, "minus": a - b, "times": a * b}[name]
    wordings = ("What is {a} {name} {b}?", "How much is {a} {name} {b}?", "Calculate {a} {name} {b}.", "{a} {name} {b}?", "Tell me {a} {name} {b}.", "Work out {a} {name} {b}.")  # fmt: skip
    fields = dict(a=a, b=b, name=name)
    return Item("arithmetic", f"{a} {name} {b}", wordings, f"{a} {name} {b} is {result}.", fields)


def comparison(draw: random.Random) -> Item:
    """Which of two different numbers is larger or smaller."""
    a, b = draw.sample(range(100), 2)
    return compared(a, b, draw.choice(["larger", "smaller"]))


def compared(a: int, b: int, word: str) -> Item:
    """Which of two numbers is larger, or smaller."""
    wordings = ("Which is {word}, {a} or {b}?", "Which number is {word}: {a} or {b}?", "Is {a} or {b} {word}?", "Of {a} and {b}, which is {word}?")  # fmt: skip
    first, second = sorted((a, b))
    content = f"{word} of {first} and {second}"  # in either order it is the same question
    answer = second if word == "larger" else first
    return Item("comparison", content, wordings, f"{answer} is {word}.", dict(a=a, b=b, word=word))


def spelling(draw: random.Random) -> Item:
    """A word, letter by letter, forwards or backwards."""
    word, back = draw.choice(WORDS), draw.random() < 0.5
    return spelt(word, back)


def spelt(word: str, back: bool) -> Item:
    """The letters of a word, from its beginning or from its end."""
    how = "backwards" if back else ""
    wordings = ("Spell {word} {how}.", "How do you spell {word} {how}?", "Please spell the word {word} {how}.", "What are the letters of {word} {how}?")  # fmt: skip
    wordings = wordings if back else tuple(w.replace(" {how}", "") for w in wordings)
    letters = " ".join(word[::-1] if back else word).upper()
    return Item("spelling", f"{word} {how}".strip(), wordings, f"{letters}.", dict(word=word, how=how))  # fmt: skip


def counting(draw: random.Random) -> Item:
    """From one number to another, up or down."""
    a, b = draw.sample(range(31), 2)
    return counted(a, max(a - 8, min(a + 8, b)))


def counted(a: int, b: int) -> Item:
    """The numbers from a to b, which differ."""
    numbers = range(a, b + 1) if b > a else range(a, b - 1, -1)
    wordings = ("Count from {a} to {b}.", "Please count from {a} to {b}.", "Say the numbers from {a} to {b}.", "Can you count from {a} to {b}?")  # fmt: skip
    return Item("counting", f"{a} to {b}", wordings, f"{', '.join(map(str, numbers))}.", dict(a=a, b=b))  # fmt: skip


def capitals(draw: random.Random) -> Item:
    """Country to capital, and back."""
    country = draw.choice(list(CAPITALS))
    city = CAPITALS[country]
    if draw.random() < 0.5:
        wordings = ("What is the capital of {country}?", "Which city is the capital of {country}?", "Name the capital of {country}.", "Tell me the capital of {country}.")  # fmt: skip
        return Item("capitals", f"capital of {country}", wordings, f"The capital of {country} is {city}.", dict(country=country), taught=True)  # fmt: skip
    wordings = ("{city} is the capital of which country?", "Which country has the capital {city}?", "What country is {city} the capital of?")  # fmt: skip
    return Item("capitals", f"country of {city}", wordings, f"{city} is the capital of {country}.", dict(city=city), taught=True)  # fmt: skip


def calendar(draw: random.Random) -> Item:
    """Before and after, in the week and in the year."""
    kind, names = draw.choice([("day", DAYS), ("month", MONTHS)])
    number, (word, step) = draw.randrange(len(names)), draw.choice([("after", 1), ("before", -1)])
    here, there = names[number], names[(number + step) % len(names)]
    wordings = ("Which {kind} comes {word} {here}?", "What {kind} is {word} {here}?", "Name the {kind} {word} {here}.", "Tell me the {kind} that comes {word} {here}.")  # fmt: skip
    return Item("calendar", f"{kind} {word} {here}", wordings, f"{there} comes {word} {here}.", dict(kind=kind, word=word, here=here), taught=True)  # fmt: skip


def unknown(draw: random.Random) -> Item:
    """What nobody told: the answer is that it is not known."""
    who, what = draw.choice(NOBODY), draw.choice(SECRETS)
    wordings = ("What is the {what} of {who}?", "Tell me the {what} of {who}.", "Do you know the {what} of {who}?", "Which {what} does {who} have?")  # fmt: skip
    return Item("unknown", f"{what} of {who}", wordings, "I do not know that.", dict(who=who, what=what))  # fmt: skip


def clock(draw: random.Random) -> Item:
    """So many hours later or earlier."""
    hour, hours = draw.randint(1, 12), draw.randint(1, 11)
    word, sign = draw.choice([("after", 1), ("before", -1)])
    then = (hour + sign * hours - 1) % 12 + 1
    many = "hour" if hours == 1 else "hours"
    wordings = ("What time is it {hours} {many} {word} {hour} o'clock?", "Which time is {hours} {many} {word} {hour} o'clock?", "Tell me the time {hours} {many} {word} {hour} o'clock.", "{hours} {many} {word} {hour} o'clock is what time?")  # fmt: skip
    return Item("clock", f"{hours} hours {word} {hour}", wordings, f"It is {then} o'clock.", dict(hours=hours, many=many, word=word, hour=hour))  # fmt: skip


def facts(draw: random.Random) -> Item:
    """Colours, legs, voices and children of things, and opposites."""
    kind = draw.choice(("colour", "legs", "sound", "young", "opposite"))
    if kind == "colour":
        what = draw.choice(list(COLOUR_OF))
        wordings = ("What colour is {what}?", "Which colour is {what}?", "Tell me the colour of {what}.", "{what} has which colour?")  # fmt: skip
        answer = f"{what[:1].upper()}{what[1:]} is {COLOUR_OF[what]}."
    elif kind == "legs":
        what = draw.choice(list(LEGS))
        count = LEGS[what]
        wordings = ("How many legs does {what} have?", "Tell me how many legs {what} has.", "What number of legs does {what} have?", "How many legs has {what}?")  # fmt: skip
        answer = f"{what[:1].upper()}{what[1:]} has {count or 'no'} legs."
    elif kind == "sound":
        what = draw.choice(list(SOUND_OF))
        wordings = ("What does a {what} do when it makes a sound?", "Which sound does a {what} make?", "What sound does the {what} make?", "Tell me the sound of a {what}.")  # fmt: skip
        answer = f"{'An' if what[0] in 'aeiou' else 'A'} {what} {SOUND_OF[what]}."
        wordings = tuple(w.replace("a {what}", "an {what}") if what[0] in "aeiou" else w for w in wordings)  # fmt: skip
    elif kind == "young":
        what = draw.choice(list(YOUNG_OF))
        wordings = ("What is a young {what} called?", "What do you call a young {what}?", "How is a young {what} called?", "Name the child of a {what}.")  # fmt: skip
        answer = f"A young {what} is a {YOUNG_OF[what]}."
    else:
        what = draw.choice(list(OPPOSITES))
        wordings = ("What is the opposite of {what}?", "Tell me the opposite of {what}.", "Which word is the opposite of {what}?", "{what} is the opposite of what?")  # fmt: skip
        answer = f"The opposite of {what} is {OPPOSITES[what]}."
    return Item("facts", f"{kind} {what}", wordings, answer, dict(what=what), taught=True)


def memory(draw: random.Random) -> Item:
    """What was told one or two turns ago; in one of eight it never was."""
    kind = draw.choice(("name", "home", "thing"))
    if kind == "name":
        what = draw.choice(NAMES)
        told = draw.choice([(f"My name is {what}.", f"Nice to meet you, {what}."), (f"I am {what}.", f"Hello, {what}.")])  # fmt: skip
        wordings = ("What is my name?", "Do you remember my name?", "Who am I?", "Tell me my name.")
        answer = f"Your name is {what}."
    elif kind == "home":
        what = draw.choice(PLACES)
        told = draw.choice([(f"I live in {what}.", f"{what} is a nice place."), (f"My home is in {what}.", f"I hear {what} is nice.")])  # fmt: skip
        wordings = ("Where do I live?", "Where is my home?", "Which city do I live in?", "In which place do I live?")  # fmt: skip
        answer = f"You live in {what}."
    else:
        count, thing = draw.randint(2, 9), draw.choice(THINGS)
        what = f"{count} {thing}s"
        told = draw.choice([(f"I have {what}.", f"{what}, that is a lot."), (f"There are {what} at home.", f"I see, {what}.")])  # fmt: skip
        wordings = ("How many {thing}s do I have?", "What is the number of my {thing}s?", "Do you know how many {thing}s I have?", "How many {thing}s are mine?")  # fmt: skip
        item = Item("memory", f"have {what}", wordings, f"You have {what}.", dict(thing=thing))
        return _after(draw, item, told)
    return _after(draw, Item("memory", f"{kind} {what}", wordings, answer), told)


def _after(draw: random.Random, item: Item, told: tuple[str, str]) -> Item:
    """The item after it was told, with another question in between or none; or without having been told."""
    if draw.random() < 0.125:
        return replace(item, answer="I do not know that.", content=f"not told, {item.content}")
    between: tuple[tuple[str, str], ...] = ()
    if draw.random() < 0.5:
        other = draw.choice((capitals, calendar, facts))(draw)
        between = ((other.wordings[0].format(**other.fields), other.answer),)
    return replace(item, before=(told, *between))


SKILLS = (
    arithmetic,
    comparison,
    spelling,
    counting,
    capitals,
    calendar,
    clock,
    facts,
    memory,
    unknown,
)


def ask(draw: random.Random) -> Item:
    """A question of any skill, each as often as the others."""
    return draw.choice(SKILLS)(draw)
