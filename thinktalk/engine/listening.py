"""Listening: what a user says, shows and writes -> pieces of prompt, each to be read while the next is still coming.

    begin(role)          <|im_start|>role
    add, hear, see       what stands in the turn, in the order in which it comes
    finish()             <|im_end|>
    answer()             the assistant's turn is open: the model may reply
    replied(n)           the reply of n tokens stands in the conversation

The pieces, joined, are the prompt that build_prompt makes of the whole conversation: same ids, positions and media. Text
waits until something that is not text follows, since words may join across two calls. After a reply the next ids go on
from the last generated token's, where a prompt made anew would count from the end of the text before it: these differ only
after a video with sound whose pictures are higher than its sound is long (docs/conversation.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.engine.live import Live, LiveState
from thinktalk.errors import InputError
from thinktalk.layers.resample import resampler
from thinktalk.media.fetch import describe
from thinktalk.media.timeline import Timeline
from thinktalk.prompt import (
    Mark,
    Medium,
    Prompt,
    PromptBuilder,
    Segment,
    Tokenizer,
    load_medium,
    render,
)
from thinktalk.stream import State

__all__ = ["Listener", "ListenerState", "plain"]


@dataclass
class ListenerState(State):
    """Where a conversation stands, as far as it is written; the next piece goes on from here."""

    timeline: Timeline
    """Tokens and ids written so far."""
    role: str = ""
    """Whose turn is open; empty between turns."""
    text: str = ""
    """Waits: the text that follows may join it."""
    live: LiveState | None = None
    """The stretch of sound and pictures under way."""
    clock_s: float = 0.0
    """Seconds of this turn's sound and pictures that earlier stretches hold."""
    exact: bool = True
    """Whether all that was heard came out as a recording given whole would (LiveState.exact)."""
    full: bool = False
    """The context had no room for all that came."""
    parts: list[dict[str, Any]] = field(default_factory=list)
    """What stands in the turn, for the history."""


class Listener:
    """Settings of listening; all memory is in ListenerState."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: OmniConfig,
        *,
        fps: float | None = None,
        frame_tokens: int | None = None,
        reserve_tokens: int = 0,
    ):
        """`reserve_tokens` of the context are left to the answer; fps and frame_tokens as for Live."""
        self.tokenizer, self.config, self.frame_tokens = tokenizer, config, frame_tokens
        self.live = Live(config, fps=fps, frame_tokens=frame_tokens)
        self.context = config.thinker.text.max_positions - 1  # a reply has at least one token
        # the ends of a stretch and of a turn, the opening of an answer and of the turn after it
        self.closing = 8 + len(tokenizer.encode("\n") + tokenizer.encode("assistant\n"))
        self.limit = self.context - reserve_tokens - 2 * self.closing
        self.rate = config.mel.sample_rate

    def init_state(self) -> ListenerState:
        """Nothing written yet."""
        thinker = self.config.thinker
        return ListenerState(
            Timeline(
                positions_per_second=thinker.positions_per_second,
                chunk_seconds=thinker.chunk_seconds,
            )
        )

    # ------------------------------------------------------------------------------------------------------------ turns

    def begin(self, role: str, state: ListenerState) -> list[Prompt]:
        """Open a turn."""
        pieces = self._write(state, lambda builder: builder.mark("im_start"))
        state.role, state.text, state.parts, state.clock_s = role, f"{role}\n", [], 0.0
        return pieces

    def finish(self, state: ListenerState) -> list[Prompt]:
        """Close the turn."""
        pieces = self._close_live(state)
        pieces += self._write(state, lambda builder: builder.mark("im_end"))
        state.role, state.text = "", "\n"
        return pieces

    def answer(self, state: ListenerState) -> list[Prompt]:
        """Open the assistant's turn."""
        return self.begin("assistant", state) + self._write(state)

    def answer_room(self, state: ListenerState) -> int:
        """Tokens that the answer may have, at least one."""
        return max(1, self.context - self.closing - state.timeline.tokens)

    def replied(self, tokens: int, state: ListenerState) -> list[Prompt]:
        """The assistant has said so many tokens, which the seat reads itself."""
        timeline = state.timeline
        timeline.following = timeline.next_position  # generated tokens count from the largest id
        timeline.place_ids(tokens)
        return self.finish(state)

    def messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        state: ListenerState,
        *,
        speech: bool,
        **media: Any,
    ) -> list[Prompt]:
        """A whole conversation so far, from its start; a user's last turn stays open. `media`: allow_urls, use_audio_in_video.

        A default system message is put in front, as build_prompt does.
        """
        segments = render(messages, speech=speech, answer=False)
        last = messages[-1]
        if last["role"] == "user":
            segments = segments[:-2]  # <|im_end|> and the line end
        pieces = self.segments(segments, state, where="messages", **media)
        state.parts = []
        if last["role"] == "user":
            content = plain(last["content"])
            state.role = "user"
            state.parts = [{"type": "text", "text": content}] if isinstance(content, str) else content  # fmt: skip
        return pieces

    # ---------------------------------------------------------------------------------------------------------- content

    def add(self, content: Any, state: ListenerState, **media: Any) -> list[Prompt]:
        """A message's content (a string or a list of parts) at this place of the turn."""
        rendered = render([{"role": "system", "content": content}], answer=False)
        first, *rest = rendered[1:-2]  # without the marks of the message around it
        assert isinstance(first, str) and first.startswith("system\n")
        first = first.removeprefix("system\n")
        return self.segments([first, *rest] if first else rest, state, where="content", **media)

    def segments(
        self, segments: Sequence[Segment], state: ListenerState, *, where: str, **media: Any
    ) -> list[Prompt]:
        """Text, marks and media, loaded and written; all of them or, with an error, none."""
        after = state.fork()
        pieces = self._close_live(after)
        for segment in segments:
            match segment:
                case str():
                    after.text += segment
                    after.parts = [*after.parts, {"type": "text", "text": segment}]
                case Mark():
                    pieces += self._write(after, lambda b, name=segment.name: b.mark(name))
                case Medium():
                    pieces += self._write(after, lambda b, m=segment: self._load(m, b, **media))
                    after.parts = [
                        *after.parts,
                        {"type": segment.kind, "name": describe(segment.source)},
                    ]
        room = self.limit - after.timeline.tokens - len(self.tokenizer.encode(after.text))
        if room < 0:
            raise InputError(
                f"{where}: {-room} tokens more than the context of {self.context + 1} has room for; shorten it or start a new session"
            )
        vars(state).update(vars(after))
        return pieces

    def hear(self, pcm: Tensor, rate: int, state: ListenerState) -> list[Prompt]:
        """Sound (S,) that goes on where the last one ended."""
        resampler(rate, self.rate)  # checks the rate before anything changes
        joins = state.live is not None and state.live.kind == "video"
        pieces = self._close_live(state) if joins else []  # a stretch with both senses begins
        self.live.hear(pcm, rate, self._open_live(state))
        return pieces + self._live_pieces(state)

    def see(self, frame: Any, at_s: float, state: ListenerState) -> list[Prompt]:
        """A picture on the screen from `at_s` of this turn on; None: still the same. With an error nothing changes."""
        after = state.fork()
        pieces: list[Prompt] = []
        if after.live is not None and after.live.kind == "sound":
            if frame is None:
                return pieces
            pieces = self._close_live(after)
        live = self._open_live(after)
        self.live.see(frame, max(0.0, float(at_s) - live.origin_s), live)
        pieces += self._live_pieces(after)
        vars(state).update(vars(after))
        return pieces

    # ----------------------------------------------------------------------------------------------------------- inside

    def _open_live(self, state: ListenerState) -> LiveState:
        if state.live is None:
            state.live = LiveState(origin_s=state.clock_s)
        return state.live

    def _live_pieces(self, state: ListenerState, *, last: bool = False) -> list[Prompt]:
        """What the stretch has finished; before its first piece stands the text that waits."""
        live = state.live
        assert live is not None
        opened = bool(live.kind)
        timeline = state.timeline.fork()
        if not opened and state.text:
            ids = self.tokenizer.encode(state.text)
            timeline.place_ids(len(ids))
        pieces = self.live.pieces(live, timeline, limit=self.limit, last=last)
        if pieces and not opened:
            pieces = self._write(state) + pieces
        if pieces:
            state.timeline = timeline
        state.full = state.full or live.full
        return pieces

    def _close_live(self, state: ListenerState) -> list[Prompt]:
        """End the stretch under way."""
        live = state.live
        if live is None:
            return []
        pieces = self._live_pieces(state, last=True)
        seconds = live.seconds(self.rate)
        if live.kind:
            kind = "audio" if live.kind == "sound" else "video"
            part: dict[str, Any] = {"type": kind, "seconds": round(seconds, 3)}
            if kind == "video":
                part |= {"frames": live.taken, "use_audio": live.kind == "both"}
            state.parts = [*state.parts, part]
        state.clock_s += seconds
        state.exact = state.exact and live.exact
        state.live = None
        return pieces

    def _write(
        self, state: ListenerState, more: Callable[[PromptBuilder], None] | None = None
    ) -> list[Prompt]:
        """The text that waits, then what `more` writes."""
        builder = PromptBuilder(
            self.tokenizer, self.config, max_tokens=self.context, timeline=state.timeline
        )
        if state.text:
            builder.text(state.text)
            state.text = ""
        if more is not None:
            more(builder)
        prompt = builder.prompt()
        return [prompt] if prompt.length else []

    def _load(
        self,
        medium: Medium,
        builder: PromptBuilder,
        *,
        allow_urls: bool = False,
        use_audio_in_video: bool | None = None,
    ) -> None:
        heard = medium.use_audio if medium.use_audio is not None else use_audio_in_video
        load_medium(medium, builder, self.config, allow_urls=allow_urls, heard=heard is not False)


def plain(content: Any) -> Any:
    """A message's content for the history: paths and URLs stay, of bytes and arrays only a name is kept."""
    if isinstance(content, str):
        return content
    return [
        dict(part) if part["type"] == "text" else plain_part(part["type"], part[part["type"]])
        for part in content
    ]


def plain_part(kind: str, source: Any) -> dict[str, Any]:
    """A medium in the history."""
    if isinstance(source, str) and not source.startswith("data:"):
        return {"type": kind, kind: source}
    return {"type": kind, "name": describe(source)}
