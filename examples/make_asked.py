"""Makes asked/: questions of the test with a recording, a picture or a clip each, and the answers expected. Nobody trains with them.

Run: python examples/make_asked.py [CACHE]    needs the extra `synth`; fetches what docs/data.md names into CACHE

The same seed gives the same pictures and sounds. Speech is by Kokoro-82M (Apache-2.0) and differs in the last bits from
machine to machine; things are Noto emoji (Apache-2.0); all the rest is drawn, filmed and sounded by thinktalk/data/synth.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thinktalk.data.synth import omni, pictures, sounds, text, videos
from thinktalk.data.synth.kokoro import Kokoro
from thinktalk.data.synth.objects import Objects
from thinktalk.data.synth.ogg import opus
from thinktalk.data.synth.things import catalogue
from thinktalk.data.synth.voices import Voice, own_voices
from thinktalk.data.synth.wording import aloud
from thinktalk.data.synth.world import Item, draw_item, fill

HERE = Path(__file__).parent / "asked"
OURS, NOTO, KOKORO = "Apache-2.0 (drawn or sounded by thinktalk)", "Apache-2.0 (Noto emoji, Google)", "Apache-2.0 (spoken by Kokoro-82M)"  # fmt: skip
QUESTION, ANSWER = "Tell me the day that comes before Friday.", "Thursday comes before Friday."
"""What scripts/demo asks, in a voice that is kept for tests."""
SENTENCE = "The wooden bridge over the river was painted red twice this year."


def main() -> None:
    """Write all files and asked.json."""
    HERE.mkdir(exist_ok=True)
    draw, cache = random.Random(162), sys.argv[1] if len(sys.argv) > 1 else None
    noto = Objects([thing for thing in catalogue(cache) if thing.style == "noto"])
    skills: list[tuple[str, Callable[[random.Random], Item], str]] = [
        ("colour", pictures.colour, OURS), ("count", pictures.count, OURS), ("relation", pictures.relation, OURS),
        ("digits", pictures.digits, OURS), ("describe", pictures.describe, OURS), ("thing", noto.what, NOTO),
        ("sound", sounds.what, OURS), ("sound_count", sounds.count, OURS), ("pitch", sounds.pitch, OURS),
        ("direction", videos.direction, OURS), ("order", videos.order, OURS),
        ("which_sounds", omni.which, OURS), ("before_after", omni.before_after, OURS),
    ]  # fmt: skip
    told = [_world(name, skill, licence, draw) for name, skill, licence in skills]
    speaker, voices = (
        Kokoro(cache),
        [*own_voices("kokoro"), Voice("af_nova", False, {"af_nova": 1.0})],
    )

    def say(name: str, words: str, number: int) -> dict[str, str]:
        said = speaker.say(words, voices[number])
        (HERE / f"{name}.opus").write_bytes(opus(said.pcm, said.sample_rate))
        return {"file": f"{name}.opus", "kind": "audio", "said": words, "licence": KOKORO}

    for number, skill in enumerate((text.arithmetic, text.capitals, text.comparison)):
        item = draw_item(skill, "test", draw)
        words = fill(item, "test", draw)
        told.append({"task": item.skill, "ask": "", "answer": item.answer, **say(f"spoken_{item.skill}", aloud(words), number)})  # fmt: skip
    told.append({"task": "transcribe", "ask": "I need the text of this clip, word for word.", "answer": SENTENCE, **say("sentence", SENTENCE, 3)})  # fmt: skip
    told.append(
        {"task": "calendar", "ask": "", "answer": ANSWER, **say("spoken_calendar", QUESTION, 4)}
    )
    lines = ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in told)
    (HERE / "asked.json").write_text(f"[\n  {lines}\n]\n", encoding="utf-8")
    for path in sorted(HERE.iterdir()):
        print(f"{path.name:<24}{path.stat().st_size:>9} bytes")


def _world(
    name: str, skill: Callable[[random.Random], Item], licence: str, draw: random.Random
) -> dict[str, Any]:
    item = draw_item(skill, "test", draw)
    ((ending, content),) = item.media().items()
    (HERE / f"{name}.{ending}").write_bytes(content)
    kind = {"jpg": "image", "opus": "audio", "mp4": "video"}[ending]
    return {"task": item.skill, "ask": fill(item, "test", draw), "answer": item.answer, "file": f"{name}.{ending}", "kind": kind, "licence": licence}  # fmt: skip


if __name__ == "__main__":
    main()
