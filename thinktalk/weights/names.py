"""Tensor names: the official checkpoint's against ours, part by part.

A part is one of our modules; its state_dict keys are the clean names on the right. One rule is one tensor family; `#` is a number.
"""

from __future__ import annotations

import functools
import re

__all__ = ["IGNORED", "PARTS", "PART_PREFIXES", "official_name", "our_name"]

_DECODER = {
    "model.embed_tokens": "embed",
    "model.layers.#.input_layernorm": "layers.#.norm1",
    "model.layers.#.post_attention_layernorm": "layers.#.norm2",
    "model.layers.#.self_attn.q_proj": "layers.#.attn.q",
    "model.layers.#.self_attn.k_proj": "layers.#.attn.k",
    "model.layers.#.self_attn.v_proj": "layers.#.attn.v",
    "model.layers.#.self_attn.o_proj": "layers.#.attn.o",
    "model.layers.#.mlp.gate_proj": "layers.#.mlp.gate",
    "model.layers.#.mlp.up_proj": "layers.#.mlp.up",
    "model.layers.#.mlp.down_proj": "layers.#.mlp.down",
    "model.norm": "norm",
}

PARTS: dict[str, dict[str, str]] = {
    "audio": {
        "conv1": "conv1",
        "conv2": "conv2",
        "audio_bos_eos_token": "bos_eos",  # loaded, saved, never used: so it is in the reference
        "layers.#.self_attn_layer_norm": "layers.#.norm1",
        "layers.#.self_attn.q_proj": "layers.#.attn.q",
        "layers.#.self_attn.k_proj": "layers.#.attn.k",
        "layers.#.self_attn.v_proj": "layers.#.attn.v",
        "layers.#.self_attn.out_proj": "layers.#.attn.o",
        "layers.#.final_layer_norm": "layers.#.norm2",
        "layers.#.fc1": "layers.#.mlp.up",
        "layers.#.fc2": "layers.#.mlp.down",
        "ln_post": "norm",
        "proj": "proj",
    },
    "vision": {
        "patch_embed.proj": "patch_embed",  # Conv3d (D, 3, 2, 14, 14) there, Linear (D, 1176) here: the same memory
        "blocks.#.norm1": "layers.#.norm1",
        "blocks.#.norm2": "layers.#.norm2",
        "blocks.#.attn.q": "layers.#.attn.q",
        "blocks.#.attn.k": "layers.#.attn.k",
        "blocks.#.attn.v": "layers.#.attn.v",
        "blocks.#.attn.proj": "layers.#.attn.o",
        "blocks.#.mlp.gate_proj": "layers.#.mlp.gate",
        "blocks.#.mlp.up_proj": "layers.#.mlp.up",
        "blocks.#.mlp.down_proj": "layers.#.mlp.down",
        "merger.ln_q": "merger.norm",
        "merger.mlp.0": "merger.up",
        "merger.mlp.2": "merger.down",
    },
    "thinker": {**_DECODER, "lm_head": "lm_head"},
    "talker": {**_DECODER, "thinker_to_talker_proj": "proj", "codec_head": "head"},
    "dit": {
        "time_embed.time_mlp.0": "time.up",
        "time_embed.time_mlp.2": "time.down",
        "text_embed.codec_embed": "codes",
        "input_embed.proj": "input",
        "input_embed.spk_encoder.blocks.0.conv": "speaker.blocks.0.conv",
        "input_embed.spk_encoder.blocks.#.tdnn1.conv": "speaker.blocks.#.tdnn1.conv",
        "input_embed.spk_encoder.blocks.#.tdnn2.conv": "speaker.blocks.#.tdnn2.conv",
        "input_embed.spk_encoder.blocks.#.res2net_block.blocks.#.conv": "speaker.blocks.#.res2net.#.conv",
        "input_embed.spk_encoder.blocks.#.se_block.conv1": "speaker.blocks.#.se.conv1",
        "input_embed.spk_encoder.blocks.#.se_block.conv2": "speaker.blocks.#.se.conv2",
        "input_embed.spk_encoder.mfa.conv": "speaker.mfa.conv",
        "input_embed.spk_encoder.asp.tdnn.conv": "speaker.pool.tdnn.conv",
        "input_embed.spk_encoder.asp.conv": "speaker.pool.conv",
        "input_embed.spk_encoder.fc": "speaker.fc",
        "transformer_blocks.#.attn_norm.linear": "layers.#.modulation",
        "transformer_blocks.#.attn.to_q": "layers.#.attn.q",
        "transformer_blocks.#.attn.to_k": "layers.#.attn.k",
        "transformer_blocks.#.attn.to_v": "layers.#.attn.v",
        "transformer_blocks.#.attn.to_out.0": "layers.#.attn.o",
        "transformer_blocks.#.ff.ff.0": "layers.#.mlp.up",
        "transformer_blocks.#.ff.ff.3": "layers.#.mlp.down",
        "norm_out.linear": "modulation",
        "proj_out": "output",
    },
    "vocoder": {
        "conv_pre": "conv_pre",
        "ups.#.0": "ups.#",
        "resblocks.#.convs1.#": "resblocks.#.convs1.#",
        "resblocks.#.convs2.#": "resblocks.#.convs2.#",
        "resblocks.#.activations.#.act": "resblocks.#.activations.#",  # .alpha, .beta
        "activation_post.act": "activation_post",  # .alpha, .beta
        "conv_post": "conv_post",
    },
}
"""Official name (without its part's prefix and without .weight, .bias, .alpha, .beta) -> ours."""

PART_PREFIXES = {
    "audio": "thinker.audio_tower.",
    "vision": "thinker.visual.",
    "thinker": "thinker.",
    "talker": "talker.",
    "dit": "token2wav.code2wav_dit_model.",
    "vocoder": "token2wav.code2wav_bigvgan_model.",
}
"""Where each part lives in the official state dict; the longest matching prefix wins."""
_LONGEST_FIRST = sorted(PART_PREFIXES.items(), key=lambda item: -len(item[1]))

IGNORED = (r"token2wav\.code2wav_dit_model\.rotary_embed\.inv_freq",)
"""Tensors that older writers left in the file and that hold nothing learnt."""


def _compile(rules: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (
            re.compile(re.escape(source).replace(r"\#", r"(\d+)") + r"(\.\w+)"),
            target.replace("#", "{}") + "{}",
        )
        for source, target in rules.items()
    ]


_TO_OURS = {part: _compile(rules) for part, rules in PARTS.items()}
_TO_OFFICIAL = {
    part: _compile({ours: theirs for theirs, ours in rules.items()})
    for part, rules in PARTS.items()
}


def _rename(rules: list[tuple[re.Pattern[str], str]], name: str) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return template.format(*match.groups())
    return None


@functools.lru_cache(1 << 13)  # names come back whenever a checkpoint is opened or written
def our_name(official: str) -> tuple[str, str] | None:
    """(part, our name) of an official tensor name, or None when no rule knows it.

    >>> our_name("thinker.model.layers.3.self_attn.q_proj.bias")
    ('thinker', 'layers.3.attn.q.bias')
    """
    for part, prefix in _LONGEST_FIRST:
        if official.startswith(prefix):
            ours = _rename(_TO_OURS[part], official[len(prefix) :])
            return (part, ours) if ours else None
    return None


def official_name(part: str, ours: str) -> str:
    """The official name of tensor `ours` of a part; KeyError when no rule knows it.

    >>> official_name("dit", "layers.0.attn.o.weight")
    'token2wav.code2wav_dit_model.transformer_blocks.0.attn.to_out.0.weight'
    """
    official = _rename(_TO_OFFICIAL[part], ours)
    if official is None:
        raise KeyError(f"no official name for {part}.{ours}")
    return PART_PREFIXES[part] + official
