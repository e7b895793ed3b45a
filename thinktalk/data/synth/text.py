"""Text: questions about a small world, typed or to be read aloud, each with one exact answer."""

from __future__ import annotations

import random

from thinktalk.data.synth.world import Item

__all__ = ["CAPITALS", "SKILLS", "ask"]

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Greece": "Athens",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Iceland": "Reykjavik",
    "Ireland": "Dublin", "Austria": "Vienna", "Hungary": "Budapest", "Poland": "Warsaw", "Belgium": "Brussels",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Nepal": "Kathmandu",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat", "Ghana": "Accra", "Senegal": "Dakar", "Ethiopia": "Addis Ababa",
    "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "Uruguay": "Montevideo", "Australia": "Canberra", "New Zealand": "Wellington",
}  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WORDS = [
    "apple",
    "bread",
    "cloud",
    "dance",
    "eagle",
    "flower",
    "garden",
    "house",
    "island",
    "jungle",
    "kitchen",
    "lemon",
    "music",
    "night",
    "orange",
    "pencil",
    "queen",
    "river",
    "summer",
    "table",
    "umbrella",
    "village",
    "window",
    "yellow",
    "bridge",
    "candle",
    "dragon",
    "engine",
    "forest",
    "guitar",
    "honey",
    "jacket",
    "ladder",
    "mirror",
    "needle",
    "ocean",
    "paper",
    "rabbit",
    "silver",
    "tiger",
    "uncle",
    "violin",
    "winter",
    "zebra",
    "basket",
    "camera",
    "doctor",
    "finger",
    "hammer",
    "market",
    "number",
    "pocket",
]
NOBODY = ("my neighbour", "the man in the shop", "your sister", "the teacher next door", "the driver of that bus", "my cousin")  # fmt: skip
SECRETS = ("name", "birthday", "phone number", "favourite colour", "age", "middle name")


def arithmetic(draw: random.Random) -> Item:
    """Two numbers to 20, three operations; no answer below zero."""
    name = draw.choice(["plus", "minus", "times"])
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    if name == "minus" and b > a:
        a, b = b, a
    result = {"plus": a + b, "minus": a - b, "times": a * b}[name]
    wordings = ("What is {a} {name} {b}?", "How much is {a} {name} {b}?", "Calculate {a} {name} {b}.", "{a} {name} {b}?", "Tell me {a} {name} {b}.", "Work out {a} {name} {b}.")  # fmt: skip
    fields = dict(a=a, b=b, name=name)
    return Item("arithmetic", f"{a} {name} {b}", wordings, f"{a} {name} {b} is {result}.", fields)


def comparison(draw: random.Random) -> Item:
    """Which of two different numbers is larger or smaller."""
    a, b = draw.sample(range(100), 2)
    word, pick = draw.choice([("larger", max), ("smaller", min)])
    wordings = ("Which is {word}, {a} or {b}?", "Which number is {word}: {a} or {b}?", "Is {a} or {b} {word}?", "Of {a} and {b}, which is {word}?")  # fmt: skip
    first, second = sorted((a, b))
    content = f"{word} of {first} and {second}"  # in either order it is the same question
    return Item("comparison", content, wordings, f"{pick(a, b)} is {word}.", dict(a=a, b=b, word=word))  # fmt: skip


def spelling(draw: random.Random) -> Item:
    """A word, letter by letter, forwards or backwards."""
    word, back = draw.choice(WORDS), draw.random() < 0.5
    how = "backwards" if back else ""
    wordings = ("Spell {word} {how}.", "How do you spell {word} {how}?", "Please spell the word {word} {how}.", "What are the letters of {word} {how}?")  # fmt: skip
    wordings = wordings if back else tuple(w.replace(" {how}", "") for w in wordings)
    letters = " ".join(word[::-1] if back else word).upper()
    return Item("spelling", f"{word} {how}".strip(), wordings, f"{letters}.", dict(word=word, how=how))  # fmt: skip


def counting(draw: random.Random) -> Item:
    """From one number to another, up or down."""
    a, b = draw.sample(range(31), 2)
    b = max(a - 8, min(a + 8, b))
    numbers = range(a, b + 1) if b > a else range(a, b - 1, -1)
    wordings = ("Count from {a} to {b}.", "Please count from {a} to {b}.", "Say the numbers from {a} to {b}.", "Can you count from {a} to {b}?")  # fmt: skip
    return Item("counting", f"{a} to {b}", wordings, f"{', '.join(map(str, numbers))}.", dict(a=a, b=b))  # fmt: skip


def capitals(draw: random.Random) -> Item:
    """Country to capital, and back."""
    country = draw.choice(list(CAPITALS))
    city = CAPITALS[country]
    if draw.random() < 0.5:
        wordings = ("What is the capital of {country}?", "Which city is the capital of {country}?", "Name the capital of {country}.", "Tell me the capital of {country}.")  # fmt: skip
        return Item("capitals", f"capital of {country}", wordings, f"The capital of {country} is {city}.", dict(country=country))  # fmt: skip
    wordings = ("{city} is the capital of which country?", "Which country has the capital {city}?", "What country is {city} the capital of?")  # fmt: skip
    return Item("capitals", f"country of {city}", wordings, f"{city} is the capital of {country}.", dict(city=city))  # fmt: skip


def calendar(draw: random.Random) -> Item:
    """Before and after, in the week and in the year."""
    kind, names = draw.choice([("day", DAYS), ("month", MONTHS)])
    number, (word, step) = draw.randrange(len(names)), draw.choice([("after", 1), ("before", -1)])
    here, there = names[number], names[(number + step) % len(names)]
    wordings = ("Which {kind} comes {word} {here}?", "What {kind} is {word} {here}?", "Name the {kind} {word} {here}.", "Tell me the {kind} that comes {word} {here}.")  # fmt: skip
    return Item("calendar", f"{kind} {word} {here}", wordings, f"{there} comes {word} {here}.", dict(kind=kind, word=word, here=here))  # fmt: skip


def unknown(draw: random.Random) -> Item:
    """What nobody told: the answer is that it is not known."""
    who, what = draw.choice(NOBODY), draw.choice(SECRETS)
    wordings = ("What is the {what} of {who}?", "Tell me the {what} of {who}.", "Do you know the {what} of {who}?", "Which {what} does {who} have?")  # fmt: skip
    return Item("unknown", f"{what} of {who}", wordings, "I do not know that.", dict(who=who, what=what))  # fmt: skip


SKILLS = (arithmetic, comparison, spelling, counting, capitals, calendar, unknown)


def ask(draw: random.Random) -> Item:
    """A question of any skill, each as often as the others."""
    return draw.choice(SKILLS)(draw)
