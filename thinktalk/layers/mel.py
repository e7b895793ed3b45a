"""Log-mel: pcm (B, S) at 16 kHz -> (B, 128, ceil(S / 160)) frames, 100 a second, as Whisper's front end has them.

    reflect at the start, zeros at the end -> STFT (25 ms Hann windows, hop 10 ms) -> power -> Slaney mel bands -> log10
    -> clamp to 8 below the maximum -> (x + 4) / 4

The reference pads every clip with zeros to 300 s before the STFT; here only what those zeros change is computed: the
windows that still hear the last samples. Two of them may lie beyond the last frame: they are not output, but their
maximum counts.

`log_mel` takes the maximum over the whole clip (the reference). `LogMel` is its streaming form: it normalises blocks of
2 s by the maximum of the blocks so far, so a clip of at most one block comes out as from `log_mel`.

The mel of the sound to be made (what the DiT makes and the vocoder reads) is another one, `speech_mel`: 24 kHz, 80 bands,
natural logarithm of magnitudes, no normalisation, frame t covers samples t hop to (t + 1) hop and its window is centred there.
The hop is the vocoder's and the window four hops. The official checkpoint does not say how its own was computed; ours is the
usual one of HiFi-GAN and BigVGAN.

B rows, S samples, T frames, M mel bands, F frequencies.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from thinktalk.config import MelConfig, SpeechMelConfig
from thinktalk.stream import State, StreamModule

__all__ = ["LogMel", "LogMelState", "log_mel", "mel_filter_bank", "num_frames", "speech_mel"]

FLOOR = 1e-10  # least mel power: log10 is -10 in silence
DEPTH = 8.0  # log10 units kept below the maximum (80 dB)
SPEECH_FLOOR = (
    1e-5  # least magnitude of a band of the speech mel: its logarithm is -11.5 in silence
)
PIECE = 3000  # windows transformed at a time (30 s), which bounds memory


def num_frames(samples: int, config: MelConfig | None = None) -> int:
    """Frames of a clip: one every hop, the last one perhaps partly beyond the end."""
    hop = (config or MelConfig()).hop
    return -(-samples // hop)


def log_mel(
    pcm: Tensor, config: MelConfig | None = None, *, lengths: Tensor | None = None
) -> Tensor:
    """Log-mel frames (B, 128, ceil(S / 160)), float32 (float64 for float64), of 16 kHz pcm (B, S).

    `lengths` (B,) gives the samples of each row where rows are right-padded; frames beyond a row's own
    ceil(length / 160) hold what the reference computes there: its silence.

    >>> log_mel(torch.zeros(1, 1600)).shape
    torch.Size([1, 128, 10])
    """
    config = config or MelConfig()
    B, S = pcm.shape
    pcm = _as_float(pcm)
    if lengths is not None:
        inside = torch.arange(S, device=pcm.device) < lengths.to(pcm.device)[:, None]
        pcm = torch.where(inside, pcm, 0.0)
    if S == 0:
        return pcm.new_zeros(B, config.num_mels, 0)
    log_BMT = _log_power(_silent_end(_reflect_start(pcm, config), config), config)
    peak_B11 = log_BMT.amax((1, 2), keepdim=True)
    return _scale(log_BMT[..., : num_frames(S, config)], peak_B11)


def speech_mel(pcm: Tensor, config: SpeechMelConfig | None = None) -> Tensor:
    """Natural-log mel (B, 80, S // hop) of 24 kHz pcm (B, S), differentiable: the inverse of the vocoder.

    Both ends are mirrored by (n_fft - hop) / 2 samples, so T frames are T hops of sound; samples beyond the last whole hop
    are not heard. pcm shorter than a window is continued with zeros.

    >>> speech_mel(torch.zeros(1, 24000)).shape
    torch.Size([1, 80, 100])
    """
    config = config or SpeechMelConfig()
    pcm = _as_float(pcm)
    B, T = len(pcm), pcm.shape[1] // config.hop
    if T == 0:
        return pcm.new_zeros(B, config.num_mels, 0)
    pcm = pcm[:, : T * config.hop]
    edge = (config.n_fft - config.hop) // 2
    pcm = functional.pad(pcm, (0, max(0, edge + 1 - pcm.shape[1])))  # as much as can be mirrored
    pcm = functional.pad(pcm[:, None], (edge, edge), mode="reflect")[:, 0]
    window, bands_MF = _speech_constants(config, pcm.device, pcm.dtype)
    spectrum_BFT = torch.stft(
        pcm, config.n_fft, config.hop, window=window, center=False, return_complex=True
    )
    # the square root has no slope at 0: a floor far below the band's
    power = spectrum_BFT.real.square() + spectrum_BFT.imag.square()
    magnitude = (power + 1e-9).sqrt()
    return (bands_MF @ magnitude).clamp(min=SPEECH_FLOOR).log()[..., :T]


@dataclass
class LogMelState(State):
    """Between steps. Before the first window there are at most n_fft / 2 samples, afterwards more: that tells the phase."""

    pcm: Tensor  # (B, n) samples the next window starts with
    log: Tensor  # (B, M, < block_frames) log power of the block under way
    peak: Tensor  # (B, 1, 1) largest log power of the blocks so far, log10(FLOOR) at the start


class LogMel(StreamModule):
    """pcm (B, S) -> log-mel (B, M, ceil(S / hop)) in blocks of `block_frames`, each normalised by the maximum so far.

    The reference's clip-wide maximum lies in the future of a live stream; this is our definition for streams, equal to
    the reference for clips of one block. It differs where a later block is louder than all before it, only in bands
    more than 80 dB below that maximum.
    """

    time_dim, out_time_dim = 1, 2

    def __init__(self, config: MelConfig | None = None, *, block_frames: int = 200):
        super().__init__()
        self.config = config or MelConfig()
        self.block_frames = block_frames
        # one window must outlast the reflected start, else the length of state.pcm does not tell the phase
        assert self.config.hop < self.config.n_fft // 2, "windows must overlap by more than half"

    @property
    def ratio(self) -> Fraction:  # type: ignore[override]
        """Frames a sample (1 / 160)."""
        return Fraction(1, self.config.hop)

    @property
    def lookahead(self) -> int:  # type: ignore[override]
        """A block leaves when its last window is heard, 199 hops and 40 samples after its first frame (31880)."""
        half = self.config.n_fft // 2
        # +1: the first window mirrors samples 1..200
        heard = max((self.block_frames - 1) * self.config.hop + half, half + 1)
        return heard - self.config.hop

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> LogMelState:
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        empty = torch.zeros(batch, 0, device=device, dtype=dtype)
        return LogMelState(
            pcm=empty,
            log=empty.new_zeros(batch, self.config.num_mels, 0),
            peak=empty.new_full((batch, 1, 1), math.log10(FLOOR)),
        )

    def step(self, x: Tensor, state: LogMelState, *, last: bool = False) -> Tensor:
        n_fft, hop, half = self.config.n_fft, self.config.hop, self.config.n_fft // 2
        pcm = torch.cat([state.pcm, _as_float(x)], 1)
        if state.pcm.shape[1] <= half:  # nothing windowed yet
            if pcm.shape[1] == 0 or (pcm.shape[1] <= half and not last):
                state.pcm = pcm
                return state.log[..., :0]
            pcm = _reflect_start(pcm, self.config)
        ahead = pcm.shape[1] - half  # samples from the centre of the next window on
        if last:
            pcm = _silent_end(pcm, self.config)
        windows = max(0, (pcm.shape[1] - n_fft) // hop + 1)
        # windows centred beyond the end are no frames, but the maximum hears them
        frames = num_frames(ahead, self.config) if last else windows
        log = torch.cat([state.log, _log_power(pcm, self.config)], 2)
        state.pcm = pcm[:, windows * hop :].clone()
        ready = state.log.shape[2] + frames
        emit = ready if last else ready - ready % self.block_frames
        state.log = log[..., emit:ready].clone()
        return self._normalise(log if last else log[..., :emit], emit, state)

    def _normalise(self, log_BMT: Tensor, emit: int, state: LogMelState) -> Tensor:
        """The first `emit` frames, block by block; what follows them counts for the last block's maximum."""
        if not emit:
            return log_BMT[..., :0]
        B, block = log_BMT.shape[0], self.block_frames
        frame_peak = log_BMT.amax(1)
        fill = -emit % block
        peaks = functional.pad(frame_peak[:, :emit], (0, fill), value=math.log10(FLOOR))
        peaks = peaks.view(B, -1, block).amax(2)
        if frame_peak.shape[1] > emit:
            peaks[:, -1] = torch.maximum(peaks[:, -1], frame_peak[:, emit:].amax(1))
        running = torch.cat([state.peak[:, 0], peaks], 1).cummax(1).values[:, 1:]
        state.peak = running[:, -1:, None].clone()
        return _scale(log_BMT[..., :emit], running.repeat_interleave(block, 1)[:, None, :emit])


# --------------------------------------------------------------------------------------------------------------- parts


def _as_float(pcm: Tensor) -> Tensor:
    return pcm if pcm.dtype == torch.float64 else pcm.float()


def _reflect_start(pcm: Tensor, config: MelConfig) -> Tensor:
    """Half a window of the first samples mirrored in front; where the clip is shorter, its silent continuation."""
    half = config.n_fft // 2
    mirror = pcm[:, 1 : half + 1].flip(1)
    return torch.cat([functional.pad(mirror, (half - mirror.shape[1], 0)), pcm], 1)


def _silent_end(pcm: Tensor, config: MelConfig) -> Tensor:
    """Zeros behind, so that every window that hears a sample is whole; pcm starts where a window starts."""
    windows = num_frames(pcm.shape[1], config)  # window k hears pcm[160 k :]
    return functional.pad(pcm, (0, (windows - 1) * config.hop + config.n_fft - pcm.shape[1]))


def _log_power(pcm: Tensor, config: MelConfig) -> Tensor:
    """log10 of mel power (B, M, windows) of the whole windows in pcm (B, S)."""
    windows = max(0, (pcm.shape[1] - config.n_fft) // config.hop + 1)
    if not windows:
        return pcm.new_zeros(pcm.shape[0], config.num_mels, 0)
    hann, bands_MF = _constants(config, pcm.device, pcm.dtype)
    pieces = []
    for start in range(0, windows, PIECE):
        stop = min(windows, start + PIECE)
        piece = pcm[:, start * config.hop : (stop - 1) * config.hop + config.n_fft]
        spectrum_BFT = torch.stft(
            piece, config.n_fft, config.hop, window=hann, center=False, return_complex=True
        )
        pieces.append((bands_MF @ spectrum_BFT.abs().square()).clamp(min=FLOOR).log10())
    return torch.cat(pieces, 2) if len(pieces) > 1 else pieces[0]


def _scale(log: Tensor, peak: Tensor) -> Tensor:
    return (torch.maximum(log, peak - DEPTH) + 4.0) / 4.0


@functools.cache
@torch.inference_mode(False)  # else a first call under inference_mode would spoil training for good
def _constants(
    config: MelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Periodic Hann window (n_fft,) and mel bands (M, F)."""
    # as the reference: the window is computed in float32, the bands in float64
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    hann = torch.hann_window(config.n_fft, dtype=precise)
    bands_FM = mel_filter_bank(config.num_mels, config.n_fft, config.sample_rate)
    # dtype first: some devices know no float64
    return hann.to(dtype).to(device), bands_FM.T.contiguous().to(dtype).to(device)


@functools.cache
@torch.inference_mode(False)
def _speech_constants(
    config: SpeechMelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Periodic Hann window (n_fft,) and mel bands (M, F) of the speech mel."""
    hann = torch.hann_window(config.n_fft, dtype=torch.float64)
    bands_FM = mel_filter_bank(config.num_mels, config.n_fft, config.sample_rate)
    return hann.to(dtype).to(device), bands_FM.T.contiguous().to(dtype).to(device)


def mel_filter_bank(num_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """Slaney's triangular bands (n_fft // 2 + 1, num_mels), float64, each of area 1 (in Hz) times 2.

    The scale is linear to 1 kHz (66.7 Hz a mel) and logarithmic above (27 mels for a factor of 6.4).

    >>> mel_filter_bank(128, 400, 16000).shape
    torch.Size([201, 128])
    """
    linear_hz, corner_hz, log_step = 200.0 / 3, 1000.0, math.log(6.4) / 27
    corner_mel = corner_hz / linear_hz  # 15
    top_mel = corner_mel + math.log(sample_rate / 2 / corner_hz) / log_step
    mels = torch.linspace(0, top_mel, num_mels + 2, dtype=torch.float64)
    above = corner_hz * torch.exp(log_step * (mels - corner_mel))
    edges_hz = torch.where(mels >= corner_mel, above, linear_hz * mels)
    top_hz = sample_rate * (n_fft // 2) / n_fft  # an odd window has no bin at half the rate
    bins_hz = torch.linspace(0, top_hz, n_fft // 2 + 1, dtype=torch.float64)
    widths = edges_hz.diff()
    slopes = edges_hz[None, :] - bins_hz[:, None]  # (F, M + 2)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    bands = torch.minimum(rising, falling).clamp(min=0)
    return bands * (2.0 / (edges_hz[2:] - edges_hz[:-2]))
