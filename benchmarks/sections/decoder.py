"""Thinker and Talker: per-token overhead of a tiny model, layers at the real 3B shapes, memory of a long prompt."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from timing import Row, compare

from thinktalk import config as cfg
from thinktalk.layers.quant import quantize_
from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.talker.model import Talker
from thinktalk.talker.prepare import TalkerFeed
from thinktalk.thinker.model import Thinker
from thinktalk.thinker.sampling import Sampler

PROMPT = 32  # tokens of the tiny prompts
THINKER_3B = replace(cfg.omni_3b().thinker.text, num_layers=4)


def rows(quick: bool) -> list[Row]:
    """All rows of the section."""
    with torch.inference_mode():
        return [*tiny_rows(quick), *real_rows(quick)]


# ------------------------------------------------------------------------------------------------------------- loops


def think(thinker: Thinker, token_ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """Greedy answer (1, tokens) to a text prompt (1, T)."""
    sampler = Sampler(greedy=True)
    state, seen = thinker.init_state(1), sampler.init_state(1, thinker.config.vocab_size)
    positions, out = torch.arange(token_ids.shape[1]).expand(1, 3, -1), []
    position = positions[:, :, -1:]
    for _ in range(tokens):
        hidden = thinker.step(Embedded(thinker.embed(token_ids), positions), state)
        token_ids = sampler(thinker.logits(hidden[:, -1]), seen)[:, None]
        positions = position = position + 1
        token_ids.item()  # a loop looks at each token: it might be the last
        out.append(token_ids)
    return torch.cat(out, 1)


def talk(talker: Talker, thinker: Thinker, heard: ThinkerChunk, codes: int) -> torch.Tensor:
    """Sampled codes (1, codes) for a reply of the Thinker."""
    config = talker.talker_config
    sampler = Sampler(
        temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05,
        suppress=(config.codec_bos, config.codec_eos, config.codec_pad),
    )  # fmt: skip
    state, seen = talker.init_state(1), sampler.init_state(1, config.decoder.vocab_size, seeds=[0])
    seen.see(torch.tensor([[config.codec_mask, config.codec_pad, config.codec_bos]]))
    feed = TalkerFeed.start(talker, thinker.embed, voice_token=5)
    prompt = feed.prompt(heard.narrow(0, PROMPT))
    feed.reply(heard.narrow(PROMPT, heard.length - PROMPT))
    feed.end()
    x, out = Embedded.concat([prompt, feed.opening()]), []
    for _ in range(codes):
        hidden = talker.step(x, state)
        out.append(sampler(talker.logits(hidden[:, -1]), seen)[:, None])
        out[-1].item()
        x = feed.next(talker.embed(out[-1]))
    return torch.cat(out, 1)


# ---------------------------------------------------------------------------------------------------------------- rows


def tiny_rows(quick: bool) -> list[Row]:
    """Whole generation loops of the tiny model: nearly all of a token is overhead."""
    from reference import part_weights, tiny_reference

    config, reference, count = cfg.tiny(), tiny_reference(), 40 if quick else 100
    thinker, talker = Thinker(config.thinker.text).eval(), Talker(config.talker).eval()
    thinker.load_state_dict(part_weights(reference, "thinker"))
    talker.load_state_dict(part_weights(reference, "talker"))
    ids = torch.randint(0, 600, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    hidden = torch.randn(1, PROMPT + 11, config.thinker.text.width)
    positions = torch.arange(PROMPT + 11).expand(1, 3, -1)
    heard = ThinkerChunk(positions[:, 0], torch.zeros_like(hidden), hidden, positions)
    k = config.talker
    ends = [k.codec_bos, k.codec_eos, k.codec_pad]
    fast = dict(repeats=9 if quick else 15, target=2.5)
    return [
        compare(
            f"tiny Thinker, {count} tokens, greedy",
            lambda: think(thinker, ids, count),
            lambda: reference.thinker.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count,
                do_sample=False, eos_token_id=None, pad_token_id=0,
            ),
            **fast,
        ),
        compare(
            f"tiny Talker, {count} codes, sampled",
            lambda: talk(talker, thinker, heard, count),
            lambda: reference.talker.generate(
                input_ids=torch.full((1, PROMPT + 2), k.codec_mask), input_text_ids=torch.cat((ids, ids[:, :2]), 1),
                thinker_reply_part=hidden[:, :10], inputs_embeds=hidden[:, : PROMPT + 2].clone(),
                attention_mask=torch.ones(1, PROMPT + 2, dtype=torch.int64), suppress_tokens=ends,
                max_new_tokens=count, do_sample=True, temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05,
                eos_token_id=None, pad_token_id=k.codec_pad,
            ),
            **fast,
        ),
    ]  # fmt: skip


@functools.cache
def real_models(vocab_size: int) -> tuple[object, Thinker]:
    """4 layers at the 3B shapes in bf16: transformers' and ours on the same memory."""
    from reference import part_weights, reference_config
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    tiny, text = cfg.tiny(), replace(THINKER_3B, vocab_size=vocab_size)
    config = replace(
        tiny,
        thinker=replace(
            tiny.thinker, text=text, audio=replace(tiny.thinker.audio, out_width=text.width),
            vision=replace(tiny.thinker.vision, out_width=text.width),
        ),
        talker=replace(tiny.talker, input_width=text.width),
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        theirs = Qwen2_5OmniThinkerForConditionalGeneration(
            reference_config(config).thinker_config
        ).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        ours = Thinker(text)
    holder = torch.nn.Module()
    holder.thinker = theirs
    ours.load_state_dict(part_weights(holder, "thinker"), assign=True)
    return theirs, ours.eval()


def real_rows(quick: bool) -> list[Row]:
    """Prefill and decode of 4 layers at the 3B shapes, and the memory of a long prompt."""
    from transformers import DynamicCache

    theirs, ours = real_models(32_000 if quick else THINKER_3B.vocab_size)
    language, vocab_size = theirs.model.language_model, ours.config.vocab_size
    past, steps = 256, 2 if quick else 4
    ids = torch.randint(0, vocab_size, (1, past), generator=torch.Generator().manual_seed(0))
    embeds, positions = ours.embed(ids), torch.arange(past + steps).expand(1, 3, -1)

    def prefill_ours(thinker: Thinker = ours):
        state = thinker.init_state(1, capacity=past + steps)
        thinker.step(Embedded(embeds, positions[:, :, :past]), state)
        return state

    def prefill_theirs():
        cache = DynamicCache()
        language(
            inputs_embeds=embeds, position_ids=positions[0, :, None, :past], past_key_values=cache, use_cache=True
        )  # fmt: skip
        return cache

    def decode_ours(thinker: Thinker, state) -> None:
        state.trim(past)
        for n in range(steps):
            x = Embedded(embeds[:, n : n + 1], positions[:, :, past + n : past + n + 1])
            thinker.logits(thinker.step(x, state)[:, -1])

    def decode_theirs(cache) -> None:
        if extra := cache.get_seq_length() - past:
            cache.crop(-extra)
        for n in range(steps):
            out = language(
                inputs_embeds=embeds[:, n : n + 1], position_ids=positions[0, :, None, past + n : past + n + 1],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            theirs.lm_head(out.last_hidden_state)

    state, cache = prefill_ours(), prefill_theirs()
    repeats = 3 if quick else 5
    out = [
        compare(
            f"3B shapes, 4 layers, bf16: prefill {past}",
            prefill_ours, prefill_theirs, repeats=repeats, target=1.0,
        ),
        compare(
            f"3B shapes, 4 layers and head, bf16: {steps} tokens",
            lambda: decode_ours(ours, state), lambda: decode_theirs(cache), repeats=repeats, target=1.0,
        ),
    ]  # fmt: skip
    if (row := memory_row(ours, theirs, 2048 if quick else 4096)) is not None:
        out.append(row)
    small = Thinker(ours.config).bfloat16().eval()
    small.load_state_dict(ours.state_dict())
    quantize_(small)
    small_state = prefill_ours(small)
    out.append(
        compare(
            f"3B shapes, 4 layers and head, int8 against bf16: {steps} tokens",
            lambda: decode_ours(small, small_state), lambda: decode_theirs(cache), repeats=repeats, target=2.2,
        )
    )  # fmt: skip
    return out


def memory_row(ours: Thinker, theirs, length: int) -> Row | None:
    """Peak memory above the weights while a prompt is read; None where the system does not tell (not Linux)."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    ids = torch.randint(0, ours.config.vocab_size, (1, length))
    positions = torch.arange(length).expand(1, 3, -1)

    def read_ours() -> None:
        hidden = ours.step(Embedded(ours.embed(ids), positions), ours.init_state(1))
        ours.logits(hidden[:, -1])

    def read_theirs() -> None:
        # the speech call asks for all hidden states
        theirs(
            input_ids=ids,
            position_ids=positions[0, :, None],
            use_cache=True,
            output_hidden_states=True,
        )

    mine, other = peak_megabytes(read_ours), peak_megabytes(read_theirs)
    text = ours.config
    least = 4 * length * text.num_layers * text.num_kv_heads * text.head_dim / 2**20  # keys, values
    if min(mine, other) < least:
        raise RuntimeError(
            f"a peak of {min(mine, other):.1f} MB cannot hold {least:.1f} MB of keys and values: "
            "freed memory was taken again; run this section alone"
        )
    return Row(
        f"prompt of {length} tokens, 4 layers: peak memory (MB, not ms)",
        mine, other, other / mine, 2.0, "above the weights",
    )  # fmt: skip


def peak_megabytes(run: Callable[[], object]) -> float:
    """How far resident memory rises while `run` runs."""
    gc.collect()
    # what earlier sections freed goes back to the system: memory taken again from it would not show as a rise
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A field of /proc/self/status (kB)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(key)
