"""The reference: a tiny random Qwen2.5-Omni made and run by Hugging Face transformers, in the official layout on disk.

`tiny_reference()` gives the transformers model; `part_weights(model, part)` gives its tensors under our names.
Its vocoder is redrawn so that codes, voice and noise move the wave: default tiny weights ignore their input.
"""

from __future__ import annotations

import functools

import torch
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from thinktalk import config as cfg
from thinktalk.weights.names import our_name


def reference_config(config: cfg.OmniConfig) -> Qwen2_5OmniConfig:
    """Our configuration in transformers' keys (the newer style), without help from weights/hf.py."""
    t, a, v, i = (
        config.thinker.text,
        config.thinker.audio,
        config.thinker.vision,
        config.thinker.ids,
    )
    k, c = config.talker, config.code2wav
    assert k is not None and c is not None
    ids = dict(
        audio_token_index=i.audio, image_token_index=i.image, video_token_index=i.video,
        audio_start_token_id=i.audio_bos, audio_end_token_id=i.audio_eos,
        vision_start_token_id=i.vision_bos, vision_end_token_id=i.vision_eos,
    )  # fmt: skip

    def decoder(d: cfg.DecoderConfig) -> dict:
        rope = dict(
            rope_type="default", rope_theta=d.rope_theta, mrope_section=list(d.mrope_section)
        )
        return dict(
            vocab_size=d.vocab_size, hidden_size=d.width, intermediate_size=d.ffn_width, num_hidden_layers=d.num_layers,
            num_attention_heads=d.num_heads, num_key_value_heads=d.num_kv_heads, rope_parameters=rope,
            max_position_embeddings=d.max_positions, rms_norm_eps=d.norm_eps, tie_word_embeddings=d.tie_embeddings,
            initializer_range=0.1,
        )  # fmt: skip

    dit, voc, spk = c.dit, c.vocoder, c.dit.speaker
    return Qwen2_5OmniConfig(
        thinker_config=dict(
            audio_config=dict(
                d_model=a.width, encoder_layers=a.num_layers, encoder_attention_heads=a.num_heads,
                encoder_ffn_dim=a.ffn_width, num_mel_bins=a.num_mels, n_window=a.window_frames,
                max_source_positions=1500, output_dim=a.out_width,
            ),
            vision_config=dict(
                depth=v.depth, hidden_size=v.width, intermediate_size=v.ffn_width, num_heads=v.num_heads,
                in_channels=v.in_channels, patch_size=v.patch, spatial_merge_size=v.merge,
                temporal_patch_size=v.temporal_patch, window_size=v.window, out_hidden_size=v.out_width,
                fullatt_block_indexes=list(v.full_attention_layers),
            ),
            text_config=decoder(t),
            position_id_per_seconds=config.thinker.positions_per_second, seconds_per_chunk=config.thinker.chunk_seconds,
            user_token_id=i.user, bos_token_id=i.im_start, eos_token_id=i.im_end, pad_token_id=i.pad,
            vision_token_id=i.vision_pad, initializer_range=0.1, **ids,
        ),
        talker_config=dict(
            decoder(k.decoder), embedding_size=k.input_width, head_dim=k.decoder.head_dim,
            tts_text_pad_token_id=k.text_pad, tts_text_start_token_id=k.text_start, tts_text_end_token_id=k.text_end,
            tts_codec_pad_token_id=k.codec_pad, tts_codec_start_token_id=k.codec_bos,
            tts_codec_end_token_id=k.codec_eos, tts_codec_mask_token_id=k.codec_mask, spatial_merge_size=v.merge,
            position_id_per_seconds=config.thinker.positions_per_second, seconds_per_chunk=config.thinker.chunk_seconds,
            **ids,
        ),
        token2wav_config=dict(
            dit_config=dict(
                hidden_size=dit.width, num_hidden_layers=dit.num_layers, num_attention_heads=dit.num_heads,
                head_dim=dit.head_dim, ff_mult=dit.ffn_mult, emb_dim=dit.code_width, block_size=dit.block_frames,
                look_ahead_layers=list(dit.look_ahead_layers), look_backward_layers=list(dit.look_backward_layers),
                repeats=dit.repeats, num_embeds=dit.num_codes, mel_dim=dit.num_mels, dropout=0.1,
                enc_emb_dim=dit.speaker_width, enc_dim=spk.out_width, enc_channels=list(spk.channels),
                enc_kernel_sizes=list(spk.kernels), enc_dilations=list(spk.dilations),
                enc_attention_channels=spk.attention_channels, enc_res2net_scale=spk.res2net_scale,
                enc_se_channels=spk.se_channels, initializer_range=0.1,
            ),
            bigvgan_config=dict(
                mel_dim=voc.num_mels, upsample_initial_channel=voc.initial_channels,
                resblock_kernel_sizes=list(voc.resblock_kernels),
                resblock_dilation_sizes=[list(d) for d in voc.resblock_dilations],
                upsample_rates=list(voc.upsample_rates), upsample_kernel_sizes=list(voc.upsample_kernels),
            ),
        ),
        enable_audio_output=True,
    )  # fmt: skip


@torch.no_grad()
def redraw(model: Qwen2_5OmniForConditionalGeneration, seed: int) -> None:
    """Weights with which every input matters: noisy norms and biases, a vocoder of unit gain."""
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    generator = torch.Generator().manual_seed(seed + 2)
    for name, parameter in model.token2wav.named_parameters():
        if parameter.ndim >= 2:
            fan_in = (
                parameter[0].numel()
                if "ups." not in name
                else parameter.shape[0] * parameter.shape[-1] // 2
            )
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        if name.endswith("codec_embed.weight"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.token2wav.code2wav_dit_model.proj_out.weight.mul_(3.0)
    model.token2wav.code2wav_bigvgan_model.conv_post.weight.mul_(0.015)


def make_reference(config: cfg.OmniConfig, seed: int = 0) -> Qwen2_5OmniForConditionalGeneration:
    """A random transformers model of this configuration, float32, eval."""
    torch.manual_seed(seed)
    model = Qwen2_5OmniForConditionalGeneration(reference_config(config)).eval().float()
    redraw(model, seed)
    return model


@functools.cache
def tiny_reference() -> Qwen2_5OmniForConditionalGeneration:
    """The shared tiny reference; treat it as read-only."""
    return make_reference(cfg.tiny())


def official_state_dict(model: Qwen2_5OmniForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The model's tensors under the names it writes to disk."""
    out = {}
    for name, tensor in model.state_dict().items():
        # transformers 5 nests the thinker in memory and renames on save (its conversion_mapping.py)
        name = name.replace("thinker.model.audio_tower.", "thinker.audio_tower.")
        name = name.replace("thinker.model.visual.", "thinker.visual.")
        name = name.replace("thinker.model.language_model.", "thinker.model.")
        out[name] = tensor
    return out


def part_weights(model: Qwen2_5OmniForConditionalGeneration, part: str) -> dict[str, torch.Tensor]:
    """One part's tensors under our names ("audio", "vision", "thinker", "talker", "dit", "vocoder")."""
    out = {}
    for name, tensor in official_state_dict(model).items():
        found = our_name(name)
        assert found is not None, f"no rule for {name}"
        if found[0] == part:
            out[found[1]] = tensor.flatten(1) if found[1] == "patch_embed.weight" else tensor
    return out
