"""DNSMOS: pcm (S,) at 16 kHz -> opinions from 1 to 5: P.808 (overall), P.835 (signal, background, overall). Reddy 2021, 2022.

    windows of 9.01 s, one a second, a shorter wave repeated until it fills one
    P.835: wave -> raw scores -> polynomials of the authors        P.808: 120 mel bands in dB, window of 321, hop 160

The two networks are Microsoft's (MIT); only they are taken from the package, its code asks for much that is not needed.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from thinktalk.data.synth.packages import Package, fetch, files
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.mel import mel_filter_bank

__all__ = ["Dnsmos"]

WEIGHTS = Package("pip", "speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7")  # fmt: skip
SAMPLE_RATE, SECONDS = 16_000, 9.01
SAMPLES = int(SECONDS * SAMPLE_RATE)  # 144160
N_FFT, HOP, NUM_MELS = 321, 160, 120
POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
"""Raw scores of the network -> opinions, highest power first; in the order of its outputs."""


class Dnsmos:
    """Who says how good it sounds."""

    name = f"DNSMOS (speechmos {WEIGHTS.version})"

    def __init__(self, cache: str | os.PathLike[str] | None = None):
        """Errors: ConfigError (no onnxruntime), InputError (the package cannot be had)."""
        try:
            import onnxruntime  # type: ignore[import-not-found]
        except ImportError:
            raise ConfigError("onnxruntime is not installed, expected it for DNSMOS; pip install 'thinktalk[eval]'") from None  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        models = {
            name.rpartition("/")[2]: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            for name, content in files(fetch(WEIGHTS, cache), "speechmos/dnsmos_models/*.onnx")
            if name.endswith(("/model_v8.onnx", "/sig_bak_ovr.onnx"))
        }  # fmt: skip
        self._p808, self._p835 = models["model_v8.onnx"], models["sig_bak_ovr.onnx"]

    def __call__(self, pcm: np.ndarray) -> dict[str, float]:
        """p808, ovrl, sig and bak of a wave (S,) within -1..1. Errors: InputError (no samples)."""
        if not len(pcm):
            raise InputError("sound: has no samples, expected a wave to judge; give one")
        pcm = np.clip(np.asarray(pcm, np.float32), -1, 1)
        while len(pcm) < SAMPLES:
            pcm = np.concatenate([pcm, pcm])
        scores = [self._window(pcm[at : at + SAMPLES]) for at in _starts(len(pcm))]
        return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}

    def _window(self, pcm: np.ndarray) -> dict[str, float]:
        raw = self._p835.run(None, {"input_1": pcm[None]})[0][0]
        told = {name: float(np.polyval(p, x)) for (name, p), x in zip(POLYNOMIALS.items(), raw, strict=True)}  # fmt: skip
        p808 = self._p808.run(None, {"input_1": loudness(pcm[:-HOP])[None]})[0][0][0]
        return {"p808": float(p808), **told}


def _starts(samples: int) -> range:
    """First samples of the windows of a wave: one a second."""
    count = int(samples // SAMPLE_RATE - SECONDS) + 1
    starts = range(0, count * SAMPLE_RATE, SAMPLE_RATE)
    return starts[: max(1, sum(at + SAMPLES <= samples for at in starts))]


def loudness(pcm: np.ndarray) -> np.ndarray:
    """Mel bands (900, 120) in dB under the loudest, at most 80 of them, moved and scaled as P.808's network wants them."""
    spectrum = torch.stft(
        torch.from_numpy(pcm), N_FFT, HOP, window=torch.hann_window(N_FFT), center=True, pad_mode="constant", return_complex=True
    )  # fmt: skip
    power = spectrum.abs().square().T @ mel_filter_bank(NUM_MELS, N_FFT, SAMPLE_RATE).float()
    level = 10 * power.clamp(min=1e-10).log10()
    level = level - level.max().clamp(min=-100.0)
    return ((level.clamp(min=float(level.max()) - 80.0) + 40) / 40).numpy()
