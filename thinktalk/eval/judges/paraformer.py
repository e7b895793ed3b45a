"""Paraformer: pcm (S,) at 16 kHz -> Chinese words, by FunASR, as Seed-TTS-eval hears Chinese.

Its weights are no part of this package: FunASR fetches "paraformer-zh" itself, or opens a folder.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np

from thinktalk.errors import ConfigError

__all__ = ["Paraformer"]


class Paraformer:
    """The listener."""

    def __init__(self, model: str = "paraformer-zh"):
        """Errors: ConfigError (funasr is not installed, or cannot open the model)."""
        try:
            from funasr import AutoModel  # type: ignore[import-not-found]
        except ImportError:
            raise ConfigError("funasr is not installed, expected it for Paraformer; pip install funasr") from None  # fmt: skip
        try:
            self._model = AutoModel(model=model, disable_update=True, disable_pbar=True)
        except Exception as error:  # it raises nearly anything
            raise ConfigError(f"paraformer {model}: cannot be opened ({' '.join(str(error).split())[:120]}), expected a model of FunASR; give paraformer:DIR") from None  # fmt: skip
        try:
            release = version("funasr")
        except PackageNotFoundError:
            release = "?"
        self.name = f"{model} (funasr {release})"

    def __call__(self, pcm: np.ndarray) -> str:
        """The words of a wave (S,) at 16 kHz."""
        if not len(pcm):
            return ""
        found = self._model.generate(input=np.ascontiguousarray(pcm, np.float32), batch_size_s=300)
        return found[0]["text"] if found else ""
