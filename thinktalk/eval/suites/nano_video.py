"""Video: which way, in which order, how often; and with sound: which of them sounded, together, before or after the hit.

What needs eyes and ears at once must fall to chance when the sound is moved or when the times of TMRoPE are scrambled, and
must not be right by eyes alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from thinktalk.data.synth import omni, videos
from thinktalk.data.synth.world import World
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_confusion
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.asked import measure, mixed, questions, rows_of

__all__ = ["ABILITIES", "watch", "watch_and_hear"]

SILENT: dict[str, tuple[str, World, tuple[str, str, str]]] = {
    "direction": ("silent video: which way it goes", videos.direction, ("75 %", "90 %", "97 %")),
    "order": ("silent video: which appears first or last", videos.order, ("75 %", "90 %", "97 %")),
    "bounces": ("silent video: how often the ball bounces", videos.bounces, ("", "", "")),
    "others": (
        "silent video: what vanishes, changes colour, is faster, grows",
        mixed(videos.ask, videos.vanishing, videos.recolouring, videos.race, videos.growing),
        ("", "", ""),
    ),
}
WITH_SOUND = {
    "both": ("sound with video: needs both", mixed(omni.ask, omni.which, omni.hit_sound, omni.together), ("60 %", "75 %", "85 %")),
    "before_after": ("sound with video: before or after the hit", omni.before_after, ("60 %", "75 %", "85 %")),
}  # fmt: skip
TIMED = ("text only", "shuffled", "eyes only", "shifted sound", "scrambled times")


def watch(bench: Bench) -> Iterator[Row]:
    """Silent videos, with another video, and with none."""
    for name, (title, world, reach) in SILENT.items():
        arms = measure(bench, f"video/{name}", questions(bench, f"video-{name}", world))
        if name == "direction":
            draw_confusion(bench, "video_direction", arms[""].pairs, "Which way a shape moves")
        yield from rows_of(bench, f"video/{name}", title, arms, reach=reach)


def watch_and_hear(bench: Bench) -> Iterator[Row]:
    """Videos with sound, and all that takes the time away."""
    for name, (title, world, reach) in WITH_SOUND.items():
        arms = measure(bench, f"omni/{name}", questions(bench, f"omni-{name}", world), arms=TIMED)
        yield from rows_of(bench, f"omni/{name}", title, arms, reach=reach)


ABILITIES = {"video": watch, "omni": watch_and_hear}
