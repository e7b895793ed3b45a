"""The timeline: counting audio tokens, interleaving pictures with sound, positions step by step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thinktalk.media.timeline import (
    Audio,
    Image,
    Run,
    Text,
    Timeline,
    Video,
    audio_tokens,
    grid_times,
    interleave,
    picture_positions,
    rope_positions,
)

VIDEOS = st.builds(
    Video,
    grids=st.integers(1, 30),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    seconds_per_grid=st.floats(0.03, 8.0),
    audio_tokens=st.integers(1, 500),
)
SPANS = st.one_of(
    st.builds(Text, st.integers(0, 30)),
    st.builds(Audio, st.integers(1, 90)),
    st.builds(Image, st.integers(1, 9), st.integers(1, 9)),
    VIDEOS,
)


def test_audio_tokens_are_25_a_second() -> None:
    assert [audio_tokens(n) for n in range(12)] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert audio_tokens(200) == 50  # 2 s, one block
    assert audio_tokens(30_000) == 7500


@given(st.integers(0, 5000))
def test_audio_tokens_are_what_two_halvings_leave(frames: int) -> None:
    after_convolution = -(-frames // 2)  # stride 2, padded
    assert audio_tokens(frames) == after_convolution // 2  # pairs; an odd one is dropped


@given(VIDEOS)
def test_interleave_holds_each_token_once_in_order(video: Video) -> None:
    runs = interleave(video)
    for kind, total in (("video", video.video_tokens), ("audio", video.audio_tokens)):
        tokens = [i for run in runs if run.kind == kind for i in range(run.start, run.stop)]
        assert tokens == list(range(total))
    assert all(run.tokens > 0 for run in runs)
    assert runs[0].kind == "video"  # pictures first


@given(VIDEOS)
def test_interleave_token_by_token(video: Video) -> None:
    """The walk over single tokens that the chunks are defined by."""

    def walk(times: list[int]) -> list[tuple[int, int]]:
        chunks, start, chunk = [], 0, 1
        for i, time in enumerate(times):
            if time >= 50 * chunk:
                chunks.append((start, i))
                start, chunk = i, chunk + 1
        return [*chunks, (start, len(times))]

    frame = video.rows * video.columns
    times = grid_times(video.grids, video.seconds_per_grid).repeat_interleave(frame).tolist()
    runs = interleave(video)
    assert [(r.start, r.stop) for r in runs if r.kind == "video"] == walk(times)
    assert [(r.start, r.stop) for r in runs if r.kind == "audio"] == walk(
        list(range(video.audio_tokens))
    )


def test_interleave_example() -> None:
    runs = interleave(Video(5, 10, 14, 1.0, audio_tokens=125))
    assert runs == [
        Run("video", 0, 280), Run("audio", 0, 50),
        Run("video", 280, 560), Run("audio", 50, 100),
        Run("video", 560, 700), Run("audio", 100, 125),
    ]  # fmt: skip


def test_ids_and_positions_follow_one_interleave() -> None:
    """At 1.04 frames/s grid 26 stands at 50 s exactly: id 1250 in float32, 1249.9999999999998 in float64.

    The reference orders tokens by the one and places them by the other, so there a run of its sound stands on pictures.
    """
    seconds = 2 / 1.04
    assert 26 * seconds * 25 < 1250 == grid_times(28, seconds)[26]
    video = Video(28, 2, 2, seconds, audio_tokens=1400)
    positions, _ = rope_positions([video])
    at = 2
    for run in interleave(video):
        piece = positions[:, at : at + run.tokens] - 1
        flat = bool((piece[0] == piece[1]).all() and (piece[0] == piece[2]).all())
        start = run.start if run.kind == "audio" else None
        assert start is None or (flat and piece[0, 0] == start)
        at += run.tokens


@given(st.lists(SPANS, max_size=6))
def test_placing_one_by_one_is_placing_all(spans: list) -> None:
    timeline = Timeline()
    pieces = [timeline.place(span) for span in spans]
    positions, delta = rope_positions(spans)
    assert torch.equal(torch.cat([torch.empty(3, 0, dtype=torch.long), *pieces], 1), positions)
    assert timeline.delta == delta
    assert timeline.tokens == positions.shape[1]


def test_fork_is_independent() -> None:
    timeline = Timeline()
    timeline.place(Text(5))
    kept = timeline.fork()
    timeline.place(Image(20, 3))
    assert (kept.tokens, kept.following, kept.largest) == (5, 5, 4)
    assert torch.equal(kept.place(Text(2))[0], torch.tensor([5, 6]))


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 49))
def test_a_live_video_is_placed_as_it_comes(chunks: int, side: int, rest: int) -> None:
    """Two grids and 50 audio tokens every 2 s, without knowing the end: the positions are those of the whole."""
    whole = Video(2 * chunks, side, side + 1, 1.0, audio_tokens=50 * (chunks - 1) + rest + 1)
    timeline = Timeline()
    pieces = [timeline.place(Text(4)), timeline.place_ids(1, together=2)]
    start, times = timeline.following, grid_times(2 * chunks, 1.0)
    for chunk in range(chunks):
        arrived = times[2 * chunk : 2 * chunk + 2]
        pieces.append(timeline.place_piece(picture_positions(start, arrived, side, side + 1)))
        heard = range(50 * chunk, min(50 * chunk + 50, whole.audio_tokens))
        sound = start + torch.tensor(heard).expand(3, -1)
        pieces.append(timeline.place_piece(sound))
    pieces += [timeline.place_ids(1, together=2), timeline.place(Text(3))]
    positions, delta = rope_positions([Text(4), whole, Text(3)])
    assert torch.equal(torch.cat(pieces, 1), positions)
    assert timeline.delta == delta


def test_rates_of_a_configuration() -> None:
    """40 ids a second and chunks of 1 s: a video of 2 s has two chunks of 40 ids."""
    video = Video(2, 1, 1, 1.0, audio_tokens=80)
    runs = interleave(video, positions_per_second=40, chunk_seconds=1)
    assert [(r.kind, r.tokens) for r in runs] == [("video", 1), ("audio", 40)] * 2
    positions, _ = rope_positions([video], positions_per_second=40, chunk_seconds=1)
    assert positions[0, 43] == 1 + 40


def test_fault_a_boundary_late_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from thinktalk.media import timeline

    def late(times: torch.Tensor, repeat: int, ids_per_chunk: int):
        return timeline_chunks(times, repeat, ids_per_chunk + 1)

    timeline_chunks = timeline._chunks
    monkeypatch.setattr(timeline, "_chunks", late)
    with pytest.raises(AssertionError):
        test_interleave_example()
