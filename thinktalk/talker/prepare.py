"""What the Talker reads: ThinkerChunk (1, T, D) -> Embedded (1, T, D), piece by piece as the Thinker goes on.

With e the embedding of a token the Thinker read (zero where a medium stands) and h its hidden state:

    prompt    e + h                       each token of the prompt
    opening   voice token + codec pad     then  s_0 + codec bos
    step t    s_t + code t - 1            t = 1, 2, ...
    s         e + h of each reply token the Thinker read, then text end, then text pad for ever

Code t needs s_t only: Talker and Thinker may go in lock-step. The last token of a reply ends it and is never read, so it is not in s.
Letters: B rows (1 here; `join_rows` and `feed_rows` make batches), T time steps, D width of the Thinker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.stream import State
from thinktalk.talker.model import Talker

__all__ = ["TalkerFeed", "feed_rows"]


@dataclass
class TalkerFeed(State):
    """One conversation between Thinker and Talker; `fork` keeps a copy."""

    voice: Tensor  # (1, 1, D) voice token + codec pad
    codec_bos: Tensor  # (1, 1, D)
    text_end: Tensor  # (1, 1, D)
    text_pad: Tensor  # (1, 1, D)
    latest: Tensor  # (1,) int64 position of the last token given out
    highest: Tensor  # (1,) int64 highest position given out: a video's may lie above the text that follows
    waiting: list[Tensor]  # (1, 1, D) each, s_t not given out yet
    ended: bool = False  # text end is in `waiting`, or was

    @classmethod
    @torch.no_grad()
    def start(
        cls, talker: Talker, embed: Callable[[Tensor], Tensor], *, voice_token: int
    ) -> TalkerFeed:
        """A fresh feed. `embed` is the Thinker's embedding; `voice_token` its token for the voice that speaks."""
        config, home = talker.talker_config, talker.embed.weight

        def row(
            table: Callable[[Tensor], Tensor], token: int, device: torch.device | None
        ) -> Tensor:
            return table(torch.tensor([[token]], device=device)).to(home)

        where = getattr(getattr(embed, "weight", None), "device", None)
        nowhere = torch.full((1,), -1, dtype=torch.int64, device=home.device)
        return cls(
            voice=row(embed, voice_token, where) + row(talker.embed, config.codec_pad, home.device),
            codec_bos=row(talker.embed, config.codec_bos, home.device),
            text_end=row(embed, config.text_end, where),
            text_pad=row(embed, config.text_pad, where),
            latest=nowhere,
            highest=nowhere.clone(),
            waiting=[],
        )

    def prompt(self, chunk: ThinkerChunk) -> Embedded:
        """The Talker's input for a piece of the prompt, which it may read at once."""
        positions = chunk.positions.to(self.latest.device)
        if chunk.length:
            self.latest = positions[:, :, -1].amax(1)
            self.highest = torch.maximum(self.highest, positions.amax((1, 2)))
        return Embedded(self._sum(chunk), positions)

    def reply(self, chunk: ThinkerChunk) -> None:
        """Tokens of the reply that the Thinker has read."""
        assert not self.ended, "the reply has ended; start a new feed for the next one"
        if chunk.length:  # split would give one empty piece of nothing
            self.waiting.extend(self._sum(chunk).split(1, dim=1))

    def end(self) -> None:
        """The Thinker has stopped: what is heard from now on is text end, then text pad."""
        assert not self.ended, "the reply has ended already"
        self.waiting.append(self.text_end)
        self.ended = True

    @property
    def ready(self) -> bool:
        """Whether opening() or next() has what it needs."""
        return bool(self.waiting) or self.ended

    def opening(self) -> Embedded:
        """The two inputs between the prompt and the first code; positions go on where the prompt's text ends."""
        embeds = torch.cat((self.voice, self._take() + self.codec_bos), 1)
        here = self.latest + torch.arange(1, 3, device=self.latest.device)
        self.latest = torch.maximum(
            self.highest, here[-1:]
        )  # from here on after the highest position
        return Embedded(embeds, here.expand(1, 3, 2))

    def next(self, code_embed: Tensor) -> Embedded:
        """The input that follows a code, whose embedding (1, 1, D) is given."""
        self.latest = self.latest + 1
        return Embedded(code_embed + self._take(), self.latest.expand(1, 3, 1))

    def _take(self) -> Tensor:
        assert self.ready, "the Thinker has not said enough yet; look at `ready` first"
        return self.waiting.pop(0) if self.waiting else self.text_pad

    def _sum(self, chunk: ThinkerChunk) -> Tensor:
        return (chunk.hidden + chunk.embeds).to(self.text_end)


def feed_rows(feeds: Sequence[TalkerFeed], code_embeds: Tensor) -> Embedded:
    """The next input of several conversations (B, 1, D), from the embeddings (B, 1, D) of their last codes."""
    if len(feeds) == 1:
        return feeds[0].next(code_embeds)
    rows = [feed.next(code_embeds[b : b + 1]) for b, feed in enumerate(feeds)]
    return Embedded(
        torch.cat([row.embeds for row in rows]), torch.cat([row.positions for row in rows])
    )
