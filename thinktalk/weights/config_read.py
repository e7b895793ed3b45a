"""config.json and its neighbours, in the official or the newer key style, to OmniConfig.

    config.json + preprocessor_config.json | processor_config.json + generation_config.json -> OmniConfig

Where a key is absent the value is that of transformers' configuration classes (5.23), since its save leaves such keys out.
Both key styles are read: rope_scaling with rope_theta (official) or rope_parameters; dim, depth, heads (official) or
hidden_size, num_hidden_layers, num_attention_heads in dit_config. Every number is checked: a config is a stranger's file.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from thinktalk import config as cfg
from thinktalk.code2wav.flow import METHODS
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.weights.files import read_json

__all__ = ["config_from_json", "read_config", "read_raw"]

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)
"""The JSON files that hold configuration; only the first must be there."""

OMNI, THINKER_ONLY = "qwen2_5_omni", "qwen2_5_omni_thinker"

TOKEN_KEYS = {
    "pad": "pad_token_id", "im_start": "bos_token_id", "im_end": "eos_token_id", "audio": "audio_token_index",
    "audio_bos": "audio_start_token_id", "audio_eos": "audio_end_token_id", "vision_bos": "vision_start_token_id",
    "vision_eos": "vision_end_token_id", "vision_pad": "vision_token_id", "image": "image_token_index",
    "video": "video_token_index", "user": "user_token_id",
}  # fmt: skip
TALKER_KEYS = {
    "text_pad": "tts_text_pad_token_id", "text_start": "tts_text_start_token_id", "text_end": "tts_text_end_token_id",
    "codec_pad": "tts_codec_pad_token_id", "codec_bos": "tts_codec_start_token_id",
    "codec_eos": "tts_codec_end_token_id", "codec_mask": "tts_codec_mask_token_id",
}  # fmt: skip
GENERATION_KEYS = {  # the keyword arguments of the reference's generate()
    "max_text_tokens": "thinker_max_new_tokens", "max_codes": "talker_max_new_tokens",
    "text_sample": "thinker_do_sample", "text_temperature": "thinker_temperature", "text_top_k": "thinker_top_k",
    "text_top_p": "thinker_top_p", "text_repetition_penalty": "thinker_repetition_penalty",
    "code_temperature": "talker_temperature", "code_top_k": "talker_top_k", "code_top_p": "talker_top_p",
    "code_repetition_penalty": "talker_repetition_penalty", "flow_points": "token2wav_num_steps",
    "flow_guidance": "token2wav_guidance_scale", "flow_sway": "token2wav_sway_coefficient",
    "flow_method": "token2wav_method",
}  # fmt: skip


class _Section:
    """One JSON object with typed, bounded access; errors name the file and the key."""

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise WeightsError(
                f"{where}: is {values!r:.60}, expected a JSON object; check the file"
            )
        self.values, self.where = values, where

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def section(self, key: str) -> _Section:
        return _Section(self.values.get(key) or {}, f"{self.where}.{key}")

    def integer(
        self, *keys: str, default: int | None = None, low: int = 1, high: int = 1 << 22
    ) -> int:
        """The value of one of several spellings of a key, which must not disagree."""
        given = {key: self.values[key] for key in keys if key in self}
        if len({repr(value) for value in given.values()}) > 1:
            raise ConfigError(f"{self.where}: {given} disagree; keep one")
        value = next(iter(given.values()), default)
        if isinstance(value, list) and value and len(set(map(repr, value))) == 1:
            value = value[0]  # patch_size [14, 14]
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(
                f"{self.where}.{keys[0]}: is {value!r:.60}, expected a whole number {low} to {high}"
            )
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{self.where}.{key}: is {value!r:.60}, expected a number")
        return value

    def integers(
        self, key: str, default: tuple[int, ...] | None = None, low: int = 0
    ) -> tuple[int, ...]:
        value = self.values[key] if key in self else default
        if not isinstance(value, (list, tuple)) or any(
            type(v) is not int or not low <= v <= 1 << 22 for v in value
        ):
            raise ConfigError(
                f"{self.where}.{key}: is {value!r:.60}, expected a list of whole numbers from {low}"
            )
        return tuple(value)

    def expect(self, key: str, *allowed: Any) -> None:
        """A key that only has a value we model."""
        if key in self and self.values[key] not in allowed:
            raise ConfigError(
                f"{self.where}.{key}: is {self.values[key]!r:.60}, expected {allowed[0]!r}; not supported"
            )


def read_raw(directory: str | Path) -> dict[str, dict[str, Any]]:
    """The configuration files of a checkpoint as they are, by file name; a Thinker alone is wrapped as a whole model."""
    directory = Path(directory)
    if not directory.is_dir():
        raise WeightsError(
            f"{directory}: no such directory; expected a checkpoint in the official layout; check the path"
        )
    raw = {
        name: read_json(directory / name)
        for name in FILES
        if name == FILES[0] or (directory / name).exists()
    }
    main = raw["config.json"]
    if main.get("model_type") == THINKER_ONLY:
        raw["config.json"] = {
            "model_type": OMNI,
            "thinker_config": main,
            "enable_audio_output": False,
        }
    elif main.get("model_type") != OMNI:
        raise WeightsError(
            f"{directory / 'config.json'}: model_type is {main.get('model_type')!r:.60}, expected {OMNI!r}; "
            "this is a checkpoint of another model"
        )
    return raw


def read_config(directory: str | Path) -> cfg.OmniConfig:
    """The configuration of a checkpoint directory; WeightsError or ConfigError, one line, when it cannot be used."""
    raw = read_raw(directory)
    try:
        return config_from_json(raw)
    except ConfigError as error:
        raise ConfigError(f"{directory}: {error}") from None


def config_from_json(raw: dict[str, dict[str, Any]]) -> cfg.OmniConfig:
    """OmniConfig of the parsed files that read_raw gives."""
    main = _Section(raw["config.json"], "config.json")
    thinker = main.section("thinker_config")
    speaks = "talker_config" in main and main.values.get("enable_audio_output") is not False
    mel, visual = _front_ends(raw)
    config = cfg.OmniConfig(
        thinker=_thinker(thinker),
        talker=_talker(main.section("talker_config")) if speaks else None,
        code2wav=_code2wav(main.section("token2wav_config")) if "token2wav_config" in main and speaks else None,
        wav2code=_wav2code(main.section("wav2code_config")) if "wav2code_config" in main else None,
        mel=mel,
        visual=visual,
        generation=_generation(_Section(raw.get("generation_config.json", {}), "generation_config.json")),
    )  # fmt: skip
    _check_shapes(config)
    return config


def _check_shapes(config: cfg.OmniConfig) -> None:
    """Sizes that do not fit together would otherwise surface as a traceback deep inside a module."""
    audio, vision = config.thinker.audio, config.thinker.vision
    rules = [
        (audio.width % (2 * audio.num_heads) == 0, "audio_config", "d_model must be a multiple of 2 x encoder_attention_heads"),
        (audio.window_frames % 2 == 0, "audio_config", "n_window must be even"),
        (vision.width % (4 * vision.num_heads) == 0, "vision_config", "hidden_size must be a multiple of 4 x num_heads"),
        (vision.window >= vision.factor, "vision_config", "window_size must hold a merged patch"),
    ]  # fmt: skip
    if (c := config.code2wav) is not None:
        v, s = c.vocoder, c.dit.speaker
        rules += [
            (len(v.upsample_rates) == len(v.upsample_kernels), "bigvgan_config", "upsample_rates and upsample_kernel_sizes must be equally long"),
            (all(k >= r and (k - r) % 2 == 0 for k, r in zip(v.upsample_kernels, v.upsample_rates, strict=False)), "bigvgan_config", "each of upsample_kernel_sizes must exceed its rate by an even number"),
            (len(v.resblock_kernels) == len(v.resblock_dilations), "bigvgan_config", "resblock_kernel_sizes and resblock_dilation_sizes must be equally long"),
            (v.initial_channels % 2 ** len(v.upsample_rates) == 0, "bigvgan_config", "upsample_initial_channel must be halvable at each upsampling"),
            (len(s.channels) == len(s.kernels) == len(s.dilations) >= 3, "dit_config", "enc_channels, enc_kernel_sizes and enc_dilations must be equally long"),
            (all(ch % s.res2net_scale == 0 for ch in s.channels), "dit_config", "enc_channels must be multiples of enc_res2net_scale"),
            (c.dit.head_dim % 2 == 0, "dit_config", "head_dim must be even"),
        ]  # fmt: skip
    if (w := config.wav2code) is not None:
        rules += [
            (w.width % (2 * w.num_heads) == 0, "wav2code_config", "width must be a multiple of 2 x num_heads"),
            (w.num_mels == config.mel.num_mels, "wav2code_config", "num_mels must be the ears'"),
        ]  # fmt: skip
    for holds, where, rule in rules:
        if not holds:
            raise ConfigError(f"{where}: {rule}; correct config.json")


def _thinker(s: _Section) -> cfg.ThinkerConfig:
    a, v, t = s.section("audio_config"), s.section("vision_config"), s.section("text_config")
    a.expect("activation_function", "gelu")
    a.expect("scale_embedding", False)
    v.expect("hidden_act", "silu")
    default = cfg.TokenIds()
    return cfg.ThinkerConfig(
        audio=cfg.AudioEncoderConfig(
            num_mels=a.integer("num_mel_bins", default=128),
            width=a.integer("d_model", default=1280),
            num_layers=a.integer("encoder_layers", "num_hidden_layers", default=32, high=1024),
            num_heads=a.integer("encoder_attention_heads", default=20),
            ffn_width=a.integer("encoder_ffn_dim", default=5120),
            window_frames=a.integer("n_window", default=100),
            out_width=a.integer("output_dim", default=3584),
        ),
        vision=cfg.VisionConfig(
            depth=v.integer("depth", default=32, high=1024),
            # older files say embed_dim beside hidden_size; the class default of hidden_size (3584) is no tower's width
            width=v.integer("hidden_size", "embed_dim", default=3584),
            ffn_width=v.integer("intermediate_size", default=3420),
            num_heads=v.integer("num_heads", default=16),
            in_channels=v.integer("in_channels", "in_chans", default=3),
            patch=v.integer("patch_size", "spatial_patch_size", default=14),
            merge=v.integer("spatial_merge_size", default=2),
            temporal_patch=v.integer("temporal_patch_size", default=2),
            window=v.integer("window_size", default=112),
            out_width=v.integer("out_hidden_size", default=3584),
            full_attention_layers=v.integers("fullatt_block_indexes", (7, 15, 23, 31)),
        ),
        text=_decoder(t, vocab=152064, width=3584, layers=28, heads=28, kv=4, tied=True),
        ids=cfg.TokenIds(
            **{ours: s.integer(key, default=getattr(default, ours), low=0) for ours, key in TOKEN_KEYS.items()}
        ),
        positions_per_second=s.integer("position_id_per_seconds", default=25),
        chunk_seconds=s.integer("seconds_per_chunk", default=2),
    )  # fmt: skip


def _decoder(
    s: _Section, *, vocab: int, width: int, layers: int, heads: int, kv: int, tied: bool, head_dim: int | None = None
) -> cfg.DecoderConfig:  # fmt: skip
    s.expect("hidden_act", "silu")
    s.expect("use_sliding_window", False)
    width = s.integer("hidden_size", default=width)
    heads = s.integer("num_attention_heads", default=heads)
    rope = s.section("rope_parameters" if "rope_parameters" in s else "rope_scaling")
    for key in ("rope_type", "type"):
        rope.expect(key, "default", "mrope")
    sections = rope.integers("mrope_section")
    if len(sections) != 3:
        raise ConfigError(
            f"{rope.where}.mrope_section: is {list(sections)}, expected three numbers: time, height, width"
        )
    base = rope if "rope_theta" in rope else s
    return cfg.DecoderConfig(
        vocab_size=s.integer("vocab_size", default=vocab),
        width=width,
        ffn_width=s.integer("intermediate_size", default=18944),
        num_layers=s.integer("num_hidden_layers", default=layers, high=1024),
        num_heads=heads,
        num_kv_heads=s.integer("num_key_value_heads", default=kv),
        head_dim=s.integer("head_dim", default=head_dim or width // heads),
        rope_theta=base.number("rope_theta", 1_000_000.0),
        mrope_section=sections,
        norm_eps=s.number("rms_norm_eps", 1e-6),
        max_positions=s.integer("max_position_embeddings", default=32768, high=1 << 30),
        tie_embeddings=bool(s.values.get("tie_word_embeddings", tied)),
    )


def _talker(s: _Section) -> cfg.TalkerConfig:
    default = cfg.TalkerConfig.__dataclass_fields__
    ids = {
        ours: s.integer(key, default=default[ours].default, low=0)
        for ours, key in TALKER_KEYS.items()
    }
    decoder = _decoder(
        s, vocab=8448, width=3584, layers=28, heads=28, kv=4, tied=False, head_dim=128
    )
    return cfg.TalkerConfig(
        input_width=s.integer("embedding_size", default=3584), decoder=decoder, **ids
    )


def _code2wav(s: _Section) -> cfg.Code2WavConfig:
    d, b = s.section("dit_config"), s.section("bigvgan_config")
    dit, voc, spk = cfg.DiTConfig(), cfg.BigVGANConfig(), cfg.SpeakerEncoderConfig()
    rope = d.section("rope_parameters") if "rope_parameters" in d else d
    dilations = b.values.get("resblock_dilation_sizes") or voc.resblock_dilations
    if not isinstance(dilations, (list, tuple)) or not all(
        isinstance(row, (list, tuple)) for row in dilations
    ):
        raise ConfigError(
            f"{b.where}.resblock_dilation_sizes: is {dilations!r:.60}, expected lists of whole numbers"
        )
    return cfg.Code2WavConfig(
        dit=cfg.DiTConfig(
            width=d.integer("dim", "hidden_size", default=dit.width),
            num_layers=d.integer("depth", "num_hidden_layers", default=dit.num_layers, high=1024),
            num_heads=d.integer("heads", "num_attention_heads", default=dit.num_heads),
            head_dim=d.integer("head_dim", default=dit.head_dim),
            ffn_mult=d.integer("ff_mult", default=dit.ffn_mult),
            code_width=d.integer("emb_dim", default=dit.code_width),
            num_codes=d.integer("num_embeds", default=dit.num_codes),
            repeats=d.integer("repeats", default=dit.repeats),
            num_mels=d.integer("mel_dim", default=dit.num_mels),
            block_frames=d.integer("block_size", default=dit.block_frames),
            look_ahead_layers=d.integers("look_ahead_layers", dit.look_ahead_layers),
            look_backward_layers=d.integers("look_backward_layers", dit.look_backward_layers),
            rope_theta=rope.number("rope_theta", dit.rope_theta),
            max_positions=d.integer("max_position_embeddings", default=dit.max_positions, high=1 << 30),
            speaker_width=d.integer("enc_emb_dim", default=dit.speaker_width),
            speaker=cfg.SpeakerEncoderConfig(
                out_width=d.integer("enc_dim", default=spk.out_width),
                channels=d.integers("enc_channels", spk.channels, low=1),
                kernels=d.integers("enc_kernel_sizes", spk.kernels, low=1),
                dilations=d.integers("enc_dilations", spk.dilations, low=1),
                attention_channels=d.integer("enc_attention_channels", default=spk.attention_channels),
                res2net_scale=d.integer("enc_res2net_scale", default=spk.res2net_scale),
                se_channels=d.integer("enc_se_channels", default=spk.se_channels),
            ),
        ),
        vocoder=cfg.BigVGANConfig(
            num_mels=b.integer("mel_dim", default=voc.num_mels),
            initial_channels=b.integer("upsample_initial_channel", default=voc.initial_channels),
            upsample_rates=b.integers("upsample_rates", voc.upsample_rates, low=1),
            upsample_kernels=b.integers("upsample_kernel_sizes", voc.upsample_kernels, low=1),
            resblock_kernels=b.integers("resblock_kernel_sizes", voc.resblock_kernels, low=1),
            resblock_dilations=tuple(
                _Section({"row": list(row)}, f"{b.where}.resblock_dilation_sizes").integers("row", low=1)
                for row in dilations
            ),
        ),
        sample_rate=s.integer("sample_rate", default=24_000),
    )  # fmt: skip


def _wav2code(s: _Section) -> cfg.Wav2CodeConfig:
    return cfg.Wav2CodeConfig(
        num_mels=s.integer("num_mels", default=128),
        width=s.integer("width"),
        num_layers=s.integer("num_layers", high=1024),
        num_heads=s.integer("num_heads"),
        ffn_width=s.integer("ffn_width"),
        block_frames=s.integer("block_frames", default=200),
        pool=s.integer("pool", default=2),
        levels=s.integers("levels", (8, 5, 5, 5), low=2),
        choices=s.integer("choices", default=0, low=0),
        first_code=s.integer("first_code", default=1, low=0),
    )


def _front_ends(raw: dict[str, dict[str, Any]]) -> tuple[cfg.MelConfig, cfg.VisualConfig]:
    """Processor settings: preprocessor_config.json is flat, processor_config.json (newer) nests one object a modality."""
    flat = _Section(raw.get("preprocessor_config.json", {}), "preprocessor_config.json")
    nested = _Section(raw.get("processor_config.json", {}), "processor_config.json")
    image = nested.section("image_processor") if "image_processor" in nested else flat
    audio = nested.section("feature_extractor") if "feature_extractor" in nested else flat
    mel, visual = cfg.MelConfig(), cfg.VisualConfig()
    size = image.section("size")
    ours = flat.section("thinktalk")
    colours = {}
    for name in ("image_mean", "image_std"):
        values = image.values.get(name, getattr(visual, name))
        if not isinstance(values, (list, tuple)) or len(values) != 3:
            raise ConfigError(f"{image.where}.{name}: is {values!r:.60}, expected three numbers")
        colours[name] = tuple(_Section({name: v}, image.where).number(name, 0.0) for v in values)
    pixels = {
        name: image.integer(name, high=1 << 40) if name in image
        else size.integer(edge, default=getattr(visual, name), high=1 << 40)
        for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
    }  # fmt: skip
    video = {
        f.name: ours.number(f.name, f.default) for f in fields(cfg.VisualConfig) if f.name.startswith("video_")
    }  # fmt: skip
    return (
        cfg.MelConfig(
            sample_rate=audio.integer("sampling_rate", default=mel.sample_rate),
            n_fft=audio.integer("n_fft", default=mel.n_fft),
            hop=audio.integer("hop_length", default=mel.hop),
            num_mels=audio.integer("feature_size", default=mel.num_mels),
        ),
        cfg.VisualConfig(**pixels, **colours, **video),
    )


def _generation(s: _Section) -> cfg.GenerationConfig:
    """Only the prefixed keys count: the reference gives its plain ones to no part."""
    values = {}
    for field in fields(cfg.GenerationConfig):
        value = s.values.get(GENERATION_KEYS[field.name], field.default)
        kind = type(field.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(
                f"{s.where}.{GENERATION_KEYS[field.name]}: is {value!r:.60}, expected {kind.__name__}"
            )
        values[field.name] = value
    if values["flow_method"] not in METHODS:
        raise ConfigError(f"{s.where}.{GENERATION_KEYS['flow_method']}: is {values['flow_method']!r:.60}, expected one of {', '.join(METHODS)}")  # fmt: skip
    return cfg.GenerationConfig(**values)
