"""What a checkpoint is: its parts, sizes, rates, voices and the windows that set its latency; read from headers alone.

directory -> config + safetensors headers -> plain values for `thinktalk inspect`
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from thinktalk import config as cfg
from thinktalk.code2wav.bigvgan import receptive_field
from thinktalk.errors import ThinktalkError
from thinktalk.weights.assign import Assignment
from thinktalk.weights.config_read import read_config
from thinktalk.weights.files import DTYPES
from thinktalk.weights.model import PARTS, build
from thinktalk.weights.voices import DEFAULT, load_voices

__all__ = ["inspect_report"]

_KINDS = {dtype: name for name, dtype in DTYPES.items()}


def inspect_report(directory: str | Path) -> dict[str, Any]:
    """Plain values: `model`, `parts`, `parameters`, `bytes`, `rates`, `windows`, `context`, `voices`, `faults`.

    `faults` lists in one line each what would stop the checkpoint from loading. WeightsError or ConfigError when not even
    its configuration can be read.
    """
    directory = Path(directory)
    config = read_config(directory)
    model = build(config)
    faults: list[str] = []
    parts: dict[str, Any] = {}
    files: set[str] = set()
    for part in model.parts:  # one after the other: a missing shard of one leaves the others to see
        alone = build(config, (part,))
        try:
            assignment = Assignment.open(directory, alone)
            parts[part] = _part(assignment, part)
            files |= {assignment.files[name].path.name for name in assignment.files}
            assignment.check()
        except ThinktalkError as error:
            faults.append(f"{part}: {error}")
    voices = {}
    if "code2wav" in model.parts:
        try:
            voices = {
                name: {"bos_token": voice.bos_token, "ref_mel_frames": voice.ref_mel.shape[1]}
                for name, voice in load_voices(directory, config).items()
                if name != DEFAULT or voice.name == DEFAULT
            }
        except ThinktalkError as error:
            faults.append(f"voices: {error}")
    return {
        "path": str(directory),
        "model": _preset(config),
        "parts": parts,
        "parameters": sum(part["parameters"] for part in parts.values()),
        "bytes": sum(part["bytes"] for part in parts.values()),
        "files": len(files),
        "rates": _rates(config),
        "windows": _windows(config),
        "context": {
            "tokens": config.thinker.text.max_positions,
            "vocabulary": config.thinker.text.vocab_size,
            "key_value_bytes_per_token": _key_value_bytes(config),
        },
        "voices": voices,
        "faults": faults,
    }


def _part(assignment: Assignment, part: str) -> dict[str, Any]:
    stages, dtypes, bytes_ = {}, {}, 0
    for stage in PARTS[part]:
        count = 0
        for key, name in assignment.names[stage].items():
            entry = assignment.files[name]
            kind, bytes_ = _KINDS[entry.dtype], bytes_ + entry.nbytes
            dtypes[kind] = dtypes.get(kind, 0) + entry.nbytes
            if not key.endswith(".scale"):
                count += entry.nbytes // entry.dtype.itemsize
        stages[stage] = count
    return {
        "parameters": sum(stages.values()),
        "bytes": bytes_,
        "bytes_by_dtype": dtypes,
        "stages": stages,
    }


def _preset(config: cfg.OmniConfig) -> str:
    """The name of a known configuration; generation defaults and pixel budgets aside."""
    bare = replace(config, generation=cfg.GenerationConfig(), visual=cfg.VisualConfig())
    for name, preset in (
        ("Qwen2.5-Omni-7B", cfg.omni_7b()), ("Qwen2.5-Omni-3B", cfg.omni_3b()), ("nano", cfg.nano()), ("tiny", cfg.tiny())
    ):  # fmt: skip
        for known in (preset, replace(preset, talker=None, code2wav=None)):
            if bare == replace(known, visual=cfg.VisualConfig()):
                return name if known is preset else f"{name}, text only"
    return "of its own sizes"


def _rates(config: cfg.OmniConfig) -> dict[str, Any]:
    """How many of each a second."""
    audio = config.thinker.audio
    tokens = Fraction(config.mel.frames_per_second * audio.block_tokens, audio.block_frames)
    rates: dict[str, Any] = {
        "hearing_samples": config.mel.sample_rate,
        "hearing_mel_frames": config.mel.frames_per_second,
        "audio_tokens": _number(tokens),
        "video_frames": config.visual.video_fps,
        "position_ids": config.thinker.positions_per_second,
    }
    if (c := config.code2wav) is not None:
        rates |= {
            "codes": _number(c.codes_per_second),
            "speech_mel_frames": _number(c.mel_frames_per_second),
            "speech_samples": c.sample_rate,
        }
    return rates


def _windows(config: cfg.OmniConfig) -> dict[str, Any]:
    """What must be waited for: these times bound the latency from below."""
    audio, v = config.thinker.audio, config.thinker.vision
    windows: dict[str, Any] = {
        "hearing_block_ms": _ms(Fraction(audio.block_frames, config.mel.frames_per_second)),
        "video_pair_ms": _ms(Fraction(v.temporal_patch) / Fraction(config.visual.video_fps)),
        "interleave_chunk_ms": 1000 * config.thinker.chunk_seconds,
    }
    c = config.code2wav
    if c is not None:
        # streamed speech hears what the convolutions reach; beyond that is below float32 (docs/streaming.md)
        behind, frames = receptive_field(c.vocoder, snake_reach=0)
        # the vocoder hears `frames` beyond the block, and each block of mel the flow's look-ahead beyond that
        blocks = ceil(Fraction(c.dit.block_frames + frames, c.dit.block_frames)) + len(
            c.dit.look_ahead_layers
        )
        windows |= {
            "speech_block_ms": _ms(c.dit.block_codes / c.codes_per_second),
            "speech_block_codes": c.dit.block_codes,
            "flow_blocks_back": len(c.dit.look_backward_layers),
            "flow_blocks_ahead": len(c.dit.look_ahead_layers),
            "vocoder_frames_back": behind,
            "vocoder_frames_ahead": frames,
            # one evaluation of the flow and the vocoder's context; the solver's compounding is a matter of windows
            "codes_for_first_block": blocks * c.dit.block_codes,
        }
    return windows


def _key_value_bytes(config: cfg.OmniConfig) -> int:
    """Bytes a token of context takes in bfloat16, Thinker and Talker together."""
    decoders = [config.thinker.text] + ([config.talker.decoder] if config.talker else [])
    return sum(2 * 2 * d.num_layers * d.num_kv_heads * d.head_dim for d in decoders)


def _ms(seconds: Fraction) -> int | float:
    return _number(1000 * seconds)


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else round(float(value), 3)
