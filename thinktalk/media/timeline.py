"""Timeline: which token stands when and where. Spans of a prompt -> TMRoPE ids (3, T): time, height, width.

    text     1 id a token, the same on all three axes
    audio    begin mark, 1 id a token (25 ids a second, 40 ms each), end mark
    image    begin mark, then every token at one time, at its row and column, end mark
    video    the same, a grid (a pair of frames) at seconds x 25 on the time axis
    video with sound    both begin marks on one id; chunks of 2 s, pictures first, then sound; both end marks on one id

Letters: T tokens, N tokens of one span. Pure integers, but for one float32 product that the reference has too.
Report section 2.2; reference: Qwen2_5Omni...get_rope_index and Qwen2_5OmniProcessor.replace_video_with_audio_token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = [
    "Audio", "Image", "Run", "Span", "Text", "Timeline", "Video", "audio_tokens", "grid_times", "interleave",
    "picture_positions", "rope_positions",
]  # fmt: skip

POSITIONS_PER_SECOND = 25  # 40 ms an id, the rate of audio tokens
CHUNK_SECONDS = 2  # length of an interleave chunk, and of an audio encoder block


def audio_tokens(mel_frames: int) -> int:
    """Audio tokens of a clip: its mel frames halved by the strided convolution (up), then by the pooling (down).

    100 frames a second give 25 tokens a second. Fewer than 3 frames (20 ms) give none.

    >>> audio_tokens(200)
    50
    """
    return ((mel_frames - 1) // 2 + 1) // 2


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text tokens, special tokens of the conversation included."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound with its begin and end marks."""

    tokens: int
    """Audio tokens between the marks."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture with its begin and end marks."""

    rows: int
    """Tokens down the picture (patches / 2)."""
    columns: int
    """Tokens across the picture (patches / 2)."""


@dataclass(frozen=True, slots=True)
class Video:
    """A video with its begin and end marks, its sound interleaved when it has one."""

    grids: int
    """Pairs of frames."""
    rows: int
    """Tokens down a frame (patches / 2)."""
    columns: int
    """Tokens across a frame (patches / 2)."""
    seconds_per_grid: float
    """Time from one pair of frames to the next."""
    audio_tokens: int = 0
    """Tokens of its sound; 0 is a silent video."""

    @property
    def video_tokens(self) -> int:
        return self.grids * self.rows * self.columns


Span = Text | Audio | Image | Video


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens start .. stop - 1 of a video with sound, of its pictures or of its sound."""

    kind: str
    """ "video" or "audio"."""
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


# ---------------------------------------------------------------------------------------------------------- interleaving


def grid_times(
    grids: int, seconds_per_grid: float, *, positions_per_second: int = POSITIONS_PER_SECOND
) -> Tensor:
    """Time ids of the grids of a video, (grids,) int64, from 0: trunc(grid x seconds x 25), rounded as float32 rounds."""
    seconds = torch.tensor(seconds_per_grid, dtype=torch.float32)
    return (torch.arange(grids) * seconds * positions_per_second).long()


def interleave(
    video: Video,
    *,
    positions_per_second: int = POSITIONS_PER_SECOND,
    chunk_seconds: float = CHUNK_SECONDS,
) -> list[Run]:
    """The order in which pictures and sound of a video stand: chunk by chunk of 2 s, pictures first.

    Both the token ids and the positions follow this one list. (The reference computes it twice, in float64 for the ids and
    in float32 for the positions; where a grid falls within rounding of a chunk's edge its two lists disagree, and
    positions of sound land on pictures. docs/fidelity.md)
    """
    ids_per_chunk = int(positions_per_second * chunk_seconds)
    times = grid_times(
        video.grids, video.seconds_per_grid, positions_per_second=positions_per_second
    )
    pictures = list(_chunks(times, video.rows * video.columns, ids_per_chunk))
    sounds = list(_chunks(torch.arange(video.audio_tokens), 1, ids_per_chunk))
    runs = []
    for j in range(max(len(pictures), len(sounds))):
        runs += [Run("video", *pictures[j])] if j < len(pictures) else []
        runs += [Run("audio", *sounds[j])] if j < len(sounds) else []
    return runs


def _chunks(times: Tensor, repeat: int, ids_per_chunk: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each chunk of tokens whose ascending time ids are `times`, each `repeat` times."""
    total = len(times) * repeat
    if total == 0:
        return
    start, edge = 0, ids_per_chunk
    last = int(times[-1])
    while edge <= last:
        first = int(torch.searchsorted(times, edge)) * repeat
        # a token closes one chunk at most: over a gap of k chunks the next k - 1 tokens stand alone, as in the reference
        stop = max(first, start + 1)
        if stop >= total:
            break
        yield start, stop
        start, edge = stop, edge + ids_per_chunk
    yield start, total


# ------------------------------------------------------------------------------------------------------------ positions


@dataclass(slots=True)
class Timeline:
    """Where the next token of a conversation stands; `place` spans as they come. Copy it with `fork`.

    >>> timeline = Timeline()
    >>> timeline.place(Text(3)).shape, timeline.place(Image(rows=4, columns=6)).shape, timeline.next_position
    """

    positions_per_second: int = POSITIONS_PER_SECOND
    chunk_seconds: float = CHUNK_SECONDS
    following: int = 0
    """Id that the next span starts from: one after the LAST piece placed, which need not be the largest so far."""
    largest: int = -1
    """Largest id on any axis so far."""
    tokens: int = 0
    """Tokens placed so far."""

    @property
    def next_position(self) -> int:
        """Id of the first generated token, on all axes; each further one is one more."""
        return self.largest + 1

    @property
    def delta(self) -> int:
        """Token number n, once generation runs, stands at n + delta (the reference's rope_deltas)."""
        return self.next_position - self.tokens

    def fork(self) -> Timeline:
        """An independent copy."""
        return replace(self)

    def place(self, span: Span) -> Tensor:
        """Positions (3, N) int64 of a whole span, marks included."""
        match span:
            case Text(tokens):
                return self.place_ids(tokens)
            case Audio(tokens):
                return self.place_ids(tokens + 2)  # the marks count like tokens
            case Image(rows, columns):
                begin = self.place_ids(1)
                image = self.place_piece(
                    picture_positions(
                        self.following, torch.zeros(1, dtype=torch.long), rows, columns
                    )
                )
                return torch.cat([begin, image, self.place_ids(1)], 1)
            case Video(audio_tokens=0):
                begin = self.place_ids(1)
                video = self.place_piece(self._video(span))
                return torch.cat([begin, video, self.place_ids(1)], 1)
            case Video():
                return self._place_sounding(span)

    def place_ids(self, tokens: int, *, together: int = 1) -> Tensor:
        """Positions (3, tokens x together) of a plain run; `together` tokens share each id."""
        ids = torch.arange(self.following, self.following + tokens)
        return self.place_piece(ids.repeat_interleave(together).expand(3, -1))

    def place_piece(self, positions_3N: Tensor) -> Tensor:
        """Count in a piece with these positions: what follows starts one after its largest id."""
        if positions_3N.shape[1]:
            largest = int(positions_3N.max())
            # the last piece alone decides, so what follows a video may reuse ids of its rows: the reference's rule
            self.following = largest + 1
            self.largest = max(self.largest, largest)
            self.tokens += positions_3N.shape[1]
        return positions_3N

    def _video(self, video: Video) -> Tensor:
        times = grid_times(
            video.grids, video.seconds_per_grid, positions_per_second=self.positions_per_second
        )
        return picture_positions(self.following, times, video.rows, video.columns)

    def _place_sounding(self, video: Video) -> Tensor:
        begin = self.place_ids(1, together=2)  # <|vision_bos|><|audio_bos|>
        whole = {
            "video": self._video(video),
            "audio": torch.arange(self.following, self.following + video.audio_tokens).expand(
                3, -1
            ),
        }
        runs = interleave(
            video,
            positions_per_second=self.positions_per_second,
            chunk_seconds=self.chunk_seconds,
        )
        pieces = [self.place_piece(whole[run.kind][:, run.start : run.stop]) for run in runs]
        end = self.place_ids(1, together=2)  # <|audio_eos|><|vision_eos|>
        return torch.cat([begin, *pieces, end], 1)


def picture_positions(start: int, times: Tensor, rows: int, columns: int) -> Tensor:
    """Positions (3, grids x rows x columns) of frames at these time ids; all three axes count from `start`."""
    shape = (len(times), rows, columns)
    time = times.view(-1, 1, 1).expand(shape)
    row = torch.arange(rows).view(1, -1, 1).expand(shape)
    column = torch.arange(columns).expand(shape)
    return torch.stack([time, row, column]).reshape(3, -1) + start


def rope_positions(
    spans: Iterable[Span],
    *,
    positions_per_second: int = POSITIONS_PER_SECOND,
    chunk_seconds: float = CHUNK_SECONDS,
) -> tuple[Tensor, int]:
    """Positions (3, T) int64 of a prompt and the delta of generation: token number n stands at n + delta.

    >>> positions, delta = rope_positions([Text(20), Audio(50), Text(5)])
    """
    timeline = Timeline(positions_per_second=positions_per_second, chunk_seconds=chunk_seconds)
    pieces = [timeline.place(span) for span in spans]
    empty = torch.empty(3, 0, dtype=torch.long)
    return torch.cat([empty, *pieces], 1), timeline.delta
