"""Text to token ids, and token ids to positions: what stands before every answer, thinktalk against transformers."""

from __future__ import annotations

import tempfile

import torch
from reference import tiny_reference
from timing import Row, compare
from transformers import Qwen2TokenizerFast

from thinktalk import config as cfg
from thinktalk.media.timeline import Audio, Image, Text, Video, interleave, rope_positions
from thinktalk.prompt import build_prompt
from thinktalk.weights.tokenizer import SAMPLE_TEXT, build_tokenizer

__all__ = ["rows"]


def rows(quick: bool = False) -> list[Row]:
    """A conversation in text; the positions of a minute of video with sound, and of many pictures and sounds."""
    repeats = 3 if quick else 9
    return [_text(repeats), _video(repeats), _many(repeats)]


def _text(repeats: int) -> Row:
    config = cfg.tiny()
    messages = [
        {"role": role, "content": SAMPLE_TEXT} for role in ("system", *["user", "assistant"] * 2)
    ]
    with tempfile.TemporaryDirectory() as directory:
        tokenizer = build_tokenizer(config, directory)
        reference = Qwen2TokenizerFast.from_pretrained(directory)

    def ours() -> torch.Tensor:
        return build_prompt(messages, tokenizer=tokenizer, config=config, speech=False).token_ids

    def theirs() -> torch.Tensor:
        text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return reference([text], return_tensors="pt")["input_ids"][0]

    assert torch.equal(ours(), theirs())
    return compare(f"text prompt, {len(ours())} tokens (ours with positions)", ours, theirs, repeats=repeats)  # fmt: skip


def _video(repeats: int) -> Row:
    video = Video(60, 10, 14, 1.0, audio_tokens=1500)
    ids = cfg.tiny().thinker.ids
    placeholder = {"video": ids.video, "audio": ids.audio}
    tokens = [ids.vision_bos, ids.audio_bos]
    for run in interleave(video):
        tokens += [placeholder[run.kind]] * run.tokens
    input_ids = torch.tensor([[5] * 30 + [*tokens, ids.audio_eos, ids.vision_eos] + [5] * 20])
    reference = tiny_reference().thinker.model

    def ours() -> torch.Tensor:
        return rope_positions([Text(30), video, Text(20)])[0]

    def theirs() -> torch.Tensor:
        return reference.get_rope_index(
            input_ids,
            None,
            torch.tensor([[60, 20, 28]]),
            torch.ones_like(input_ids),
            use_audio_in_video=True,
            audio_seqlens=torch.tensor([6000]),
            second_per_grids=torch.tensor([1.0]),
        )[0][:, 0]

    assert torch.equal(ours(), theirs())
    return compare("positions: a minute of video with sound", ours, theirs, repeats=repeats)


def _many(repeats: int) -> Row:
    spans: list[Text | Audio | Image] = []
    for i in range(24):
        spans += [Text(12), Image(4 + i % 5, 6), Text(3), Audio(50)]
    ids = cfg.tiny().thinker.ids
    tokens, grids = [], []
    for span in spans:
        match span:
            case Text(n):
                tokens += [5] * n
            case Audio(n):
                tokens += [ids.audio_bos, *[ids.audio] * n, ids.audio_eos]
            case Image(rows, columns):
                tokens += [ids.vision_bos, *[ids.image] * (rows * columns), ids.vision_eos]
                grids.append((1, 2 * rows, 2 * columns))
    input_ids = torch.tensor([tokens])
    reference = tiny_reference().thinker.model

    def ours() -> torch.Tensor:
        return rope_positions(spans)[0]

    def theirs() -> torch.Tensor:
        return reference.get_rope_index(
            input_ids,
            torch.tensor(grids),
            None,
            torch.ones_like(input_ids),
            audio_seqlens=torch.full((24,), 200),
        )[0][:, 0]

    assert torch.equal(ours(), theirs())
    return compare("positions: 24 pictures and 24 sounds", ours, theirs, repeats=repeats)
