"""Things: pinned packages -> a folder of small cut-outs, each with its name and the hand that drew it.

    noto (Apache-2.0)    fluent (MIT)    stamps (Tux Paint, GPL-2)    clipart (public domain)    twemoji (CC-BY-4.0, test only)

A name is taken only where the package says it in so many words: an emoji's short name, a stamp's caption, the file name of
a clip. `catalogue` unpacks once; what is chosen is part of the folder's name, so another choice makes another folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from thinktalk.data.prompts import split_of
from thinktalk.data.synth.packages import Package, cache_folder, fetch, files
from thinktalk.errors import InputError
from thinktalk.media.image import quiet

__all__ = ["HELD_STYLE", "NAMES", "PACKAGES", "Thing", "catalogue", "names_in_caption", "name_of_clip"]  # fmt: skip

PACKAGES = {
    "noto": Package("npm", "emoji-datasource-google", "16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "fluent": Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
    "stamps": Package("deb", "tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"),
    "clipart": Package("deb", "openclipart-png", "1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    "twemoji": Package("npm", "emoji-datasource-twitter", "16.0.0", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
}  # fmt: skip
HELD_STYLE = "twemoji"
MAX_PIXELS = 20_000_000  # of a clip; a few are drawn for walls
SIDE = 160  # pixels of the longer side that are kept

NAMES: dict[str, str] = {
    # animals
    "cat": "cat cat2 black_cat", "dog": "dog dog2 poodle", "horse": "horse racehorse", "cow": "cow cow2", "pig": "pig pig2",
    "sheep": "sheep", "goat": "goat", "rabbit": "rabbit rabbit2", "mouse": "mouse mouse2", "bear": "bear", "panda": "panda_face",
    "lion": "lion_face", "tiger": "tiger tiger2", "elephant": "elephant", "giraffe": "giraffe_face", "zebra": "zebra_face",
    "monkey": "monkey monkey_face", "camel": "camel dromedary_camel", "kangaroo": "kangaroo", "fox": "fox_face", "wolf": "wolf",
    "deer": "deer", "hedgehog": "hedgehog", "frog": "frog", "turtle": "turtle", "snake": "snake", "crocodile": "crocodile",
    "whale": "whale whale2", "dolphin": "dolphin", "shark": "shark", "fish": "fish tropical_fish", "octopus": "octopus", "crab": "crab",
    "lobster": "lobster", "snail": "snail", "butterfly": "butterfly", "bee": "bee", "ant": "ant", "spider": "spider",
    "ladybug": "ladybug", "bird": "bird black_bird", "duck": "duck", "chicken": "chicken", "rooster": "rooster", "owl": "owl",
    "penguin": "penguin", "parrot": "parrot", "eagle": "eagle", "swan": "swan", "flamingo": "flamingo", "peacock": "peacock",
    "turkey": "turkey", "bat": "bat", "squirrel": "chipmunk", "unicorn": "unicorn_face", "dragon": "dragon dragon_face",
    # food
    "apple": "apple green_apple", "banana": "banana", "pear": "pear", "orange": "tangerine", "lemon": "lemon",
    "strawberry": "strawberry", "watermelon": "watermelon", "pineapple": "pineapple", "peach": "peach", "cherry": "cherries",
    "coconut": "coconut", "tomato": "tomato", "carrot": "carrot", "potato": "potato", "onion": "onion", "corn": "corn",
    "mushroom": "mushroom brown_mushroom", "broccoli": "broccoli", "cucumber": "cucumber", "pumpkin": "jack_o_lantern",
    "bread": "bread", "cheese": "cheese_wedge", "egg": "egg", "pizza": "pizza", "hamburger": "hamburger", "sandwich": "sandwich",
    "cake": "cake birthday", "cookie": "cookie", "doughnut": "doughnut", "pretzel": "pretzel", "lollipop": "lollipop",
    "popcorn": "popcorn", "croissant": "croissant",
    # vehicles
    "car": "car oncoming_automobile blue_car red_car", "bus": "bus oncoming_bus", "truck": "truck articulated_lorry", "taxi": "taxi oncoming_taxi",
    "fire truck": "fire_engine", "ambulance": "ambulance", "tractor": "tractor", "train": "train train2 steam_locomotive",
    "bicycle": "bike", "motorcycle": "racing_motorcycle", "airplane": "airplane small_airplane", "helicopter": "helicopter",
    "rocket": "rocket", "boat": "boat", "ship": "ship", "balloon": "balloon", "skateboard": "skateboard",
    # things of the house and the street
    "house": "house", "castle": "european_castle", "church": "church", "tent": "tent", "bed": "bed", "chair": "chair",
    "door": "door", "lamp": "bulb", "candle": "candle", "clock": "alarm_clock mantelpiece_clock", "watch": "watch", "key": "key old_key",
    "hammer": "hammer", "wrench": "wrench", "saw": "carpentry_saw", "axe": "axe", "screwdriver": "screwdriver",
    "knife": "hocho", "spoon": "spoon", "cup": "coffee tea", "bottle": "champagne", "teapot": "teapot", "umbrella": "umbrella closed_umbrella",
    "book": "book closed_book green_book blue_book orange_book", "pencil": "pencil2", "camera": "camera", "telephone": "phone telephone_receiver",
    "television": "tv", "computer": "computer", "guitar": "guitar", "violin": "violin", "trumpet": "trumpet", "drum": "drum_with_drumsticks",
    "bell": "bell", "ball": "basketball volleyball soccer", "kite": "kite", "gift": "gift", "trophy": "trophy", "crown": "crown",
    "hat": "tophat womans_hat", "shoe": "mans_shoe athletic_shoe", "boot": "boot", "sock": "socks", "shirt": "shirt", "dress": "dress",
    "ring": "ring", "anchor": "anchor", "bucket": "bucket", "basket": "basket", "ladder": "ladder", "mirror": "mirror", "broom": "broom",
    "box": "package", "bag": "handbag", "toothbrush": "toothbrush", "magnet": "magnet", "telescope": "telescope", "robot": "robot_face",
    "ghost": "ghost", "snowman": "snowman snowman_without_snow",
    # nature
    "tree": "deciduous_tree evergreen_tree", "palm tree": "palm_tree", "cactus": "cactus", "rose": "rose", "sunflower": "sunflower",
    "tulip": "tulip", "leaf": "maple_leaf", "sun": "sunny sun_with_face", "moon": "crescent_moon", "star": "star", "cloud": "cloud",
    "rainbow": "rainbow", "snowflake": "snowflake", "mountain": "mountain snow_capped_mountain", "volcano": "volcano", "fire": "fire",
    "flower": "hibiscus blossom",
}  # fmt: skip
"""Name -> the emoji that show it."""

SYNONYMS = {"airplane": ("plane",), "hamburger": ("burger",), "fire truck": ("firetruck", "fire engine"), "bicycle": ("bike",), "motorcycle": ("motorbike", "motor bike"), "gift": ("present", "wrapped gift"), "house": ("home",), "television": ("tv",), "boat": ("sail boat", "sailboat"), "telephone": ("phone",), "cup": ("mug",), "lamp": ("lightbulb", "light bulb"), "rabbit": ("bunny",), "chicken": ("hen",), "ladybug": ("ladybird",), "bird": ("seagull", "crow", "pigeon", "blackbird"), "truck": ("lorry",)}  # fmt: skip
NOT = {"bw", "contour", "outline", "symbol", "icon", "button", "sign", "border", "labels", "print", "sketch", "and", "with", "on", "half", "slice", "wedge", "core", "bite", "bitten", "cube", "box", "juice", "dish", "pie", "chips", "rings", "muffin", "toast", "burger", "platter", "cream", "pot", "glass", "cichlid", "scrathing", "post", "dulcimer", "mute", "burner", "limit", "length", "lane", "opposite", "lutte", "sauvetage", "ride", "sword", "head", "house", "crossing", "mateya"}  # fmt: skip
"""Words that make something else of the name they stand beside (and one artist whose fruit are labels)."""
PHRASES = ("sea lion", "computer mouse", "rubber duck", "post box", "trophy cup", "christmas tree", "cricket ball", "easter egg")  # fmt: skip
"""Captions whose last word is not what is to be seen."""
FOLDERS = ("animals/", "buildings/", "containers/", "education/", "electronics/", "food/", "office/", "people/clothing/", "people/fire_", "plants/", "recreation/", "tools/", "transportation/")  # fmt: skip
STREET_SIGNS = ("transportation/roadsigns/", "transportation/horse.png", "transportation/airplane.png", "tools/weapons/")  # fmt: skip
"""Where clip art of things is, and what looks like it there but is none."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One picture of something."""

    name: str
    style: str
    """Who drew it: a key of PACKAGES."""
    path: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    held: bool
    """For the test only: of the held style, or a picture that the hash of its file takes out of training."""


def catalogue(cache: str | os.PathLike[str] | None = None) -> list[Thing]:
    """All cut-outs, by name and style; unpacked from the packages at the first call (some 440 MB are fetched, 20 MB kept).

    Errors: InputError (a package cannot be had, the cache cannot be written).
    """
    choice = repr((SIDE, sorted(NAMES.items()), sorted(SYNONYMS.items()), sorted(NOT), PHRASES, FOLDERS, STREET_SIGNS, sorted(PACKAGES.items())))  # fmt: skip
    folder = cache_folder(cache) / f"things-{hashlib.sha256(choice.encode()).hexdigest()[:12]}"
    if not (folder / "index.json").exists():
        _unpack(folder, cache)
    index = json.loads((folder / "index.json").read_text())
    things, trained = [], Counter(name for name, style, *_ in index if style != HELD_STYLE)
    for name, style, file, size in index:
        held = style == HELD_STYLE
        # a name needs two pictures to be taught with
        if not held and trained[name] > 2 and split_of(file, salt="thing") == "test":
            held = True
            trained[name] -= 1
        things.append(Thing(name, style, folder / file, tuple(size), held))
    return things


def _unpack(folder: Path, cache: str | os.PathLike[str] | None) -> None:
    """The folder, whole or not at all."""
    archives = {style: fetch(package, cache) for style, package in PACKAGES.items()}
    index = []
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".things-") as scratch:
            for style, path in archives.items():
                numbers: dict[str, int] = {}
                for name, content in sorted(_found(style, path, archives["noto"])):
                    image = _cut(content)
                    if image is None:
                        continue
                    numbers[name] = numbers.get(name, 0) + 1
                    file = f"{name.replace(' ', '-')}-{style}-{numbers[name]}.png"
                    image.save(Path(scratch) / file)
                    index.append((name, style, file, image.size))
            (Path(scratch) / "index.json").write_text(json.dumps(index))
            os.rename(scratch, folder)
            Path(scratch).mkdir()  # for TemporaryDirectory to remove
    except OSError as error:
        if not (folder / "index.json").exists():
            raise InputError(f"{folder}: cannot be written ({error.strerror}), expected room for 20 MB; choose another --cache") from None  # fmt: skip


def _cut(content: bytes) -> Image.Image | None:
    """The picture without its empty margins, SIDE pixels at most; None where it has no clear ground or is nearly all white."""
    with quiet():
        opened = Image.open(io.BytesIO(content))
        if opened.width * opened.height > MAX_PIXELS:
            return None
        image = opened.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 32)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    opaque = image.getchannel("A").histogram()
    share = sum(opaque[128:]) / (image.width * image.height)
    # a full rectangle is a scene, not a cut-out; next to nothing is a line drawing
    if share > 0.97 or share < 0.15 or min(image.size) < 24:
        return None
    return image


def _found(style: str, archive: Path, emoji: Path) -> Iterator[tuple[str, bytes]]:
    """(name, file) of what a package has of NAMES."""
    if style == "stamps":
        captions = dict(files(archive, "*/stamps/*.txt"))
        for path, content in files(archive, "*/stamps/*.png"):
            caption = captions.get(f"{path[:-4]}.txt", b"").decode("utf-8", "replace")
            name = names_in_caption(caption.partition("\n")[0])
            if name and "/symbols/" not in path and "ghost" not in path:  # its ghost is two eyes
                yield name, content
    elif style == "clipart":
        for path, content in files(archive, "*/openclipart/png/*.png"):
            if name := name_of_clip(path.partition("/png/")[2]):
                yield name, content
    else:
        ((_, listed),) = files(emoji, "package/emoji.json")
        code = {e["short_name"]: e["image"].lower() for e in json.loads(listed)}
        plain = lambda stem: stem.lower().removesuffix("-fe0f")  # noqa: E731
        wanted = {plain(code[short].rpartition(".")[0]): name for name, shorts in NAMES.items() for short in shorts.split() if short in code}  # fmt: skip
        for path, content in files(archive, "package/img/*/64/*.png", "package/assets/*.webp"):
            if name := wanted.get(plain(Path(path).stem)):
                yield name, content


def names_in_caption(caption: str) -> str | None:
    """The name that a caption ends with, behind two words at most.

    >>> names_in_caption("A little penguin."), names_in_caption("A computer mouse."), names_in_caption("Boom!!!")
    ('penguin', None, None)
    """
    words = re.sub(r"[^a-z ]", "", caption.casefold().split(".")[0]).split()
    words = words[1:] if words[:1] in (["a"], ["an"], ["the"], ["some"]) else words
    if not 1 <= len(words) <= 3 or " ".join(words).endswith(PHRASES):
        return None
    last = [n for n in _CALLED if words[-len(n.split()) :] == n.split()]
    return _CALLED[max(last, key=len)] if last else None


def name_of_clip(path: str) -> str | None:
    """The name that a file name begins with, when nothing beside it makes something else of it.

    >>> name_of_clip("animals/fish/dolphin_01.png"), name_of_clip("food/apple_juice_box.png")
    ('dolphin', None)
    """
    if not path.startswith(FOLDERS) or path.startswith(STREET_SIGNS):
        return None
    file = path.rpartition("/")[2]
    words = [w for w in re.split(r"[^a-z]+", file.casefold().rpartition(".")[0]) if w]
    first = [n for n in _CALLED if words[: len(n.split())] == n.split()]
    if not first:
        return None
    called = max(first, key=len)
    rest = set(words[len(called.split()) :])
    return None if rest & (NOT | set(_CALLED)) else _CALLED[called]


_CALLED = {called: name for name in NAMES for called in (name, *SYNONYMS.get(name, ()))}
