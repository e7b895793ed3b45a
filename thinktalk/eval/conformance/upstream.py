"""Hugging Face transformers as an Implementation: its own model with small random weights, overheard by hooks.

The only module of thinktalk that imports transformers, and only once it is asked: the extra `parity` installs it.
Written against 5.23. Where an older version has another interface, that invariant is not asked, or says what was raised.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from thinktalk import config as cfg
from thinktalk.errors import ConfigError
from thinktalk.eval.conformance.invariant import DiTAttention, Sampling, Speech
from thinktalk.eval.conformance.layouts import Layout, joined
from thinktalk.eval.conformance.ours import swapped
from thinktalk.eval.conformance.overhearing import overhear
from thinktalk.media.timeline import Video
from thinktalk.weights.config_write import config_to_json

__all__ = ["Upstream"]

CONFIG = cfg.tiny()


class Upstream:
    """The installed transformers. ConfigError where there is none, or one without Qwen2.5-Omni."""

    name = "transformers"
    known = {
        "talker.inputs-alone": "transformers 5 drops a mask of ones, and its Talker then goes without codec pad and bos",
        "ids.mixed": "its use_audio_in_video is one flag for all videos of a call",
        "order.rates": "its processor cuts chunks in float64, its model in float32",
    }

    def __init__(self) -> None:
        try:
            self.version = version("transformers")
            from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as modeling
            from transformers.models.qwen2_5_omni import processing_qwen2_5_omni as processing
        except (PackageNotFoundError, ImportError) as error:
            raise ConfigError(f'transformers: {error}, expected one with Qwen2.5-Omni; pip install "thinktalk[parity]"') from None  # fmt: skip
        self.modeling: Any = modeling
        self.processing: Any = processing

    @functools.cached_property
    @torch.no_grad()
    def model(self) -> Any:
        """A tiny random model; its biases and norms are no zeros and ones."""
        from transformers import Qwen2_5OmniConfig

        told = config_to_json(CONFIG, dtype="float32")["config.json"]
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = Qwen2_5OmniConfig.from_dict(told)
            model = self.modeling.Qwen2_5OmniForConditionalGeneration(config).eval().float()
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        return model

    def positions(self, layout: Layout) -> tuple[Tensor, int]:
        thinker = self.model.thinker
        owner = thinker.model if hasattr(thinker.model, "get_rope_index") else thinker
        token_ids = layout.token_ids(CONFIG.thinker.ids)[None]
        videos = [(v.grids, 2 * v.rows, 2 * v.columns) for v in layout.videos]
        ids, delta = owner.get_rope_index(
            token_ids,
            torch.tensor(layout.images) if layout.images else None,
            torch.tensor(videos) if videos else None,
            torch.ones_like(token_ids),
            layout.sounding,
            torch.tensor(layout.audio_frames) if layout.audio_frames else None,
            torch.tensor([v.seconds_per_grid for v in layout.videos]) if videos else None,
        )
        return ids[:, 0].long(), int(delta)

    def order(self, video: Video) -> list[tuple[str, int]]:
        processor = self.processing.Qwen2_5OmniProcessor
        if not hasattr(processor, "replace_video_with_audio_token"):
            raise NotImplementedError("its processor writes video and sound elsewhere")
        # the processor without its tokenizer: one letter a token
        stand_in = SimpleNamespace(
            audio_bos_token="", audio_eos_token="", video_token="v", audio_token="a",
            video_processor=SimpleNamespace(merge_size=2),
        )  # fmt: skip
        stand_in.get_chunked_index = functools.partial(processor.get_chunked_index, stand_in)
        text = processor.replace_video_with_audio_token(
            stand_in,
            {
                "video_grid_thw": [(video.grids, 2 * video.rows, 2 * video.columns)],
                "video_second_per_grid": [video.seconds_per_grid],
            },
            0,
            {"num_audio_tokens": [video.audio_tokens]},
            0,
            position_id_per_seconds=CONFIG.thinker.positions_per_second,
            seconds_per_chunk=CONFIG.thinker.chunk_seconds,
        )
        return joined(({"v": "video", "a": "audio"}[letter], 1) for letter in text)

    def audio_tokens(self, mel_frames: int) -> int:
        count = getattr(self.processing, "_get_feat_extract_output_lengths", None)
        if count is None:
            raise NotImplementedError("its processor counts audio tokens elsewhere")
        return int(count(torch.tensor(mel_frames)))

    @torch.no_grad()
    def hear(self, mel: Tensor) -> Tensor:
        tower = self._tower("audio_tower")
        return tower(mel, feature_lens=torch.tensor([mel.shape[1]])).last_hidden_state

    @torch.no_grad()
    def see(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        seen = self._tower("visual")(patches, grid_thw=torch.tensor([grid]))
        return seen if isinstance(seen, Tensor) else seen.pooler_output

    def _tower(self, name: str) -> Any:
        thinker = self.model.thinker
        return getattr(thinker.model, name, None) or getattr(thinker, name)

    def rotate(
        self, x_THK: Tensor, positions_3T: Tensor, sections: tuple[int, int, int], theta: float
    ) -> Tensor:
        table = self.modeling.Qwen2_5OmniRotaryEmbedding
        if hasattr(self.modeling, "apply_multimodal_rotary_pos_emb"):
            raise NotImplementedError(
                "before transformers 5 the sections are a matter of its attention"
            )
        rope = {"rope_type": "default", "rope_theta": theta, "mrope_section": list(sections)}
        K = x_THK.shape[-1]
        config = SimpleNamespace(max_position_embeddings=32768, rope_parameters=rope, head_dim=K)
        cos, sin = table(config)(x_THK[None], positions_3T[:, None])
        q = x_THK.transpose(0, 1)[None]
        return self.modeling.apply_rotary_pos_emb(q, q, cos, sin)[0][0].transpose(0, 1)

    @torch.no_grad()
    def dit_attention(self, codes: int) -> list[DiTAttention]:
        dit = self.model.token2wav.code2wav_dit_model
        generator = torch.Generator().manual_seed(5)
        frames, bands = codes * dit.repeats, dit.mel_dim
        given: list[Tensor] = []
        made: list[Tensor] = []
        hooks = []
        for block in dit.transformer_blocks:
            hooks.append(
                block.attn.register_forward_pre_hook(
                    lambda _, args, more: given.append(more["hidden_states"]), with_kwargs=True
                )
            )
            hooks.append(
                block.attn.to_out[0].register_forward_pre_hook(lambda _, args: made.append(args[0]))
            )
        try:
            dit(
                hidden_states=torch.randn(1, frames, bands, generator=generator),
                quantized_code=torch.arange(codes)[None],
                speaker_embedding=torch.randn(1, 1, 192, generator=generator).expand(
                    1, frames, 192
                ),
                condition_vector=torch.randn(1, 40, bands, generator=generator),
                time_step=torch.tensor(0.4),
            )
        finally:
            for hook in hooks:
                hook.remove()
        return [
            DiTAttention(
                layer=n, back=bool(block.look_backward_block), ahead=bool(block.look_ahead_block), block_frames=dit.block_size,
                x_FD=x[0], heads_FHK=heads[0].unflatten(-1, (block.attn.heads, -1)),
                **{name: (m.weight, m.bias) for name, m in (("q", block.attn.to_q), ("k", block.attn.to_k), ("v", block.attn.to_v))},
            )
            for n, (block, x, heads) in enumerate(zip(dit.transformer_blocks, given, made, strict=True))
        ]  # fmt: skip

    @torch.no_grad()
    def speech(self, *, padded: bool) -> Speech:
        with _quiet():
            return overhear(self.model, CONFIG, padded=padded)

    def probabilities(self, logits_BV: Tensor, said_BT: Tensor, sampling: Sampling) -> Tensor:
        talker = self.model.talker
        config, _ = talker._prepare_generation_config(
            None, do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty, suppress_tokens=list(sampling.suppress),
        )  # fmt: skip
        steps = talker._get_logits_processor(config, input_ids_seq_length=said_BT.shape[1], device="cpu")  # fmt: skip
        return steps(said_BT, logits_BV.clone()).softmax(-1)

    def flow_times(self) -> list[float]:
        dit = self.model.token2wav.code2wav_dit_model
        asked: list[float] = []

        def overheard(hidden_states: Tensor, time_step: Tensor, **_: Any) -> Tensor:
            asked.append(float(time_step))
            return torch.zeros_like(hidden_states).repeat(2, 1, 1)

        with torch.random.fork_rng(devices=[]), swapped(dit, "forward", overheard):
            dit.sample(
                torch.zeros(1, 192),
                torch.zeros(1, 10, dit.mel_dim),
                torch.zeros(1, 2, dtype=torch.long),
            )
        return asked

    @contextmanager
    def planted(self, plant: str) -> Iterator[None]:
        if plant == "dit-rope":
            table = self.modeling.Qwen2_5OmniDiTRotaryEmbedding
            right = table.forward

            def half_order(module: Any, *args: Any, **more: Any) -> tuple[Tensor, ...]:
                # read at every other place, as interleaved pairs would read a table in half order
                return tuple(torch.cat((t[..., ::2], t[..., 1::2]), -1) for t in right(module, *args, **more))  # fmt: skip

            with swapped(table, "forward", half_order):
                yield
        else:
            owner = type(self.model.thinker.model)
            index = owner.get_rope_index

            def late(
                module: Any, token_ids: Tensor, *args: Any, **more: Any
            ) -> tuple[Tensor, Tensor]:
                ids, delta = index(module, token_ids, *args, **more)
                if args[3]:  # use_audio_in_video
                    ids = ids + _within_video(token_ids)
                return ids, delta

            with swapped(owner, "get_rope_index", late):
                yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its warnings, of its own default token ids and of sampling settings of a greedy call."""
    from transformers.utils import logging

    loud = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(loud)


def _within_video(token_ids: Tensor) -> Tensor:
    """Where the sound of a video stands."""
    special = CONFIG.thinker.ids
    depth = (token_ids == special.vision_bos).cumsum(-1) - (token_ids == special.vision_eos).cumsum(-1)  # fmt: skip
    return (depth > 0) & (token_ids == special.audio)
