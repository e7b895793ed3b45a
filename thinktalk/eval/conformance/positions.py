"""Laws of ids: where every token of a prompt stands (TMRoPE), and in which order pictures and sound of a video come.

Source: the report's section 2.2; the numbers are those of layouts.json.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from thinktalk.eval.conformance.invariant import Implementation, Invariant
from thinktalk.eval.conformance.layouts import Layout, joined, load_layouts, token_runs
from thinktalk.media.timeline import Span, Text, Video

__all__ = ["INVARIANTS"]

RATES = (0.7, 1.0, 1.3, 2.0, 3.7, 24.5)  # frames a second; at three of them float64 cuts elsewhere


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


def _rates(implementation: Implementation) -> str | None:
    """Tokens and ids cut their chunks at the same grids, however the rate rounds."""
    for frames_per_second in RATES:
        video = Video(60, 1, 2, 2 / frames_per_second, int(60 * 2 / frames_per_second * 25))
        rate = torch.tensor(video.seconds_per_grid, dtype=torch.float32)
        times = (torch.arange(video.grids) * rate * 25).long().repeat_interleave(2)
        pictures, sound = _chunks(times.tolist()), _chunks(list(range(video.audio_tokens)))
        pairs = itertools.zip_longest(pictures, sound, fillvalue=0)
        want = joined(run for v, a in pairs for run in (("video", v), ("audio", a)) if run[1])
        if (got := implementation.order(video)) != want:
            pairs = enumerate(itertools.zip_longest(got, want))
            first, (a, b) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            return f"{frames_per_second} frames a second: run {first} is {a}, by its ids {b}"
    return None


def _chunks(times: list[int]) -> list[int]:
    """Tokens of each chunk of 50 ids; a token closes one chunk at most."""
    counts, edge = [0], 50
    for time in times:
        if time >= edge:
            counts.append(0)
            edge += 50
        counts[-1] += 1
    return counts


def _mixed(implementation: Implementation) -> str | None:
    """A silent and a heard video in one prompt stand as they would in two."""
    silent, heard, words = Video(2, 2, 3, 1.0), Video(3, 2, 2, 1.0, 80), Text(2)
    before, after, whole = (
        _asked(implementation, spans)
        for spans in (
            (words, silent, words),
            (words, heard, words),
            (words, silent, words, heard, words),
        )
    )
    want = torch.cat(
        [before, after[:, 2:] - 1 + before[0, -1]], 1
    )  # the words between are placed once
    if whole.shape == want.shape and torch.equal(whole, want):
        return None
    wrong = (whole != want).any(0).sum() if whole.shape == want.shape else want.shape[1]
    return f"{int(wrong)} of {want.shape[1]} tokens stand elsewhere than in prompts of their own"


def _asked(implementation: Implementation, spans: tuple[Span, ...]) -> Tensor:
    runs = tuple(run for span in spans for run in token_runs(span, implementation.order))
    nowhere = torch.empty(3, 0, dtype=torch.long)
    return implementation.positions(Layout("", "", "", spans, runs, nowhere, 0))[0]


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
    Invariant("ids.mixed", "each video says for itself whether it is heard", _mixed),
    Invariant("ids.generation", "generated token n stands at n + delta, one after the largest id of the prompt", _generation),
    Invariant("order.audio-in-video", "tokens of a video with sound stand in chunks of 2 s, pictures first", _order),
    Invariant("order.rates", "tokens and ids cut a video at the same grids: time ids are a truncated float32", _rates),
)  # fmt: skip
