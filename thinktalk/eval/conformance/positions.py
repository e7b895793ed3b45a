"""Laws of ids: where every token of a prompt stands (TMRoPE), and in which order pictures and sound of a video come.

Source: the report's section 2.2; the numbers are those of layouts.json.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from thinktalk.eval.conformance.invariant import Implementation, Invariant
from thinktalk.eval.conformance.layouts import Layout, load_layouts
from thinktalk.media.timeline import Video

__all__ = ["INVARIANTS"]


def _ids(implementation: Implementation, *, group: str) -> str | None:
    """The ids of every layout of a group are those of the table."""
    for layout in load_layouts():
        if layout.group == group:
            got, _ = implementation.positions(layout)
            if broken := _difference(layout, got):
                return broken
    return None


def _difference(layout: Layout, got: Tensor) -> str | None:
    want = layout.positions
    if got.shape != want.shape:
        return (
            f"layout {layout.name}: ids of shape {tuple(got.shape)}, expected {tuple(want.shape)}"
        )
    wrong = (got != want).any(0).nonzero()[:, 0]
    if not len(wrong):
        return None
    token, kinds = int(wrong[0]), layout.kinds
    steps = (got - want)[:, wrong].unique().tolist()
    off = f", all by {steps[0]:+d}" if len(steps) == 1 else ""
    which = sorted({kinds[n] for n in wrong.tolist()})
    return (
        f"layout {layout.name}: token {token} ({kinds[token]}) stands at {tuple(got[:, token].tolist())}, expected "
        f"{tuple(want[:, token].tolist())}; {len(wrong)} of {len(kinds)} tokens differ ({', '.join(which)}){off}"
        f"{_likeness(layout, got)}"
    )


def _likeness(layout: Layout, got: Tensor) -> str:
    """A shipped fault that gives just these ids."""
    for about, spoil in _MISTAKES.items():
        if layout.group == "audio-in-video" and torch.equal(spoil(layout), got):
            return f"; as with {about}"
    return ""


def _late_sound(layout: Layout) -> Tensor:
    sound = torch.tensor([kind == "audio" for kind in layout.kinds])
    return layout.positions + sound


def _unchunked(layout: Layout) -> Tensor:
    """transformers before its pull request 37631: the ids of all pictures, then of all sound, on interleaved tokens."""
    ids, kinds = layout.positions.clone(), layout.kinds
    begins = [n for n, kind in enumerate(kinds) if kind == "vision_bos"]
    for begin in begins:
        end = kinds.index("vision_eos", begin)
        inner = range(begin + 2, end - 1)
        ordered = sorted(inner, key=lambda n: kinds[n] == "audio")  # stable: pictures, then sound
        ids[:, begin + 2 : end - 1] = layout.positions[:, ordered]
    return ids


_MISTAKES = {
    "the sound one id too late": _late_sound,
    "one chunk for the whole video (transformers 4.51, mended by its pull request 37631)": _unchunked,
}


def _marks(implementation: Implementation) -> str | None:
    """Both tokens that open a video with sound share an id, both that close it do, and both tracks start from one id."""
    for layout in load_layouts():
        if layout.group != "audio-in-video":
            continue
        ids, kinds = implementation.positions(layout)[0], layout.kinds
        for begin in [n for n, kind in enumerate(kinds) if kind == "vision_bos"]:
            end = kinds.index("vision_eos", begin)
            sound = kinds.index("audio", begin)
            pairs = {
                "opening marks": (begin, begin + 1, 0),
                "closing marks": (end - 1, end, 0),
                "the marks and the first picture": (begin, begin + 2, 1),
                "the marks and the first sound": (begin, sound, 1),
            }
            for what, (a, b, apart) in pairs.items():
                if (ids[:, b] - ids[:, a] != apart).any():
                    return f"layout {layout.name}: {what} at {tuple(ids[:, a].tolist())} and {tuple(ids[:, b].tolist())}, expected {apart} apart"
    return None


def _generation(implementation: Implementation) -> str | None:
    """Generation goes on one after the largest id of the prompt: token n at n + delta."""
    for layout in load_layouts():
        _, delta = implementation.positions(layout)
        if delta != layout.delta:
            return f"layout {layout.name}: delta {delta}, expected {layout.delta}"
    return None


def _order(implementation: Implementation) -> str | None:
    """Chunks of 2 s, pictures before sound."""
    for layout in load_layouts():
        if layout.group != "audio-in-video":
            continue
        runs = [run for run in layout.runs if run[0] in ("video", "audio")]
        got = [r for s in layout.spans if isinstance(s, Video) for r in implementation.order(s)]
        if [tuple(run) for run in got] != runs:
            return f"layout {layout.name}: {got}, expected {runs}"
    return None


_GROUPS = {
    "text": "text: one id a token, the same on all three axes",
    "audio": "sound: 25 ids a second on all axes, a mark before and after",
    "image": "picture: one time id, rows and columns count from it, words go on after the longest side",
    "video": "video: time ids are trunc(grid x seconds x 25) in float32, rows and columns as in a picture",
    "audio-in-video": "video with sound: both tracks from one id, in chunks of 2 s, words after the last chunk",
    "turns": "several media: each goes on where the last piece ended",
}

INVARIANTS = (
    *(Invariant(f"ids.{g}", law, functools.partial(_ids, group=g)) for g, law in _GROUPS.items()),
    Invariant("ids.marks", "the marks of a video with sound share ids, and both its tracks follow them at once", _marks),
    Invariant("ids.generation", "generated token n stands at n + delta, one after the largest id of the prompt", _generation),
    Invariant("order.audio-in-video", "tokens of a video with sound stand in chunks of 2 s, pictures first", _order),
)  # fmt: skip
