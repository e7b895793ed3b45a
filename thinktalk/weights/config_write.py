"""OmniConfig to config.json and its neighbours, in the official key style, which every version of transformers reads.

Keys of the source checkpoint that we do not model are kept. dit_config carries its sizes under both spellings, since
transformers 5 silently ignores the official one.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from thinktalk import config as cfg
from thinktalk.weights.config_read import (
    GENERATION_KEYS,
    OMNI,
    TALKER_KEYS,
    THINKER_ONLY,
    TOKEN_KEYS,
)
from thinktalk.weights.store import atomic_write

__all__ = ["config_to_json", "write_config"]


def write_config(
    config: cfg.OmniConfig, directory: str | Path, *, base: dict[str, dict[str, Any]] | None = None, dtype: str = "bfloat16"
) -> None:  # fmt: skip
    """Write config.json, preprocessor_config.json and generation_config.json; `base` (read_raw) keeps what we do not model."""
    for name, values in config_to_json(config, base=base, dtype=dtype).items():
        atomic_write(
            Path(directory) / name, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
        )


def config_to_json(
    config: cfg.OmniConfig,
    *,
    base: dict[str, dict[str, Any]] | None = None,
    dtype: str = "bfloat16",
) -> dict[str, dict[str, Any]]:
    """The files of `write_config` as objects."""
    t, k, c, mel, visual = config.thinker, config.talker, config.code2wav, config.mel, config.visual
    ids = {key: getattr(t.ids, ours) for ours, key in TOKEN_KEYS.items()}
    shared = {
        key: value
        for key, value in ids.items()
        if key.endswith("index") or "start" in key or "end_token" in key
    }
    times = {
        "position_id_per_seconds": t.positions_per_second,
        "seconds_per_chunk": t.chunk_seconds,
    }
    main: dict[str, Any] = {
        "architectures": ["Qwen2_5OmniModel"], "model_type": OMNI, "torch_dtype": dtype,
        "enable_audio_output": k is not None, "enable_talker": k is not None,
        "thinker_config": {
            **ids, **times, "model_type": THINKER_ONLY, "torch_dtype": dtype,
            "audio_config": {
                "model_type": "qwen2_5_omni_audio_encoder", "activation_function": "gelu", "max_source_positions": 1500,
                "num_mel_bins": t.audio.num_mels, "d_model": t.audio.width, "encoder_layers": t.audio.num_layers,
                "num_hidden_layers": t.audio.num_layers, "encoder_attention_heads": t.audio.num_heads,
                "encoder_ffn_dim": t.audio.ffn_width, "n_window": t.audio.window_frames, "output_dim": t.audio.out_width,
            },
            "vision_config": {
                "model_type": "qwen2_5_omni_vision_encoder", "hidden_act": "silu", "depth": t.vision.depth,
                "hidden_size": t.vision.width, "embed_dim": t.vision.width, "intermediate_size": t.vision.ffn_width,
                "num_heads": t.vision.num_heads, "in_channels": t.vision.in_channels, "in_chans": t.vision.in_channels,
                "patch_size": t.vision.patch, "spatial_patch_size": t.vision.patch,
                "spatial_merge_size": t.vision.merge, "temporal_patch_size": t.vision.temporal_patch,
                "window_size": t.vision.window, "out_hidden_size": t.vision.out_width,
                "fullatt_block_indexes": list(t.vision.full_attention_layers),
                "tokens_per_second": t.positions_per_second,
            },
            "text_config": {"model_type": "qwen2_5_omni_text", **_decoder_json(t.text)},
        },
    }  # fmt: skip
    if t.text.head_dim * t.text.num_heads != t.text.width:
        main["thinker_config"]["text_config"]["head_dim"] = t.text.head_dim
    if t.text.tie_embeddings:  # transformers asks the Thinker, not its text
        main["thinker_config"]["tie_word_embeddings"] = True
    if k is not None:
        main["talker_config"] = {
            **_decoder_json(k.decoder), **shared, **times, "model_type": "qwen2_5_omni_talker", "torch_dtype": dtype,
            "embedding_size": k.input_width, "head_dim": k.decoder.head_dim, "spatial_merge_size": t.vision.merge,
            **{key: getattr(k, ours) for ours, key in TALKER_KEYS.items()},
        }  # fmt: skip
    if c is not None:
        main["token2wav_config"] = _code2wav_json(c)
    if (
        w := config.wav2code
    ) is not None:  # ours: the official checkpoints have no speech tokenizer
        main["wav2code_config"] = {f.name: getattr(w, f.name) for f in fields(w)}
        main["wav2code_config"]["levels"] = list(w.levels)
    pre = {
        "processor_class": "Qwen2_5OmniProcessor", "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor", "feature_size": mel.num_mels, "sampling_rate": mel.sample_rate,
        "n_fft": mel.n_fft, "hop_length": mel.hop, "chunk_length": 300, "n_samples": 300 * mel.sample_rate,
        "nb_max_frames": 300 * mel.frames_per_second, "padding_value": 0.0, "padding_side": "right",
        "return_attention_mask": True, "dither": 0.0, "min_pixels": visual.min_pixels, "max_pixels": visual.max_pixels,
        "size": {"shortest_edge": visual.min_pixels, "longest_edge": visual.max_pixels},
        "image_mean": list(visual.image_mean), "image_std": list(visual.image_std), "patch_size": t.vision.patch,
        "merge_size": t.vision.merge, "temporal_patch_size": t.vision.temporal_patch,
        "thinktalk": {f.name: getattr(visual, f.name) for f in fields(visual) if f.name.startswith("video_")},
    }  # fmt: skip
    generation = {key: getattr(config.generation, ours) for ours, key in GENERATION_KEYS.items()}
    generation |= {"eos_token_id": [t.ids.im_end, t.ids.pad], "pad_token_id": t.ids.pad}
    made = {
        "config.json": main,
        "preprocessor_config.json": pre,
        "generation_config.json": generation,
    }
    for name, values in (base or {}).items():
        made[name] = _merge(values, made[name]) if name in made else values
    return made


def _decoder_json(d: cfg.DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": d.vocab_size, "hidden_size": d.width, "intermediate_size": d.ffn_width,
        "num_hidden_layers": d.num_layers, "num_attention_heads": d.num_heads, "num_key_value_heads": d.num_kv_heads,
        "max_position_embeddings": d.max_positions, "rms_norm_eps": d.norm_eps, "rope_theta": d.rope_theta,
        "rope_scaling": {"mrope_section": list(d.mrope_section), "rope_type": "default", "type": "default"},
        "hidden_act": "silu", "use_sliding_window": False, "tie_word_embeddings": d.tie_embeddings,
    }  # fmt: skip


def _code2wav_json(c: cfg.Code2WavConfig) -> dict[str, Any]:
    d, v, s = c.dit, c.vocoder, c.dit.speaker
    return {
        "model_type": "qwen2_5_omni_token2wav", "sample_rate": c.sample_rate,
        "dit_config": {
            "model_type": "qwen2_5_omni_dit", "torch_dtype": "float32", "dropout": 0.1,
            "dim": d.width, "depth": d.num_layers, "heads": d.num_heads,  # the official names, then transformers 5's
            "hidden_size": d.width, "num_hidden_layers": d.num_layers, "num_attention_heads": d.num_heads,
            "head_dim": d.head_dim, "ff_mult": d.ffn_mult, "emb_dim": d.code_width, "num_embeds": d.num_codes,
            "repeats": d.repeats, "mel_dim": d.num_mels, "block_size": d.block_frames,
            "look_ahead_layers": list(d.look_ahead_layers), "look_backward_layers": list(d.look_backward_layers),
            "rope_theta": d.rope_theta, "max_position_embeddings": d.max_positions, "enc_emb_dim": d.speaker_width,
            "enc_dim": s.out_width, "enc_channels": list(s.channels), "enc_kernel_sizes": list(s.kernels),
            "enc_dilations": list(s.dilations), "enc_attention_channels": s.attention_channels,
            "enc_res2net_scale": s.res2net_scale, "enc_se_channels": s.se_channels,
        },
        "bigvgan_config": {
            "model_type": "qwen2_5_omni_bigvgan", "mel_dim": v.num_mels, "upsample_initial_channel": v.initial_channels,
            "upsample_rates": list(v.upsample_rates), "upsample_kernel_sizes": list(v.upsample_kernels),
            "resblock_kernel_sizes": list(v.resblock_kernels),
            "resblock_dilation_sizes": [list(row) for row in v.resblock_dilations],
        },
    }  # fmt: skip


_NEWER_STYLE = ("rope_parameters", "dtype", "layer_types", "_from_model_config")
"""Keys of transformers 5 that the official ones we write replace; the last makes it forget generation settings."""


def _merge(base: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """`ours` over `base`, object by object; keys that only `base` has are kept."""
    merged = {key: value for key, value in base.items() if key not in _NEWER_STYLE}
    for key, value in ours.items():
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if nested else value
    return merged
