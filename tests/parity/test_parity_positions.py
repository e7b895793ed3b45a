"""TMRoPE positions are the reference's, id for id, over drawn conversations, as is the delta that generation goes on with.

Layouts: text, pictures of many sizes, sound of 0.1 s to 70 s, silent videos, videos with sound, several turns, batches.
A video counts as sounding or silent for a whole batch in the reference, so a draw has one kind.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import tiny_reference

from thinktalk import config as cfg
from thinktalk.media import timeline
from thinktalk.media.timeline import Audio, Image, Text, Timeline, Video, rope_positions

IDS = cfg.tiny().thinker.ids


def mel_frames(tokens: int) -> int:
    """The least clip that gives so many audio tokens."""
    return 4 * tokens - 1


def token_ids(span: timeline.Span) -> list[int]:
    """A span as the reference's processor writes it."""
    match span:
        case Text(tokens):
            return [5] * tokens
        case Audio(tokens):
            return [IDS.audio_bos] + [IDS.audio] * tokens + [IDS.audio_eos]
        case Image(rows, columns):
            return [IDS.vision_bos] + [IDS.image] * (rows * columns) + [IDS.vision_eos]
        case Video(audio_tokens=0):
            return [IDS.vision_bos] + [IDS.video] * span.video_tokens + [IDS.vision_eos]
        case Video():
            media = {"video": IDS.video, "audio": IDS.audio}
            inner = [i for run in timeline.interleave(span) for i in [media[run.kind]] * run.tokens]
            return [IDS.vision_bos, IDS.audio_bos, *inner, IDS.audio_eos, IDS.vision_eos]


def reference_positions(
    layouts: list[list[timeline.Span]], *, left: bool
) -> tuple[list[torch.Tensor], list[int]]:
    """get_rope_index over the padded batch: positions (3, T) of each row, and the deltas."""
    rows = [[i for span in spans for i in token_ids(span)] for spans in layouts]
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), IDS.pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, ids in enumerate(rows):
        place = slice(width - len(ids), width) if left else slice(0, len(ids))
        input_ids[row, place] = torch.tensor(ids)
        mask[row, place] = 1
    spans = [span for layout in layouts for span in layout]
    images = [(1, 2 * s.rows, 2 * s.columns) for s in spans if isinstance(s, Image)]
    videos = [s for s in spans if isinstance(s, Video)]
    lengths = [
        mel_frames(s.tokens if isinstance(s, Audio) else s.audio_tokens)
        for s in spans
        if isinstance(s, Audio) or (isinstance(s, Video) and s.audio_tokens)
    ]
    positions, deltas = tiny_reference().thinker.model.get_rope_index(
        input_ids,
        torch.tensor(images) if images else None,
        torch.tensor([(s.grids, 2 * s.rows, 2 * s.columns) for s in videos]) if videos else None,
        mask,
        use_audio_in_video=any(s.audio_tokens for s in videos),
        audio_seqlens=torch.tensor(lengths) if lengths else None,
        second_per_grids=torch.tensor([s.seconds_per_grid for s in videos]) if videos else None,
    )
    return [positions[:, b, mask[b] == 1] for b in range(len(rows))], deltas.flatten().tolist()


def assert_equal_positions(layouts: list[list[timeline.Span]], *, left: bool = True) -> None:
    expected, deltas = reference_positions(layouts, left=left)
    for spans, positions, delta in zip(layouts, expected, deltas, strict=True):
        ours, our_delta = rope_positions(spans)
        # integers: equal, not close
        assert torch.equal(ours, positions), f"positions differ for {spans}"
        assert our_delta == delta, f"delta {our_delta}, reference {delta}, for {spans}"


TEXT = st.builds(Text, st.integers(1, 40))
AUDIO = st.builds(Audio, st.integers(2, 1750))  # 0.1 s to 70 s
IMAGE = st.builds(Image, st.integers(1, 12), st.integers(1, 12))
SECONDS = st.one_of(
    st.sampled_from([1.0, 0.5, 2.0, 2 / 3, 1 / 3, 2 / 29.97, 1.001, 0.04, 4.0, 7.5]),
    st.floats(0.02, 9.0),
)
GRIDS = dict(
    grids=st.integers(1, 24),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    seconds_per_grid=SECONDS,
)
SILENT = st.builds(Video, **GRIDS)
SOUNDING = st.builds(Video, **GRIDS, audio_tokens=st.integers(1, 700))


@st.composite
def conversations(draw: st.DrawFn) -> list[timeline.Span]:
    """Turns of text and media; text stands between two media, as the turn marks or the words do, or does not."""
    kinds = [TEXT, AUDIO, IMAGE, draw(st.sampled_from([SILENT, SOUNDING]))]
    spans = [draw(TEXT)]
    for _ in range(draw(st.integers(0, 7))):
        spans.append(draw(st.one_of(kinds)))
    return [*spans, draw(TEXT)]


@settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(conversations())
def test_positions_of_500_conversations(spans: list[timeline.Span]) -> None:
    assert_equal_positions([spans])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.booleans())
def test_rows_of_a_batch_are_independent(data: st.DataObject, left: bool) -> None:
    video = data.draw(st.sampled_from([SILENT, SOUNDING]))
    span = st.one_of(TEXT, AUDIO, IMAGE, video)
    rows = data.draw(st.lists(st.lists(span, min_size=1, max_size=4), min_size=2, max_size=4))
    assert_equal_positions([[Text(2), *row, Text(3)] for row in rows], left=left)


@settings(max_examples=60, deadline=None)
@given(conversations(), st.integers(1, 30))
def test_the_talker_goes_on_at_the_same_ids(spans: list[timeline.Span], more: int) -> None:
    """Generation's rule, n + delta, is where a longer prompt would stand."""
    positions, delta = rope_positions(spans)
    n = positions.shape[1]
    timeline = Timeline()
    for span in spans:
        timeline.place(span)
    assert timeline.next_position == n + delta == int(positions.max()) + 1
    assert timeline.tokens == n


def test_silent_and_sounding_videos_in_one_prompt() -> None:
    """The reference's use_audio_in_video is one flag for all: with it, a silent video's tokens get ids of text.

    Here each video is placed by what it is: as the reference places it where it stands without the other kind.
    """
    silent, sounding = Video(2, 2, 3, 1.0), Video(3, 2, 2, 1.0, audio_tokens=80)
    spans = [Text(3), silent, Text(2), sounding, Text(4), silent, Text(1)]
    ours, _ = rope_positions(spans)
    (theirs,), _ = reference_positions([spans], left=True)
    assert not torch.equal(ours, theirs)
    timeline = Timeline()
    for span in spans:
        start = timeline.following
        piece = timeline.place(span)
        (alone,), _ = reference_positions([[Text(1), span]], left=True)
        assert torch.equal(piece, alone[:, 1:] - 1 + start)


@pytest.mark.parametrize(
    "layout",
    [
        [Text(9), Video(5, 4, 4, 1.0, audio_tokens=125), Text(4)],
        # 3 x 2/3 s is 2 s only after rounding
        [Text(1), Video(9, 1, 2, 2 / 3, audio_tokens=151), Text(1)],
        # a grid every 5 s: a gap of two chunks and a half, crossed one chunk a token
        [Text(1), Video(4, 2, 2, 5.0, audio_tokens=500), Text(1)],
        [Text(1), Video(4, 1, 1, 5.0, audio_tokens=20), Text(1)],
        # the last chunk is sound only, or pictures only
        [Text(1), Video(1, 6, 6, 1.0, audio_tokens=70), Text(1)],
        [Text(1), Video(9, 3, 3, 1.0, audio_tokens=1), Text(1)],
        # rows of the picture reach beyond the sound: the text reuses ids of the picture
        [Text(1), Video(1, 90, 2, 1.0, audio_tokens=3), Text(200)],
        [Text(1), Image(30, 1), Image(1, 30), Audio(3), Text(1)],
    ],
)
def test_corner_layouts(layout: list[timeline.Span]) -> None:
    assert_equal_positions([layout])


def test_spec_example() -> None:
    """5 s of video at 2 frames/s, 140 tokens a pair of frames, and its sound, as the specification gives it."""
    positions, _ = rope_positions([Text(181), Video(5, 10, 14, 1.0, audio_tokens=125), Text(1)])
    time = positions[0].tolist()
    assert time[180:184] == [180, 181, 181, 182]  # text, both begin marks, video
    assert positions[1, 183 : 183 + 280].max() == 191
    assert positions[2, 183 : 183 + 280].max() == 195
    assert time[183 + 280 : 183 + 330] == list(range(182, 232))
    assert time[-3:] == [307, 307, 308]  # both end marks, text


def test_every_input_moves_the_positions() -> None:
    base = [Text(3), Image(3, 4), Audio(20), Video(4, 3, 3, 1.0, audio_tokens=80), Text(3)]
    changed = [
        [Text(4), *base[1:]],
        [base[0], Image(4, 3), *base[2:]],
        [*base[:2], Audio(21), *base[3:]],
        [*base[:3], Video(4, 3, 3, 1.1, audio_tokens=80), base[4]],
        [*base[:3], Video(4, 3, 3, 1.0, audio_tokens=81), base[4]],
        [*base[:3], Video(4, 2, 4, 1.0, audio_tokens=80), base[4]],
    ]
    ours, _ = rope_positions(base)
    for layout in changed:
        assert_equal_positions([layout])
        assert not torch.equal(ours, rope_positions(layout)[0])


# ------------------------------------------------------------------------------------------------------- planted faults


def test_fault_sound_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Timeline._place_sounding

    def shifted(self: Timeline, video: Video) -> torch.Tensor:
        positions = place(self, video)
        positions[:, -3] += 1
        return positions

    monkeypatch.setattr(Timeline, "_place_sounding", shifted)
    with pytest.raises(AssertionError):
        assert_equal_positions([[Text(3), Video(4, 2, 2, 1.0, audio_tokens=80), Text(3)]])


def test_fault_largest_id_instead_of_the_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Timeline.place_piece

    def cautious(self: Timeline, positions: torch.Tensor) -> torch.Tensor:
        place(self, positions)
        self.following = self.largest + 1
        return positions

    monkeypatch.setattr(Timeline, "place_piece", cautious)
    with pytest.raises(AssertionError):
        assert_equal_positions([[Text(1), Video(1, 90, 2, 1.0, audio_tokens=3), Text(9)]])


def test_fault_float64_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def precise(grids: int, seconds: float, *, positions_per_second: int = 25) -> torch.Tensor:
        return (torch.arange(grids, dtype=torch.float64) * seconds * positions_per_second).long()

    # the search for a rate at which float32 rounds up to a whole id and float64 does not
    rates = [2 / (f / 100) for f in range(100, 6000)]
    seconds = next(s for s in rates if not torch.equal(precise(24, s), timeline.grid_times(24, s)))
    monkeypatch.setattr(timeline, "grid_times", precise)
    with pytest.raises(AssertionError):
        assert_equal_positions([[Text(1), Video(24, 1, 1, seconds), Text(1)]])
