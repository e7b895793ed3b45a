"""The reference: a tiny random Qwen2.5-Omni made and run by Hugging Face transformers, in the official layout on disk.

`tiny_reference()` gives the transformers model; `part_weights(model, part)` gives its tensors under our names; `reference_answer`
asks any such model.
Its vocoder is redrawn so that codes, voice and noise move the wave: default tiny weights ignore their input.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from thinktalk import config as cfg
from thinktalk.prompt import Prompt
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


class Suppress(LogitsProcessor):
    """Codec ids that the reference's own DiT cannot embed (spec section 11, item 4); the two that end speech stay."""

    def __init__(self, config: cfg.OmniConfig):
        talker, code2wav = config.talker, config.code2wav
        assert talker and code2wav
        ends = (talker.codec_pad, talker.codec_eos)
        self.ids = [k for k in range(code2wav.dit.num_codes, talker.decoder.vocab_size) if k not in ends]  # fmt: skip

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor(self.ids), -torch.inf)


def reference_answer(
    model: Qwen2_5OmniForConditionalGeneration, config: cfg.OmniConfig, prompts: Sequence[Prompt], voice: str,
    noises: Sequence[torch.Tensor], *, max_text: int, max_codes: int, pcm: Sequence[np.ndarray] = (), images: Sequence[Image] = (),
    videos: Sequence[Any] = (), use_audio_in_video: bool = False, padding: int = 1,
) -> list[tuple[list[int], list[int], np.ndarray]]:  # fmt: skip
    """transformers' own generate on prompts, greedy, with its own feature extractors: (text ids, codes, wave) a row.

    `padding`: pad tokens before the longest row; without one transformers 5 drops the mask.
    """
    stops = [config.thinker.ids.im_end, config.thinker.ids.pad]
    talker = config.talker
    assert talker is not None
    ids = [p.token_ids for p in prompts]
    width = max(map(len, ids)) + padding
    pad = torch.nn.functional.pad
    rows = [pad(i, (width - len(i), 0), value=config.thinker.ids.pad) for i in ids]
    mask = [pad(torch.ones_like(i), (width - len(i), 0)) for i in ids]
    inputs = {"input_ids": torch.stack(rows), "attention_mask": torch.stack(mask)}
    if pcm:
        extractor = WhisperFeatureExtractor(feature_size=128, sampling_rate=16000, hop_length=160, n_fft=400, chunk_length=300)  # fmt: skip
        features = extractor(pcm, sampling_rate=16000, padding="max_length", return_attention_mask=True, return_tensors="pt")  # fmt: skip
        inputs["input_features"] = features["input_features"]
        inputs["feature_attention_mask"] = features["attention_mask"].to(torch.int32)
    if images:
        processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056})
        seen = processor(images=images, return_tensors="pt")
        inputs["thinker_pixel_values"] = seen["pixel_values"]
        inputs["image_grid_thw"] = seen["image_grid_thw"]
    if videos:  # patches of videos: the very same frames; their own parity is test_parity_image.py
        inputs["thinker_pixel_values_videos"] = torch.cat([patches for patches, _, _ in videos])
        inputs["video_grid_thw"] = torch.tensor([grid for _, grid, _ in videos])
        inputs["video_second_per_grid"] = torch.tensor([seconds for _, _, seconds in videos])
    codes: list[torch.Tensor] = []
    original_randn, original_forward = torch.randn, model.token2wav.forward

    def recording_forward(code, **kwargs):
        codes.append(code[0])
        torch.randn = lambda *a, **k: noises[len(codes) - 1][None, : 2 * code.shape[1]]
        try:
            return original_forward(code, **kwargs)
        finally:
            torch.randn = original_randn

    model.token2wav.forward = recording_forward
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sequences, waves = model.generate(
                **inputs,
                speaker=voice,
                use_audio_in_video=use_audio_in_video,
                thinker_max_new_tokens=max_text,
                thinker_do_sample=False,
                thinker_eos_token_id=stops,
                talker_max_new_tokens=max_codes,
                talker_do_sample=False,
                talker_eos_token_id=[talker.codec_pad, talker.codec_eos],
                talker_logits_processor=LogitsProcessorList([Suppress(config)]),
            )
    finally:
        model.token2wav.forward = original_forward
    waves = [waves] if torch.is_tensor(waves) else waves
    texts = []
    for row in sequences[:, width:].tolist():
        end = next((k for k, t in enumerate(row) if t in stops), len(row))
        texts.append(row[:end])
    return list(zip(texts, [c.tolist() for c in codes], [w.numpy() for w in waves], strict=True))
