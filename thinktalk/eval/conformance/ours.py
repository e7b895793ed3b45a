"""thinktalk as an Implementation: its own modules with small random weights, nothing written twice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from thinktalk import config as cfg
from thinktalk import pipeline
from thinktalk.code2wav import dit as dit_module
from thinktalk.code2wav.flow import plan
from thinktalk.encoders.audio import audio_token_count
from thinktalk.eval.conformance.invariant import DiTAttention, Sampling, Speech
from thinktalk.eval.conformance.layouts import TEXT_ID, Layout, joined
from thinktalk.layers.rope import rotary, rotate
from thinktalk.media.timeline import Timeline, Video, interleave, rope_positions
from thinktalk.messages import Embedded
from thinktalk.prompt import Prompt
from thinktalk.thinker.sampling import Sampler
from thinktalk.weights.hf import OmniModel
from thinktalk.weights.random import random_model

__all__ = ["SOUND_FRAMES", "Ours", "speech_layout", "swapped"]

SOUND_FRAMES = 39  # 10 audio tokens
WORDS, CODES = 4, 7


class Ours:
    """This package."""

    name = "thinktalk"
    known: dict[str, str] = {}

    @property
    def version(self) -> str:
        from thinktalk import __version__

        return __version__

    @functools.cached_property
    def model(self) -> OmniModel:
        """A tiny random model of every part."""
        return random_model(cfg.tiny())

    def positions(self, layout: Layout) -> tuple[Tensor, int]:
        return rope_positions(layout.spans)

    def order(self, video: Video) -> list[tuple[str, int]]:
        return joined((run.kind, run.tokens) for run in interleave(video))

    def audio_tokens(self, mel_frames: int) -> int:
        return audio_token_count(mel_frames)

    @torch.inference_mode()
    def hear(self, mel: Tensor) -> Tensor:
        assert self.model.audio is not None
        return self.model.audio.encode([mel])[0]

    @torch.inference_mode()
    def see(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        assert self.model.vision is not None
        return torch.cat(self.model.vision.encode([patches], [grid]))

    def rotate(
        self, x_THK: Tensor, positions_3T: Tensor, sections: tuple[int, int, int], theta: float
    ) -> Tensor:
        turn = rotary(positions_3T[None], sections=sections, theta=theta, dtype=x_THK.dtype)
        return rotate(x_THK[None], turn)[0]

    @torch.inference_mode()
    def dit_attention(self, codes: int) -> list[DiTAttention]:
        dit = self.model.dit
        assert dit is not None
        voice = next(iter(self.model.voices.values()))
        condition = dit.condition([torch.arange(codes)], [voice])
        noise = torch.randn(condition.blocks.frames[0], dit.config.num_mels, generator=torch.Generator().manual_seed(5))  # fmt: skip
        frames, P = len(noise), len(condition.blocks.pack([noise]))
        given: list[Tensor] = []
        made: list[Tensor] = []
        hooks = []
        for layer in dit.layers:
            hooks.append(
                layer.attn.register_forward_pre_hook(lambda _, args: given.append(args[0]))
            )
            hooks.append(
                layer.attn.o.register_forward_pre_hook(lambda _, args: made.append(args[0]))
            )
        try:
            dit(condition.blocks.pack([noise]), dit.modulate(torch.tensor([0.4])).at(0), condition)
        finally:
            for hook in hooks:
                hook.remove()
        return [
            DiTAttention(
                layer=n, back=layer.attn.look_back, ahead=layer.attn.look_ahead, block_frames=dit.config.block_frames,
                x_FD=x[:P].flatten(0, 1)[:frames],
                heads_FHK=heads[:P].flatten(0, 1)[:frames].unflatten(-1, (dit.config.num_heads, -1)),
                q=_linear(layer.attn.q), k=_linear(layer.attn.k), v=_linear(layer.attn.v),
            )
            for n, (layer, x, heads) in enumerate(zip(dit.layers, given, made, strict=True))
        ]  # fmt: skip

    @torch.inference_mode()
    def speech(self, *, padded: bool) -> Speech:
        model, config = self.model, self.model.config
        thinker, talker, settings = model.thinker, model.talker, config.talker
        assert thinker is not None and talker is not None and settings is not None
        voice = next(iter(model.voices.values()))
        token_ids, spans = speech_layout(config.thinker.ids)
        positions, delta = rope_positions(spans)
        sound = torch.randn(128, SOUND_FRAMES, generator=torch.Generator().manual_seed(6))
        prompt = Prompt(token_ids, positions, len(token_ids) + delta, audio=[sound])
        (reading,) = readings = pipeline.embed(model, [prompt])
        options = pipeline.Options(
            generation=cfg.GenerationConfig(max_text_tokens=WORDS, max_codes=CODES), greedy=True
        )
        thinking = pipeline.think(model, readings, options)
        try:
            while True:
                next(thinking)
        except StopIteration as ended:
            thoughts = ended.value
        read: list[Embedded] = []
        step = talker.step

        def overheard(x: Embedded, *args: Any, **more: Any) -> Tensor:
            read.append(x)
            return step(x, *args, **more)

        with swapped(talker, "step", overheard):
            codes = pipeline.talk(model, thoughts, [voice], options)[0]
        told, (first, *reply) = Embedded.concat(read), thoughts[0].chunks
        said = {"voice": voice.bos_token, "text_end": settings.text_end, "text_pad": settings.text_pad}  # fmt: skip
        marks = {"pad": settings.codec_pad, "bos": settings.codec_bos}
        return Speech(
            media_P=token_ids == config.thinker.ids.audio,
            prompt_embeds_PD=reading.embedded.embeds[0],
            prompt_hidden_PD=first.hidden[0],
            prompt_positions_3P=positions,
            reply_embeds_ND=torch.cat([chunk.embeds[0] for chunk in reply]),
            reply_hidden_ND=torch.cat([chunk.hidden[0] for chunk in reply]),
            words={name: thinker.embed.weight[token] for name, token in said.items()},
            marks={name: talker.embed.weight[token] for name, token in marks.items()},
            codes_CD=talker.embed.weight[torch.tensor(codes[: told.length - len(token_ids) - 2])],
            inputs_TD=told.embeds[0],
            positions_3T=told.positions[0],
        )

    def probabilities(self, logits_BV: Tensor, said_BT: Tensor, sampling: Sampling) -> Tensor:
        sampler = Sampler(
            temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty, suppress=sampling.suppress,
        )  # fmt: skip
        state = sampler.init_state(len(logits_BV), logits_BV.shape[1], seeds=range(len(logits_BV)))
        state.see(said_BT)
        scores, ids = sampler.candidates(sampler.penalised(logits_BV, state))
        drawn = scores.softmax(-1)
        return drawn if ids is None else torch.zeros_like(logits_BV).scatter(1, ids, drawn)

    @torch.inference_mode()
    def flow_times(self) -> list[float]:
        dit = self.model.dit
        assert dit is not None
        asked: list[Tensor] = []
        modulate = dit.modulate

        def overheard(time_S: Tensor) -> Any:
            asked.append(time_S)
            return modulate(time_S)

        with swapped(dit, "modulate", overheard):
            walk = plan(dit)
        return [float(asked[0][stage]) for stages in walk.stages for stage in stages]

    @contextmanager
    def planted(self, plant: str) -> Iterator[None]:
        if plant == "dit-rope":
            with swapped(dit_module, "rotate_first_head_", _half_order_):
                yield
        else:
            place = Timeline._place_sounding

            def late(timeline: Timeline, video: Video) -> Tensor:
                ids = place(timeline, video)
                kinds = [kind for kind, n in self.order(video) for _ in range(n)]
                ids = ids.clone()
                ids[:, 2:-2] += torch.tensor([kind == "audio" for kind in kinds])
                return ids

            with swapped(Timeline, "_place_sounding", late):
                yield


def speech_layout(ids: cfg.TokenIds) -> tuple[Tensor, list]:
    """The prompt that is answered aloud: words, a sound, words."""
    from thinktalk.media.timeline import Audio, Text

    sound = audio_token_count(SOUND_FRAMES)
    words = [TEXT_ID + n for n in range(5)]
    tokens = [*words, ids.audio_bos, *[ids.audio] * sound, ids.audio_eos, *words[:3]]
    return torch.tensor(tokens), [Text(5), Audio(sound), Text(3)]


def _linear(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


def _half_order_(x_NFHK: Tensor, cos_NFK: Tensor, sin_NFK: Tensor) -> None:
    """The shipped fault: [f0 f1 .. f0 f1 ..] where the pairs want [f0 f0 f1 f1 ..]."""
    head, cos, sin = x_NFHK[:, :, 0], torch.cat((cos_NFK,) * 2, -1), torch.cat((sin_NFK,) * 2, -1)
    even, odd = head.unflatten(-1, (-1, 2)).unbind(-1)
    x_NFHK[:, :, 0] = head * cos + torch.stack((-odd, even), -1).flatten(-2) * sin


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """owner.name is `value` within."""
    had = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before) if had else delattr(owner, name)
