"""Configuration: frozen dataclasses, one a stage; derived sizes and rates are properties; presets at the end.

    OmniConfig = MelConfig + VisualConfig + ThinkerConfig(audio, vision, text) + TalkerConfig + Code2WavConfig + GenerationConfig

JSON, official key names included, is read and written in weights/config_read.py and config_write.py only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

from thinktalk.errors import ConfigError

__all__ = [
    "AudioEncoderConfig", "BigVGANConfig", "Code2WavConfig", "DecoderConfig", "DiTConfig", "GenerationConfig",
    "MelConfig", "OmniConfig", "SpeakerEncoderConfig", "SpeechMelConfig", "TalkerConfig", "ThinkerConfig", "TokenIds",
    "VisionConfig", "VisualConfig", "Wav2CodeConfig", "exact_div", "nano", "omni_3b", "omni_7b", "tiny",
]  # fmt: skip


def exact_div(a: int, b: int) -> int:
    """a / b, which must be a whole number."""
    if a % b:
        raise ConfigError(f"{a} is not a multiple of {b}")
    return a // b


@dataclass(frozen=True, kw_only=True, slots=True)
class MelConfig:
    """Log-mel front end of the audio encoder (Whisper's)."""

    sample_rate: int = 16_000
    """Samples a second."""
    n_fft: int = 400
    """Samples in a window (25 ms)."""
    hop: int = 160
    """Samples between windows (10 ms)."""
    num_mels: int = 128
    """Mel bands from 0 to sample_rate / 2."""

    @property
    def frames_per_second(self) -> int:
        return exact_div(self.sample_rate, self.hop)  # 16000 / 160 = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechMelConfig:
    """Log-mel of the sound to be made: what the DiT makes and the vocoder reads."""

    sample_rate: int = 24_000
    """Samples a second."""
    hop: int = 240
    """Samples between frames (10 ms)."""
    num_mels: int = 80
    """Mel bands from 0 to sample_rate / 2."""

    @property
    def n_fft(self) -> int:
        """Samples in a window: four hops (40 ms at 100 frames/s)."""
        return 4 * self.hop

    @property
    def frames_per_second(self) -> Fraction:
        return Fraction(self.sample_rate, self.hop)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisualConfig:
    """How pictures and videos become patches."""

    min_pixels: int = 56 * 56
    """Smaller pictures are enlarged (pixels)."""
    max_pixels: int = 14 * 14 * 4 * 16384
    """Larger pictures are reduced (pixels)."""
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """CLIP mean of red, green, blue."""
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """CLIP deviation of red, green, blue."""
    video_fps: float = 2.0
    """Frames taken from a second of video."""
    video_min_frames: int = 4
    """Frames of the shortest video."""
    video_max_frames: int = 768
    """Frames of the longest video."""
    video_min_tokens: int = 128
    """Least tokens a pair of frames gets."""
    video_max_tokens: int = 768
    """Most tokens a pair of frames gets."""
    video_total_tokens: int = 115_200
    """Most tokens a whole video gets (0.9 x 128000)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioEncoderConfig:
    """Whisper-like encoder in independent blocks of 2 s."""

    num_mels: int = 128
    """Mel bands read."""
    width: int
    """Model width."""
    num_layers: int
    """Transformer layers."""
    num_heads: int
    """Attention heads."""
    ffn_width: int
    """Inner width of the feed-forward network."""
    window_frames: int = 100
    """Half a block: frames after the strided convolution that attend each other (100 = 2 s)."""
    out_width: int
    """Width of the Thinker."""

    @property
    def block_frames(self) -> int:
        """Mel frames a block (200 = 2 s at 100 frames/s)."""
        return 2 * self.window_frames

    @property
    def block_tokens(self) -> int:
        """Audio tokens a full block gives (50)."""
        return exact_div(self.window_frames, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionConfig:
    """Qwen2.5-VL vision tower: window attention, 2x2 merger."""

    depth: int
    """Blocks."""
    width: int
    """Model width."""
    ffn_width: int
    """Inner width of SwiGLU."""
    num_heads: int
    """Attention heads."""
    in_channels: int = 3
    """Colours."""
    patch: int = 14
    """Pixels a side of a patch."""
    merge: int = 2
    """Patches a side that the merger joins into one token."""
    temporal_patch: int = 2
    """Frames a patch spans."""
    window: int = 112
    """Pixels a side of an attention window."""
    out_width: int
    """Width of the Thinker."""
    full_attention_layers: tuple[int, ...]
    """Blocks that attend the whole frame."""

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch (3 x 2 x 14 x 14 = 1176)."""
        return self.in_channels * self.temporal_patch * self.patch**2

    @property
    def factor(self) -> int:
        """Picture sides are multiples of this (28 pixels)."""
        return self.patch * self.merge

    @property
    def window_units(self) -> int:
        """Merged 2x2 units a side of an attention window (4)."""
        return self.window // self.merge // self.patch


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Qwen2-style causal decoder with multimodal rotary positions (Thinker and Talker)."""

    vocab_size: int
    """Rows of the embedding and of the head."""
    width: int
    """Model width."""
    ffn_width: int
    """Inner width of SwiGLU."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads."""
    head_dim: int
    """Width of a head; num_heads x head_dim need not be `width`."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies."""
    mrope_section: tuple[int, int, int]
    """Frequencies given to time, height and width; their sum is head_dim / 2."""
    norm_eps: float = 1e-6
    """Epsilon of RMSNorm."""
    max_positions: int = 32_768
    """Longest context (tokens)."""
    tie_embeddings: bool = False
    """Whether the head is the embedding."""

    def __post_init__(self) -> None:
        if 2 * sum(self.mrope_section) != self.head_dim:
            raise ConfigError(
                f"mrope_section {self.mrope_section} must sum to head_dim / 2 = {self.head_dim / 2}; change one of them"
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenIds:
    """Special tokens of the text vocabulary."""

    pad: int = 151643
    """<|endoftext|>"""
    im_start: int = 151644
    """<|im_start|>"""
    im_end: int = 151645
    """<|im_end|>, ends a turn"""
    audio: int = 151646
    """<|AUDIO|>, one for each audio token"""
    audio_bos: int = 151647
    """<|audio_bos|>"""
    audio_eos: int = 151648
    """<|audio_eos|>"""
    vision_bos: int = 151652
    """<|vision_bos|>"""
    vision_eos: int = 151653
    """<|vision_eos|>"""
    vision_pad: int = 151654
    """<|vision_pad|>"""
    image: int = 151655
    """<|IMAGE|>, one for each image token"""
    video: int = 151656
    """<|VIDEO|>, one for each video token"""
    user: int = 872
    """the word "user" (kept for the file format; not used)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkerConfig:
    """The multimodal language model with its encoders."""

    audio: AudioEncoderConfig
    """Ears."""
    vision: VisionConfig
    """Eyes."""
    text: DecoderConfig
    """Language model."""
    ids: TokenIds = field(default_factory=TokenIds)
    """Special tokens."""
    positions_per_second: int = 25
    """TMRoPE time ids a second (one id = 40 ms)."""
    chunk_seconds: int = 2
    """Length of an audio/video interleave chunk."""

    def __post_init__(self) -> None:
        for name, part in (("audio", self.audio), ("vision", self.vision)):
            if part.out_width != self.text.width:
                raise ConfigError(
                    f"{name}.out_width {part.out_width} must equal text.width {self.text.width}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class TalkerConfig:
    """The speech language model: codes from what the Thinker says."""

    input_width: int
    """Width of Thinker states and of the codec embedding (embedding_size)."""
    decoder: DecoderConfig
    """The decoder; its vocab_size counts codes and codec specials (8448)."""
    text_pad: int = 151859
    """Thinker token that stands where the text has run out."""
    text_start: int = 151860
    """Unused at inference; kept for the file format."""
    text_end: int = 151861
    """Thinker token that ends the text."""
    codec_pad: int = 8292
    """Codec token: padding; also ends speech."""
    codec_bos: int = 8293
    """Codec token: start."""
    codec_eos: int = 8294
    """Codec token: end."""
    codec_mask: int = 8296
    """Codec token that stands for the prompt in the repetition penalty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerEncoderConfig:
    """ECAPA-TDNN over the reference mel."""

    out_width: int = 128
    """Width of the vector it gives (enc_dim)."""
    channels: tuple[int, ...] = (256, 256, 256, 256, 768)
    """Channels of the TDNN, the SE-Res2Net blocks and the aggregation."""
    kernels: tuple[int, ...] = (5, 3, 3, 3, 1)
    """Kernel widths (frames)."""
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    """Dilations (frames)."""
    attention_channels: int = 64
    """Bottleneck of the attentive pooling."""
    res2net_scale: int = 2
    """Branches of Res2Net."""
    se_channels: int = 64
    """Bottleneck of squeeze-and-excitation."""

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.dilations):
            raise ConfigError(
                f"channels {self.channels}, kernels {self.kernels} and dilations {self.dilations} must be as many"
            )
        if self.channels[-1] != sum(self.channels[1:-1]):
            raise ConfigError(
                f"channels {self.channels}: the last must be the sum of those between, {sum(self.channels[1:-1])}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Flow-matching transformer: codes to mel, attention in blocks."""

    width: int = 1024
    """Model width (official key: dim)."""
    num_layers: int = 22
    """Layers (official key: depth)."""
    num_heads: int = 16
    """Attention heads (official key: heads)."""
    head_dim: int = 64
    """Width of a head."""
    ffn_mult: int = 2
    """Feed-forward width over `width`."""
    code_width: int = 512
    """Width of a code embedding (emb_dim)."""
    num_codes: int = 8193
    """Codes the model knows, row 0 being also the null code; the table has one row more."""
    repeats: int = 2
    """Mel frames a code."""
    num_mels: int = 80
    """Mel bands made."""
    block_frames: int = 24
    """Mel frames a block (240 ms)."""
    look_ahead_layers: tuple[int, ...] = (10,)
    """Layers that see the next block."""
    look_backward_layers: tuple[int, ...] = (0, 20)
    """Layers that see the block before."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (head 0 only)."""
    max_positions: int = 32_768
    """Longest mel (frames)."""
    speaker_width: int = 192
    """Width of a voice's `cond` vector (enc_emb_dim)."""
    speaker: SpeakerEncoderConfig = field(default_factory=SpeakerEncoderConfig)
    """Encoder of the reference mel."""

    def __post_init__(self) -> None:
        exact_div(self.block_frames, self.repeats)
        for name in ("look_ahead_layers", "look_backward_layers"):
            if any(not 0 <= layer < self.num_layers for layer in getattr(self, name)):
                raise ConfigError(
                    f"{name} {getattr(self, name)} must lie in num_layers 0..{self.num_layers - 1}"
                )

    @property
    def block_codes(self) -> int:
        """Codes a block (12)."""
        return exact_div(self.block_frames, self.repeats)


@dataclass(frozen=True, kw_only=True, slots=True)
class BigVGANConfig:
    """Vocoder: mel to wave."""

    num_mels: int = 80
    """Mel bands read."""
    initial_channels: int = 1536
    """Channels after the first convolution; halved by each upsampling."""
    upsample_rates: tuple[int, ...] = (5, 3, 2, 2, 2, 2)
    """Factors whose product is the hop (240 samples a frame)."""
    upsample_kernels: tuple[int, ...] = (11, 7, 4, 4, 4, 4)
    """Kernel widths of the transposed convolutions."""
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    """Kernel widths of the AMP blocks, averaged at each scale."""
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations in each AMP block."""

    @property
    def hop(self) -> int:
        """Samples a mel frame."""
        return prod(self.upsample_rates)


@dataclass(frozen=True, kw_only=True, slots=True)
class Code2WavConfig:
    """Codes to wave."""

    dit: DiTConfig = field(default_factory=DiTConfig)
    """Codes to mel."""
    vocoder: BigVGANConfig = field(default_factory=BigVGANConfig)
    """Mel to wave."""
    sample_rate: int = 24_000
    """Samples a second of the sound made."""

    def __post_init__(self) -> None:
        if self.dit.num_mels != self.vocoder.num_mels:
            raise ConfigError(
                f"dit.num_mels {self.dit.num_mels} must equal vocoder.num_mels {self.vocoder.num_mels}"
            )

    @property
    def code_samples(self) -> int:
        """Samples a code (480 = 20 ms)."""
        return self.dit.repeats * self.vocoder.hop

    @property
    def codes_per_second(self) -> Fraction:
        """Codes a second of speech (50 officially, 25 for nano)."""
        return Fraction(self.sample_rate, self.code_samples)

    @property
    def mel_frames_per_second(self) -> Fraction:
        """Mel frames a second (100 officially, 50 for nano)."""
        return Fraction(self.sample_rate, self.vocoder.hop)

    @property
    def mel(self) -> SpeechMelConfig:
        """The mel that is made of codes and of which the wave is made."""
        return SpeechMelConfig(
            sample_rate=self.sample_rate, hop=self.vocoder.hop, num_mels=self.dit.num_mels
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Wav2CodeConfig:
    """Speech tokenizer: an encoder as the ears have, in independent blocks, with a finite-scalar quantiser on top."""

    num_mels: int = 128
    """Mel bands read (100 frames a second, as the audio encoder)."""
    width: int
    """Model width."""
    num_layers: int
    """Transformer layers before the quantiser."""
    num_heads: int
    """Attention heads."""
    ffn_width: int
    """Inner width of the feed-forward network."""
    block_frames: int = 200
    """Mel frames that are encoded together (2 s)."""
    pool: int = 2
    """Encoder frames (50 a second) that one code averages: 2 gives 25 codes a second, 1 gives 50."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Values each number of a code can take; their product is the number of codes (1000)."""
    choices: int = 0
    """Codes of an existing decoder to choose among, instead of a grid of levels of our own; 0: the grid."""
    first_code: int = 1
    """The code of index 0: code 0 is the DiT's null code."""

    def __post_init__(self) -> None:
        if self.block_frames % self.frames_per_code:
            raise ConfigError(f"block_frames {self.block_frames} must be a multiple of 2 x pool = {self.frames_per_code}")  # fmt: skip
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"levels {self.levels}: expected one or more numbers, each at least 2")  # fmt: skip

    @property
    def frames_per_code(self) -> int:
        """Mel frames a code (4): the strided convolution halves, the pooling does the rest."""
        return 2 * self.pool

    @property
    def num_codes(self) -> int:
        """Codes it can give."""
        return self.choices or prod(self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """Defaults of generation, as the reference's generate() has them."""

    max_text_tokens: int = 1024
    """Longest answer (text tokens)."""
    max_codes: int = 4096
    """Longest speech (codes)."""
    text_temperature: float = 1.0
    """Thinker sampling temperature; used only when text_sample is on."""
    text_top_k: int = 0
    """Thinker top-k; 0 keeps all."""
    text_top_p: float = 1.0
    """Thinker nucleus."""
    text_sample: bool = False
    """Whether the Thinker samples; the reference's is greedy."""
    text_repetition_penalty: float = 1.0
    """Divides the logits of tokens seen before."""
    code_temperature: float = 0.9
    """Talker sampling temperature."""
    code_top_k: int = 40
    """Talker top-k."""
    code_top_p: float = 0.8
    """Talker nucleus."""
    code_repetition_penalty: float = 1.05
    """Divides the logits of codes seen before."""
    flow_points: int = 10
    """Time points of the flow's solver (num_steps; 10 points = 9 intervals)."""
    flow_guidance: float = 0.5
    """Strength of classifier-free guidance."""
    flow_sway: float = -1.0
    """Sway sampling coefficient."""
    flow_method: str = "rk4"
    """Solver of the flow: rk4 (the only one of the reference), midpoint, euler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OmniConfig:
    """The whole model."""

    thinker: ThinkerConfig
    """Understands and writes."""
    talker: TalkerConfig | None = None
    """Speaks in codes; None in a text-only checkpoint."""
    code2wav: Code2WavConfig | None = None
    """Codes to wave; None in a text-only checkpoint."""
    wav2code: Wav2CodeConfig | None = None
    """Wave to codes; None where the speech tokenizer is not shipped, as officially."""
    mel: MelConfig = field(default_factory=MelConfig)
    """Front end of hearing."""
    visual: VisualConfig = field(default_factory=VisualConfig)
    """Front end of seeing."""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """Defaults of generation."""

    def __post_init__(self) -> None:
        if self.talker is not None and self.talker.input_width != self.thinker.text.width:
            raise ConfigError(
                f"talker.input_width {self.talker.input_width} must equal thinker.text.width {self.thinker.text.width}"
            )
        if self.mel.num_mels != self.thinker.audio.num_mels:
            raise ConfigError(
                f"mel.num_mels {self.mel.num_mels} must equal audio.num_mels {self.thinker.audio.num_mels}"
            )
        if self.wav2code is not None and self.code2wav is not None:
            self._check_codes(self.wav2code, self.code2wav)

    def _check_codes(self, wav2code: Wav2CodeConfig, code2wav: Code2WavConfig) -> None:
        """What wav2code gives, code2wav must take."""
        rate = Fraction(self.mel.frames_per_second, wav2code.frames_per_code)
        if rate != code2wav.codes_per_second:
            raise ConfigError(
                f"wav2code.pool {wav2code.pool} gives {rate} codes/s, code2wav takes {code2wav.codes_per_second}"
            )
        last = wav2code.first_code + wav2code.num_codes - 1
        if last >= code2wav.dit.num_codes:
            raise ConfigError(
                f"wav2code.levels {wav2code.levels} give codes to {last}, dit.num_codes is {code2wav.dit.num_codes}"
            )


# ------------------------------------------------------------------------------------------------------------- presets


def omni_7b() -> OmniConfig:
    """Qwen2.5-Omni-7B, 10.73 B parameters in all."""
    return OmniConfig(
        thinker=ThinkerConfig(
            audio=AudioEncoderConfig(width=1280, num_layers=32, num_heads=20, ffn_width=5120, out_width=3584),
            vision=VisionConfig(
                depth=32, width=1280, ffn_width=3420, num_heads=16, out_width=3584, full_attention_layers=(7, 15, 23, 31)
            ),
            text=DecoderConfig(
                vocab_size=152064, width=3584, ffn_width=18944, num_layers=28, num_heads=28, num_kv_heads=4,
                head_dim=128, mrope_section=(16, 24, 24),
            ),
        ),
        talker=TalkerConfig(
            input_width=3584,
            decoder=DecoderConfig(
                vocab_size=8448, width=896, ffn_width=18944, num_layers=24, num_heads=12, num_kv_heads=4,
                head_dim=128, mrope_section=(16, 24, 24),
            ),
        ),
        code2wav=Code2WavConfig(),
    )  # fmt: skip


def omni_3b() -> OmniConfig:
    """Qwen2.5-Omni-3B (Talker sizes as third parties report them: see docs/fidelity.md)."""
    big = omni_7b()
    return replace(
        big,
        thinker=replace(
            big.thinker,
            audio=replace(big.thinker.audio, out_width=2048),
            vision=replace(big.thinker.vision, out_width=2048),
            text=DecoderConfig(
                vocab_size=151936, width=2048, ffn_width=11008, num_layers=36, num_heads=16, num_kv_heads=2,
                head_dim=128, mrope_section=(16, 24, 24),
            ),
        ),
        talker=TalkerConfig(
            input_width=2048,
            decoder=DecoderConfig(
                vocab_size=8448, width=896, ffn_width=4864, num_layers=24, num_heads=14, num_kv_heads=2,
                head_dim=64, mrope_section=(16, 16, 0),
            ),
        ),
    )  # fmt: skip


def _compact_ids(base: int) -> TokenIds:
    """The special tokens in the official order, the first one at `base` instead of 151643."""
    official = TokenIds()
    shift = official.pad - base
    names = [name for name in TokenIds.__dataclass_fields__ if name != "user"]
    return TokenIds(
        **{name: getattr(official, name) - shift for name in names}, user=min(872, base - 1)
    )


def tiny(*, base: int = 700, vocab_size: int = 1024) -> OmniConfig:
    """A random model of every part for tests and demos; `base` is the id of the first special token."""
    ids = _compact_ids(base)
    shift = TokenIds().pad - base
    width, sections = 64, (2, 3, 3)
    return OmniConfig(
        thinker=ThinkerConfig(
            audio=AudioEncoderConfig(width=32, num_layers=2, num_heads=4, ffn_width=64, out_width=width),
            vision=VisionConfig(
                depth=4, width=32, ffn_width=48, num_heads=2, out_width=width, full_attention_layers=(1, 3)
            ),
            text=DecoderConfig(
                vocab_size=vocab_size, width=width, ffn_width=128, num_layers=3, num_heads=4, num_kv_heads=2,
                head_dim=16, mrope_section=sections,
            ),
            ids=ids,
        ),
        talker=TalkerConfig(
            input_width=width,
            decoder=DecoderConfig(
                vocab_size=8448, width=48, ffn_width=96, num_layers=3, num_heads=4, num_kv_heads=2,
                head_dim=16, mrope_section=sections,
            ),
            text_pad=151859 - shift, text_start=151860 - shift, text_end=151861 - shift,
        ),
        code2wav=Code2WavConfig(
            dit=DiTConfig(
                width=64, num_layers=6, num_heads=4, head_dim=16, code_width=32, look_ahead_layers=(2,),
                look_backward_layers=(0, 4),
                speaker=SpeakerEncoderConfig(
                    out_width=16, channels=(32, 32, 32, 32, 96), attention_channels=8, se_channels=8
                ),
            ),
            vocoder=BigVGANConfig(initial_channels=128),
        ),
    )  # fmt: skip


def nano() -> OmniConfig:
    """The shipped small model: 25 codes/s, 50 mel frames/s, wide and shallow, 39.97 M parameters with its speech tokenizer."""
    base, vocab_size, width = 2560, 3072, 384
    shift = TokenIds().pad - base
    return OmniConfig(
        thinker=ThinkerConfig(
            audio=AudioEncoderConfig(width=256, num_layers=6, num_heads=4, ffn_width=1024, out_width=width),
            vision=VisionConfig(
                depth=5, width=192, ffn_width=512, num_heads=4, out_width=width, full_attention_layers=(2, 4)
            ),
            text=DecoderConfig(
                vocab_size=vocab_size, width=width, ffn_width=1024, num_layers=7, num_heads=6, num_kv_heads=3,
                head_dim=64, mrope_section=(8, 12, 12), max_positions=8192, tie_embeddings=True,
            ),
            ids=_compact_ids(base),
        ),
        talker=TalkerConfig(
            input_width=width,
            decoder=DecoderConfig(
                vocab_size=1024, width=320, ffn_width=896, num_layers=5, num_heads=5, num_kv_heads=5,
                head_dim=64, mrope_section=(8, 12, 12), max_positions=8192,
            ),
            text_pad=151859 - shift, text_start=151860 - shift, text_end=151861 - shift,
            codec_pad=1002, codec_bos=1003, codec_eos=1004, codec_mask=1006,
        ),
        code2wav=Code2WavConfig(
            dit=DiTConfig(
                width=256, num_layers=6, num_heads=4, head_dim=64, code_width=128, num_codes=1001, block_frames=12,
                look_ahead_layers=(2,), look_backward_layers=(0, 4),
                speaker=SpeakerEncoderConfig(
                    out_width=64, channels=(96, 96, 96, 96, 288), attention_channels=32, se_channels=32
                ),
            ),
            vocoder=BigVGANConfig(
                initial_channels=192, upsample_rates=(6, 5, 4, 2, 2), upsample_kernels=(12, 11, 8, 4, 4),
            ),
        ),
        wav2code=Wav2CodeConfig(width=256, num_layers=4, num_heads=4, ffn_width=1024),
        visual=VisualConfig(max_pixels=448 * 448, video_min_tokens=16, video_max_tokens=64, video_total_tokens=4096),
    )  # fmt: skip
