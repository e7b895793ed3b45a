"""G.711: telephone sound, a byte a sample at 8 kHz <-> float32 in -1..1. mu-law (audio/pcmu) and A-law (audio/pcma).

decode   a table of 256 values (ITU-T G.711, tables 1 and 2; 14 and 13 bits, scaled to 16)
encode   the nearest of them below or above, found in the same table sorted: no second formula to disagree with it
"""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["RATE", "decode", "encode"]

RATE = 8000


def decode(data: bytes, law: str) -> np.ndarray:
    """float32 (S,) of bytes; `law` is "mu" or "a".

    >>> decode(bytes([0xFF, 0x80]), "mu").tolist()
    [0.0, 0.9803466796875]
    """
    return _table(law)[np.frombuffer(data, np.uint8)]


def encode(pcm: np.ndarray, law: str) -> bytes:
    """Bytes of float32 (S,) in -1..1: each sample becomes the nearest value that the law has.

    >>> encode(decode(bytes([0, 17, 200]), "a"), "a") == bytes([0, 17, 200])
    True
    """
    values, codes = _sorted(law)
    edges = (values[1:] + values[:-1]) / 2
    return codes[np.searchsorted(edges, np.clip(pcm, -1.0, 1.0))].tobytes()


@functools.cache
def _table(law: str) -> np.ndarray:
    """The value of each byte."""
    code = np.arange(256)
    if law == "mu":
        code = ~code & 0xFF
        exponent, mantissa = (code >> 4) & 7, code & 15
        level = (((mantissa << 3) + 0x84) << exponent) - 0x84
        sign = np.where(code & 0x80, -1, 1)
    else:
        assert law == "a", law
        code = code ^ 0x55
        exponent, mantissa = (code >> 4) & 7, code & 15
        level = (mantissa << 4) + 8
        level = np.where(exponent > 0, (level + 0x100) << np.maximum(exponent - 1, 0), level)
        sign = np.where(code & 0x80, 1, -1)
    return (sign * level / 32768).astype(np.float32)


@functools.cache
def _sorted(law: str) -> tuple[np.ndarray, np.ndarray]:
    """Values in order, and their bytes; of mu-law's two zeros 0xFF, which telephones send for silence."""
    values, index = np.unique(_table(law)[::-1], return_index=True)
    return values, (255 - index).astype(np.uint8)
