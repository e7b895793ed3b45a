"""Admission: who is let in. By number, by bytes of keys and values, and by how much work speakers have been seen to cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from thinktalk.errors import ThinktalkError

if TYPE_CHECKING:
    from thinktalk.engine.engine import Engine
    from thinktalk.engine.seat import Seat

__all__ = ["Admission", "Busy"]

FIRST_TOKENS = 1024  # what is set aside for a new conversation


class Busy(ThinktalkError):  # noqa: N818  (a state of affairs, not a mistake)
    """There is no room for it now; the message says what would help."""


class Admission:
    """The rules of one engine."""

    def __init__(
        self, engine: Engine, *, max_sessions: int, max_bytes: int | None, max_load: float | None
    ):
        self.engine, self.max_sessions, self.max_load = engine, max_sessions, max_load
        device = engine.stages.thinking.thinker.embed.weight.device
        self.max_bytes = max_bytes if max_bytes is not None else free_bytes(device) // 2

    def check(self, tokens: int, *, speaks: bool, coming: Sequence[bool] = ()) -> None:
        """Busy unless a conversation of so many tokens may come in; `coming`: whether those speak who were let in before it
        and have no seat yet.
        """
        engine, count = self.engine, len(self.engine.seats) + len(coming)
        if count >= self.max_sessions:
            raise Busy(
                f"engine: {count} conversations of at most {self.max_sessions}; close one, or raise max_sessions"
            )
        need = self.bytes_of(max(tokens, FIRST_TOKENS), speaks=speaks)
        waiting = sum(self.bytes_of(FIRST_TOKENS, speaks=one) for one in coming)
        self._check_bytes(self.committed() + waiting + need, need, f"{count} conversations")
        others = sum(seat.speech for seat in list(engine.seats)) + sum(coming)
        if self.max_load is not None and speaks and others:
            load = self.load(others + 1)
            if load > self.max_load:
                raise Busy(
                    f"engine: {others + 1} speakers would take {load:.2f} s of work each second, at most {self.max_load:g} is "
                    "allowed; close one, or make speech cheaper (fewer flow points)"
                )

    def check_growth(self, seat: Seat, tokens: int) -> None:
        """Busy unless a conversation may read so many tokens more."""
        length = seat.memory.length
        if length + tokens <= FIRST_TOKENS:
            return
        held = self.bytes_of(max(length, FIRST_TOKENS), speaks=seat.speech)
        more = self.bytes_of(length + tokens, speaks=seat.speech) - held
        self._check_bytes(self.committed() + more, more, f"{len(self.engine.seats)} conversations")

    def load(self, speakers: int) -> float:
        """Seconds of work each second if so many spoke at once, from what was measured; 0 when nothing was."""
        code2wav = self.engine.model.config.code2wav
        return self.engine.costs.load(speakers, float(code2wav.codes_per_second))

    @property
    def speakers(self) -> int | None:
        """How many may speak at once in real time, from what was measured; None when nothing was."""
        if self.load(1) == 0.0:
            return None
        count = 0
        while count < 4096 and self.load(count + 1) <= (self.max_load or 1.0):
            count += 1
        return count

    def committed(self) -> int:
        """Bytes that open conversations hold, or will as soon as they have read a little."""
        return sum(
            self.bytes_of(max(seat.length, FIRST_TOKENS), speaks=seat.speech)
            for seat in list(self.engine.seats)
        )

    def bytes_of(self, tokens: int, *, speaks: bool) -> int:
        """Keys and values of so many tokens."""
        decoders = self.engine.stages.decoders
        return tokens * sum(
            2 * d.config.num_layers * d.config.num_kv_heads * d.config.head_dim * d.norm.weight.element_size()
            for d in (decoders if speaks else decoders[:1])
        )  # fmt: skip

    def _check_bytes(self, total: int, need: int, who: str) -> None:
        if total > self.max_bytes:
            raise Busy(
                f"engine: {who} hold {_mb(total - need)} of {_mb(self.max_bytes)}, {_mb(need)} more are needed; "
                "close one, or raise max_bytes"
            )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open(
            "/proc/meminfo"
        ) as file:  # pages that hold copies of files are free when they are needed
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system counts its pages
        return 8 << 30


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
