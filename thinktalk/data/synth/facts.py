"""Facts: what the little world of synth/text.py knows, as tables."""

from __future__ import annotations

__all__ = ["CAPITALS", "COLOUR_OF", "DAYS", "LEGS", "MONTHS", "NAMES", "OPPOSITES", "PLACES", "SOUND_OF", "THINGS", "WORDS", "YOUNG_OF"]  # fmt: skip


def _words(text: str) -> list[str]:
    return text.split()


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
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]  # fmt: skip
NAMES = _words(
    "Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Leo Maria Nick Olivia Paul Rosa Sam Tom Vera Will Alice Brian "
    "Carol Daniel Ella George Hannah Ian Julia Kevin Laura Mark Nora Oscar Peter Ruth Simon Tina Victor Wendy Adam Bella Chris "
    "Diana Eric Fiona Harry Jane Karen Linda Martin Nancy Robert Sarah Steve Susan Thomas Walter Lucy"
)
PLACES = list(CAPITALS.values())
THINGS = _words("dog cat bird horse house car boat book chair table lamp clock phone garden bike coat hat shoe plant piano")  # fmt: skip
COLOUR_OF = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a banana": "yellow", "a tomato": "red", "an orange": "orange",
    "a lemon": "yellow", "milk": "white", "a carrot": "orange", "a leaf": "green", "a strawberry": "red", "chocolate": "brown",
    "an elephant": "grey", "a polar bear": "white", "a frog": "green", "the sea": "blue", "blood": "red", "salt": "white", "a cherry": "red",
}  # fmt: skip
LEGS = {"a dog": 4, "a cat": 4, "a bird": 2, "a spider": 8, "an ant": 6, "a bee": 6, "a horse": 4, "a snake": 0, "a chicken": 2, "a cow": 4, "a fish": 0, "an octopus": 8, "a lion": 4, "a duck": 2, "a fly": 6, "a human": 2}  # fmt: skip
SOUND_OF = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "lion": "roars", "horse": "neighs", "bee": "buzzes", "owl": "hoots", "wolf": "howls", "pig": "oinks", "snake": "hisses", "bird": "sings"}  # fmt: skip
YOUNG_OF = {"dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "duck": "duckling", "hen": "chick", "pig": "piglet", "bear": "cub", "goat": "kid", "frog": "tadpole", "swan": "cygnet"}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "old": "young", "wet": "dry", "day": "night", "open": "closed", "light": "dark",
    "happy": "sad", "full": "empty", "up": "down", "left": "right", "hard": "soft", "loud": "quiet", "rich": "poor", "early": "late", "near": "far",
    "thick": "thin", "strong": "weak", "clean": "dirty", "first": "last", "high": "low", "good": "bad", "heavy": "light", "sweet": "sour",
}  # fmt: skip
WORDS = _words(
    "apple bread cloud dance eagle flower garden house island jungle kitchen lemon music night orange pencil queen river summer "
    "table umbrella village window yellow bridge candle dragon engine forest guitar honey jacket ladder mirror needle ocean paper "
    "rabbit silver tiger uncle violin winter zebra basket camera doctor finger hammer market number pocket arrow beach branch "
    "brother butter button carpet castle chain cheese chicken circle clock coffee corner cotton cousin desert dinner donkey door "
    "dream drum earth evening farmer father feather field fire fish friend frog glass glove gold grass green ground guest hair hand "
    "heart hill horse hotel hour hunter iron juice kettle key king knife lake lamp leaf letter lion lunch machine metal milk minute "
    "money monkey month moon morning mother mountain mouse mouth neck nest nose nurse office onion owner page paint palace party "
    "pepper phone picture pilot plane planet plant plate potato prince puzzle radio rain ring road rock roof room rose sailor salt "
    "sand school science season second shadow sheep ship shirt shoe shop singer sister sky smile snake snow soap song soup spider "
    "spoon spring square stamp star station stone store storm story street student sugar sun teacher theatre thumb ticket tomato "
    "tower town toy train tree truck turtle valley voice wagon wall water weather wheel whale wind wing wolf wood word world writer"
)
