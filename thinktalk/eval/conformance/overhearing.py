"""A spoken answer of transformers' own generate, overheard by hooks -> Speech. No wave is made."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.eval.conformance.invariant import Speech
from thinktalk.eval.conformance.ours import CODES, SOUND_FRAMES, WORDS, speech_layout, swapped

__all__ = ["overhear"]

VOICE_TOKEN = 600


def overhear(model: Any, config: OmniConfig, *, padded: bool) -> Speech:
    """What Thinker and Talker of a Qwen2_5OmniForConditionalGeneration of this configuration read in a short answer."""
    ids, settings = config.thinker.ids, config.talker
    assert settings is not None
    thinker, talker = model.thinker, model.talker
    token_ids, _ = speech_layout(ids)
    pads = int(padded)
    prompt = torch.cat([torch.full((pads,), ids.pad), token_ids])[None]
    mask = torch.ones_like(prompt)
    mask[:, :pads] = 0
    sound = torch.randn(1, 128, SOUND_FRAMES, generator=torch.Generator().manual_seed(6))
    read: list[tuple[Tensor, Tensor, Tensor]] = []
    heard: list[Tensor] = []
    places: list[Tensor] = []
    said: list[Tensor] = []
    language = getattr(thinker.model, "language_model", thinker.model)
    hooks = [
        language.register_forward_hook(
            lambda _, args, more, out: read.append((more["inputs_embeds"], out[0], more["position_ids"])), with_kwargs=True
        ),
        talker.thinker_to_talker_proj.register_forward_pre_hook(lambda _, args: heard.append(args[0].clone())),
        talker.model.register_forward_pre_hook(lambda _, args, more: places.append(more["position_ids"]), with_kwargs=True),
    ]  # fmt: skip
    voice = {"cond": torch.zeros(1, 192), "ref_mel": torch.zeros(1, 10, 80), "bos_token": VOICE_TOKEN}  # fmt: skip

    def unspoken(codes: Tensor, **_: Any) -> Tensor:
        said.append(codes[0])
        return torch.zeros(1)

    try:
        with (
            swapped(model, "speaker_map", {"voice": voice}),
            swapped(model.token2wav, "forward", unspoken),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            model.generate(
                input_ids=prompt, attention_mask=mask, input_features=sound,
                feature_attention_mask=torch.ones(1, SOUND_FRAMES, dtype=torch.long), speaker="voice",
                thinker_max_new_tokens=WORDS, thinker_do_sample=False, thinker_eos_token_id=[ids.im_end],
                talker_max_new_tokens=CODES, talker_do_sample=False,
            )  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    words, codec = (part.get_input_embeddings().weight for part in (thinker, talker))
    inputs = torch.cat(heard, 1)[0, pads:]
    (embeds, hidden, positions), *reply = read
    tokens = {"voice": VOICE_TOKEN, "text_end": settings.text_end, "text_pad": settings.text_pad}
    return Speech(
        media_P=token_ids == ids.audio,
        prompt_embeds_PD=embeds[0, pads:],
        prompt_hidden_PD=hidden[0, pads:],
        prompt_positions_3P=positions[-3:, 0, pads:],
        reply_embeds_ND=torch.cat([step[0][0] for step in reply]),
        reply_hidden_ND=torch.cat([step[1][0] for step in reply]),
        words={name: words[token] for name, token in tokens.items()},
        marks={"pad": codec[settings.codec_pad], "bos": codec[settings.codec_bos]},
        codes_CD=codec[said[0][: len(inputs) - len(token_ids) - 2]],
        inputs_TD=inputs,
        positions_3T=torch.cat([p[-3:, 0] for p in places], 1)[:, pads:] if all(p is not None for p in places) else torch.empty(3, 0),
    )  # fmt: skip
