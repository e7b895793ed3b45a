"""Sphinx: pcm (S,) at 16 kHz -> words, by a recogniser of another family: hidden Markov models and trigrams.

What a neural judge forgives, because a language model fills it in, this one does not; it is far from perfect on clean
speech (11 % on Kokoro's), so its numbers compare, they do not tell a truth.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from thinktalk.errors import ConfigError

__all__ = ["Sphinx"]


class Sphinx:
    """The listener: pocketsphinx with the American English model that its package carries (BSD)."""

    def __init__(self) -> None:
        """Errors: ConfigError (pocketsphinx is not installed)."""
        try:
            from pocketsphinx import Decoder  # type: ignore[import-not-found]
        except ImportError:
            raise ConfigError("pocketsphinx is not installed, expected it for a judge of another family; pip install 'thinktalk[eval]'") from None  # fmt: skip
        self.name = f"pocketsphinx {version('pocketsphinx')} (en-us)"
        self._new = Decoder

    def __call__(self, pcm: np.ndarray) -> str:
        """The words of a wave (S,) at 16 kHz."""
        if not len(pcm):
            return ""
        # a fresh one each time: it adapts its means to what it has heard, and an item must not depend on those before
        decoder = self._new(samprate=16_000, loglevel="FATAL")
        decoder.start_utt()
        whole = (np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
        decoder.process_raw(whole, no_search=False, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return "" if found is None else found.hypstr
