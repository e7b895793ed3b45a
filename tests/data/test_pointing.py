"""Which thing a word is about, and where it is."""

from __future__ import annotations

import pytest

from thinktalk.data.pointing import about, cells, slots

THINGS = [
    {"name": "circle", "colour": "green"},
    {"name": "ring", "colour": "black"},
    {"name": "star", "colour": "green"},
]


def told(answer, question, things=THINGS):
    return [(answer[a:b], k) for (a, b), k in about(answer, question, things)]


def test_the_thing_of_which_most_is_said_is_meant():
    asked = "What colour is the star?"
    assert told("The star is green.", asked) == [("star", 2), ("green", 2)]
    assert told("The circle is green.", "And the circle?") == [("circle", 0), ("green", 0)]
    assert told("No, the ring is left of it.", "Is the ring right of the star?") == [("ring", 1)]
    assert told("There are two shapes.", "How many?") == []


def test_like_ones_in_turn():
    sounds = [{"name": "bark"}, {"name": "water drop"}, {"name": "bark"}]
    assert told("I hear a bark, then a water drop, then a bark.", "", sounds) == [("bark", 0), ("water", 1), ("drop", 1), ("bark", 2)]  # fmt: skip


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.25, 0.5, 0.5, 0.75), (5 * 8 + 2, 5 * 8 + 4)),
        ((0.0, 0.0, 0.1, 0.1), (0, 1)),
        ((0.99, 0.99, 1.0, 1.0), (63, 64)),
        ((-0.2, 0.4, 1.3, 0.6), (32, 40)),
    ],
)
def test_cells_lie_in_the_box(box, expected):
    assert cells(box, 8, 8) == expected


def test_slots_are_of_the_sound():
    assert slots(0.2, 2.8, 25, 80) == (5, 70)
    assert slots(3.19, 9.0, 25, 80) == (79, 80)
    assert slots(5.0, 5.0, 25, 80) == (79, 80)
