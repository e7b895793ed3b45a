"""Ogg: pcm (S,) -> the bytes of an Opus file, the same bytes every time.

The encoder gives each stream a number drawn by the clock. Here it is zero, in every page, and the pages' checksums follow.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile

__all__ = ["opus"]

PAGE_HEADER = 27
SERIAL, CHECKSUM, SEGMENTS = 14, 22, 26
"""Bytes of a page's header: four of the stream's number, four of the checksum, then the number of segments. RFC 3533."""


def _table() -> tuple[int, ...]:
    """CRC-32 of RFC 3533: generator 0x04c11db7, nothing reflected, from zero."""
    table = []
    for byte in range(256):
        rest = byte << 24
        for _ in range(8):
            rest = rest << 1 ^ (0x04C11DB7 if rest & 0x80000000 else 0)
        table.append(rest & 0xFFFFFFFF)
    return tuple(table)


TABLE = _table()


def opus(pcm: np.ndarray, sample_rate: int) -> bytes:
    """Mono float (S,) at 8, 12, 16, 24 or 48 kHz as Ogg Opus of about 35 kbit/s; the same bytes for the same sound."""
    assert sample_rate in (8000, 12000, 16000, 24000, 48000), f"Opus knows no {sample_rate} Hz"
    file = io.BytesIO()
    soundfile.write(file, pcm, sample_rate, format="OGG", subtype="OPUS", compression_level=0.88)
    return _renumbered(file.getvalue())


def _renumbered(content: bytes) -> bytes:
    """Every page of the stream with number zero and its checksum made anew."""
    out, at = bytearray(content), 0
    while at < len(out):
        count = out[at + SEGMENTS]
        end = at + PAGE_HEADER + count + sum(out[at + PAGE_HEADER : at + PAGE_HEADER + count])
        out[at + SERIAL : at + SERIAL + 4] = bytes(4)
        out[at + CHECKSUM : at + CHECKSUM + 4] = bytes(4)
        checksum = 0
        for byte in out[at:end]:
            checksum = (checksum << 8 & 0xFFFFFFFF) ^ TABLE[checksum >> 24 ^ byte]
        out[at + CHECKSUM : at + CHECKSUM + 4] = checksum.to_bytes(4, "little")
        at = end
    return bytes(out)
