"""Live sound and pictures -> pieces of prompt, each as soon as it is whole, in the order in which a recording would stand.

    sound alone       begin, block, block, ..., rest, end
    pictures alone    begin, grid, grid, ..., end
    both              begin, the grids of 2 s, the block of 2 s, the grids of the next 2 s, ..., end

Which of the three it is, the first 2 s decide; then it stays (listening.py begins another stretch when a sense joins).
The same ids, positions and features as the whole recording given at its end: any chunking gives the same pieces, joined.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thinktalk.engine.senses import LiveState, Senses
from thinktalk.media.image import patchify
from thinktalk.media.timeline import Timeline, audio_tokens, grid_times, picture_positions
from thinktalk.prompt import Prompt

__all__ = ["Live", "LiveState", "join_prompts"]


class Live(Senses):
    """What the senses took in, written down."""

    def pieces(
        self, state: LiveState, timeline: Timeline, *, limit: int, last: bool = False
    ) -> list[Prompt]:
        """What has become whole, as prompts that go on from `timeline`, up to `limit` tokens in all; `last` ends it."""
        if last:
            self.end(state)
        if not state.kind:
            waits = not state.blocks and state.seen_s < self.config.thinker.chunk_seconds
            heard, seen = bool(state.samples), state.shown is not None
            if last:  # fewer than 3 frames of mel are no sound
                heard = sum(audio_tokens(block.shape[1]) for block in state.blocks) > 0
            elif waits:
                return []
            state.kind = {(1, 0): "sound", (0, 1): "video", (1, 1): "both"}.get((heard, seen), "")
            if not state.kind:
                return []
            written = [self._mark(state, timeline, "bos")]
            state.start = timeline.following
        else:
            written = []
        while (prompt := self._next(state, timeline, limit, last)) is not None:
            written.append(prompt)
        if last:
            written.append(self._mark(state, timeline, "eos"))
        return written

    def _next(self, state: LiveState, timeline: Timeline, limit: int, last: bool) -> Prompt | None:
        """The next grid of pictures or block of sound, when it is there."""
        while True:
            pictures = self._grid_ready(state, last)
            if state.full or (last and not pictures and not state.blocks):
                return None
            if state.kind == "sound" or state.sounding:
                if state.blocks:
                    state.chunk, state.sounding = state.chunk + 1, False
                    return self._write_block(state, timeline, limit)
                if not last:
                    return None
                state.chunk, state.sounding = state.chunk + 1, False  # no sound any more
            elif (
                self._grid_time(state) < self.chunk_ids * (state.chunk + 1) or state.kind == "video"
            ):
                if pictures:
                    return self._write_grid(state, timeline, limit)
                if not last:
                    return None
                state.sounding = True  # no pictures any more
            else:
                state.sounding = True

    def _grid_ready(self, state: LiveState, last: bool) -> bool:
        """A whole pair; at the end the last picture pairs with itself."""
        pair = self.config.thinker.vision.temporal_patch
        return len(state.frames) >= (1 if last else pair)

    def _grid_time(self, state: LiveState) -> int:
        """Time id of the next grid."""
        pps = self.config.thinker.positions_per_second
        return int(grid_times(state.grids + 1, self.seconds_per_grid, positions_per_second=pps)[-1])

    def _write_grid(self, state: LiveState, timeline: Timeline, limit: int) -> Prompt | None:
        vision, ids = self.config.thinker.vision, self.config.thinker.ids
        pair = state.frames[: vision.temporal_patch]
        del state.frames[: vision.temporal_patch]
        pair += pair[-1:] * (vision.temporal_patch - len(pair))
        patches, grid = patchify(torch.stack(pair), vision, self.visual)
        rows, columns = grid[1] // vision.merge, grid[2] // vision.merge
        if self._is_full(rows * columns, state, timeline, limit):
            return None
        times = torch.tensor([self._grid_time(state)])
        positions = timeline.place_piece(picture_positions(state.start, times, rows, columns))
        state.grids += 1
        return _prompt([ids.video] * (rows * columns), positions, timeline, videos=[(patches, grid, self.seconds_per_grid)])  # fmt: skip

    def _write_block(self, state: LiveState, timeline: Timeline, limit: int) -> Prompt | None:
        block = state.blocks.pop(0)
        tokens = audio_tokens(block.shape[1])
        if self._is_full(tokens, state, timeline, limit):
            return None
        first = state.start + state.tokens
        positions = timeline.place_piece(torch.arange(first, first + tokens).expand(3, -1))
        state.tokens += tokens
        sound = [block] if tokens else []
        return _prompt([self.config.thinker.ids.audio] * tokens, positions, timeline, audio=sound)

    def _is_full(self, tokens: int, state: LiveState, timeline: Timeline, limit: int) -> bool:
        if timeline.tokens + tokens > limit:
            state.full = True
            state.frames.clear()
            state.blocks.clear()
        return state.full

    def _mark(self, state: LiveState, timeline: Timeline, name: str) -> Prompt:
        """Begin or end of the stretch; with both senses two marks share an id."""
        ids = self.config.thinker.ids
        marks = [
            getattr(ids, f"{sense}_{name}")
            for sense, kinds in (("vision", ("video", "both")), ("audio", ("sound", "both")))
            if state.kind in kinds
        ]
        marks = marks if name == "bos" else marks[::-1]
        positions = timeline.place_ids(1, together=len(marks))
        return _prompt(marks, positions, timeline)


def _prompt(token_ids: list[int], positions: Tensor, timeline: Timeline, **media: Any) -> Prompt:
    ids = torch.tensor(token_ids, dtype=torch.long)
    return Prompt(ids, positions, timeline.next_position, **media)


def join_prompts(prompts: list[Prompt]) -> Prompt:
    """Consecutive pieces as one prompt."""
    first, *rest = prompts
    if not rest:
        return first
    return Prompt(
        token_ids=torch.cat([p.token_ids for p in prompts]),
        positions=torch.cat([p.positions for p in prompts], 1),
        next_position=prompts[-1].next_position,
        audio=[mel for p in prompts for mel in p.audio],
        images=[image for p in prompts for image in p.images],
        videos=[video for p in prompts for video in p.videos],
    )
