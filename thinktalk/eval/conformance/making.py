"""Making the table: prompts written down here, answers asked of an Implementation -> layouts.json.

`python -m thinktalk.eval.conformance.making` writes the file by what the installed transformers says; every answer of
ours must be the same, or nothing is written.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from thinktalk.config import TokenIds
from thinktalk.eval.conformance.invariant import Implementation
from thinktalk.eval.conformance.layouts import FORMAT, TEXT_ID, Layout, token_runs
from thinktalk.media.timeline import Audio, Image, Span, Text, Video

__all__ = ["PROMPTS", "make_table", "main", "written"]

PROMPTS: dict[str, tuple[str, str, tuple[Span, ...]]] = {
    "one-token": ("text", "the shortest prompt", (Text(1),)),
    "text": ("text", "words only: one id a token, the same on all axes", (Text(12),)),
    "sound": ("audio", "a sound of 1 s: 25 ids, its marks one each", (Text(3), Audio(25), Text(4))),
    "sound-alone": ("audio", "a sound right at the begin and the end", (Audio(2),)),
    "two-sounds": ("audio", "two sounds with nothing between them", (Text(2), Audio(7), Audio(3), Text(2))),
    "long-sound": ("audio", "more than one block of the encoder: ids just go on", (Text(1), Audio(120), Text(1))),
    "picture": ("image", "one time, rows and columns from the same id", (Text(5), Image(3, 4), Text(3))),
    "tall-picture": ("image", "what follows starts after the longest side", (Text(2), Image(9, 1), Text(3))),
    "wide-picture": ("image", "the other way round", (Text(2), Image(1, 9), Text(3))),
    "two-pictures": ("image", "without a word between them", (Text(1), Image(2, 2), Image(2, 5), Text(1))),
    "smallest-picture": ("image", "one token: its three ids are one", (Text(1), Image(1, 1), Text(1))),
    "video": ("video", "two frames a second: a grid is a second, 25 ids", (Text(4), Video(3, 2, 3, 1.0), Text(3))),
    "video-one-grid": ("video", "one pair of frames", (Text(1), Video(1, 2, 2, 1.0), Text(2))),
    "video-fast": ("video", "15 frames a second: 3.33 ids a grid, cut off", (Text(1), Video(9, 1, 2, 2 / 15), Text(2))),
    "video-ntsc": ("video", "29.97 frames a second: the product is a float32", (Text(1), Video(24, 1, 1, 2 / 29.97), Text(2))),
    "video-rounded": ("video", "21 frames/s: in float64 an id is one lower", (Text(1), Video(24, 1, 1, 2 / 21), Text(2))),
    "video-slow": ("video", "a grid every 5 s", (Text(1), Video(3, 1, 2, 5.0), Text(2))),
    "video-tall": ("video", "rows reach beyond the time", (Text(1), Video(1, 30, 1, 1.0), Text(3))),
    "heard": ("audio-in-video", "5 s of picture and sound: chunks of 2 s, pictures first", (Text(4), Video(5, 2, 2, 1.0, 125), Text(4))),
    "heard-short": ("audio-in-video", "less than a chunk", (Text(2), Video(1, 2, 2, 1.0, 20), Text(3))),
    "heard-2s": ("audio-in-video", "a chunk to the token", (Text(2), Video(2, 1, 2, 1.0, 50), Text(3))),
    "heard-2s-and-one": ("audio-in-video", "one audio token more than a chunk", (Text(2), Video(2, 1, 2, 1.0, 51), Text(3))),
    "heard-longer-sound": ("audio-in-video", "the last chunk is sound only", (Text(1), Video(1, 3, 3, 1.0, 70), Text(3))),
    "heard-longer-picture": ("audio-in-video", "the last chunks are pictures only", (Text(1), Video(7, 1, 2, 1.0, 3), Text(3))),
    "heard-slow": ("audio-in-video", "a grid every 5 s: a gap of chunks is crossed one chunk a token", (Text(1), Video(4, 1, 2, 5.0, 160), Text(2))),
    "heard-tall": ("audio-in-video", "rows reach beyond the sound: words take up ids of the picture", (Text(1), Video(1, 30, 2, 1.0, 3), Text(40))),
    "heard-taller": ("audio-in-video", "and when they end below it, generation goes on after the picture", (Text(1), Video(1, 30, 1, 1.0, 3), Text(3))),
    "heard-thirds": ("audio-in-video", "3 x 2/3 s is 2 s only after rounding", (Text(1), Video(9, 1, 1, 2 / 3, 151), Text(1))),
    "heard-twice": ("audio-in-video", "two such videos in a row", (Text(1), Video(2, 1, 1, 1.0, 30), Text(2), Video(3, 1, 2, 1.0, 60), Text(1))),
    "talk": ("turns", "a conversation: sound, picture, words", (Text(8), Audio(30), Text(6), Image(3, 2), Text(5), Audio(9), Text(4))),
    "talk-silent-video": ("turns", "a silent video, a sound, a picture", (Text(3), Video(2, 2, 2, 1.0), Text(2), Audio(12), Text(1), Image(2, 2), Text(2))),
    "talk-heard-video": ("turns", "a sound, a video that is heard, a picture", (Text(3), Audio(12), Text(2), Video(3, 2, 2, 1.0, 80), Text(2), Image(2, 3), Text(2))),
}  # fmt: skip
"""Name -> group, what it is about, spans. Videos of one prompt are all heard or all silent: transformers has one flag for all."""

AUDIO_FRAMES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 99, 100, 101, 199, 200, 201, 202, 203, 400, 1000, 3000, 30000)  # fmt: skip


def make_table(by: Implementation) -> dict[str, Any]:
    """The table as this implementation has it."""
    official = TokenIds()
    layouts = []
    for name, (group, about, spans) in PROMPTS.items():
        runs = tuple(run for span in spans for run in token_runs(span, by.order))
        layout = Layout(name, group, about, spans, runs, torch.empty(3, 0, dtype=torch.long), 0)
        positions, delta = by.positions(layout)
        layout = replace(layout, positions=positions, delta=delta)
        layouts.append(
            {
                "name": name,
                "group": group,
                "about": about,
                "spans": [{type(span).__name__.lower(): asdict(span)} for span in spans],
                "input_id_runs": [[TEXT_ID if k == "text" else getattr(official, k), n] for k, n in runs],
                "image_grid_thw": [list(grid) for grid in layout.images],
                "video_grid_thw": [[v.grids, 2 * v.rows, 2 * v.columns] for v in layout.videos],
                "second_per_grids": [v.seconds_per_grid for v in layout.videos],
                "audio_seqlens": layout.audio_frames,
                "use_audio_in_video": layout.sounding,
                "position_ids": positions.tolist(),
                "rope_delta": delta,
            }
        )  # fmt: skip
    return {
        "format": FORMAT,
        "source": f"{by.name} {by.version}",
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "spatial_merge_size": 2,
        "token_ids": {"text": TEXT_ID} | {k: getattr(official, k) for k in ("audio_bos", "audio", "audio_eos", "vision_bos", "image", "video", "vision_eos")},
        "audio_tokens": {str(n): by.audio_tokens(n) for n in AUDIO_FRAMES},
        "layouts": layouts,
    }  # fmt: skip


def written(table: dict[str, Any]) -> str:
    """The table as text: a line a field."""
    head = {key: value for key, value in table.items() if key != "layouts"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    layouts = [
        "  {\n" + ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in layout.items()) + "\n  }"
        for layout in table["layouts"]
    ]  # fmt: skip
    return "{\n" + "\n".join(lines) + '\n "layouts": [\n' + ",\n".join(layouts) + "\n ]\n}\n"


def main() -> int:
    """Write layouts.json beside this file."""
    from thinktalk.eval.conformance.ours import Ours
    from thinktalk.eval.conformance.upstream import Upstream

    table = make_table(Upstream())
    mine = make_table(Ours()) | {"source": table["source"]}
    differing = [a["name"] for a, b in zip(table["layouts"], mine["layouts"], strict=True) if a != b]  # fmt: skip
    if mine != table:
        print(f"layouts.json: not written, ours and {table['source']} differ in {differing or 'the head'}")  # fmt: skip
        return 1
    Path(__file__).with_name("layouts.json").write_text(written(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
