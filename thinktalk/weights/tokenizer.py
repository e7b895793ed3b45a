"""A small tokenizer for our own models, in the official files: text -> merges -> tokenizer.json + tokenizer_config.json.

Ids below `ids.pad` are byte-level BPE tokens; the special tokens follow in the official order, at the configuration's ids.
Transformers opens the result as a Qwen2 tokenizer and finds the chat template and the media tokens in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import models, pre_tokenizers, trainers

from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.media.text import SPECIAL_TOKENS, Tokenizer, byte_level_bpe
from thinktalk.weights.files import read_json

__all__ = ["CHAT_TEMPLATE", "adopt_tokenizer", "build_tokenizer"]

ADDED_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>",
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
"""The official added tokens in the order of their ids."""
NUM_SPECIAL = 14  # the first ones are structure, the rest is text that happens to be one token

CHAT_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif content['type'] == 'audio' or 'audio' in content or 'audio_url' in content %}{% set audio_count.value = audio_count.value + 1 %}{% if add_audio_id %}Audio {{ audio_count.value }}: {% endif %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The official chat template, for programs that read it; ours is prompt.render, equal token for token."""

SAMPLE_TEXT = """\
You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and visual inputs,
as well as generating text and speech. You are a helpful assistant.
system user assistant

What do you hear in this recording, and what can you see in the picture? Describe the video, please.
I hear a woman asking a question, and then a short piece of music. A dog is barking somewhere behind the house.
The picture shows a red circle, a blue square and a green triangle on a white background; the circle is on the left.
There are three people in the kitchen: one of them is cooking, the others are talking about the weather.
Good morning! How are you today? I'm fine, thank you; it's a pleasure to meet you. Don't worry, we'll find it together.
The train leaves at 7:45 from platform 12, and it takes about an hour and 30 minutes to reach the city.

Once upon a time there was a small bird that could not sing. Every evening it listened to the wind in the trees, to the
rain on the roof and to the children who were laughing in the street, until one day it found its own voice.

Transcribe the speech into text. Translate this sentence from English into Chinese. Answer with one word: yes or no.
Speaking and listening at the same time is harder than it looks: the sound should start before the sentence has ended.
1 + 1 = 2, 10 x 10 = 100, 0123456789. (This is an example.) "Really?" she said. Wait... let me think about that.


你好，很高兴认识你。请描述一下这张图片和这段声音。今天的天气怎么样？谢谢，我很好。
Bonjour, comment allez-vous ? Guten Tag, wie geht es Ihnen? Buenos días, ¿cómo está usted?
"""
"""What the merges are learned from when no corpus is given: enough for tests and demos."""


def build_tokenizer(
    config: OmniConfig, directory: str | os.PathLike, corpus: Iterable[str] = (SAMPLE_TEXT,)
) -> Tokenizer:
    """Train a byte-level BPE on `corpus`, write tokenizer.json and tokenizer_config.json into `directory`, return it.

    It gives ids below `ids.pad` to texts (unreachable fillers where the corpus is too small for so many merges) and the
    special tokens the ids of `config.thinker.ids`. The same corpus always gives the same bytes. Errors: ConfigError.
    """
    base = _check_ids(config)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if base < len(alphabet):
        raise ConfigError(
            f"ids.pad {base} must be at least {len(alphabet)}, one id a byte; raise it"
        )

    core = byte_level_bpe(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=base, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    core.train_from_iterator(corpus, trainer)
    content = json.loads(core.to_str())
    vocab = content["model"]["vocab"]
    # fillers: the library numbers added tokens from the end of the vocabulary, which must therefore be full
    vocab.update({f"<filler_{i}>": i for i in range(len(vocab), base)})
    return _write(content, config, directory)


def adopt_tokenizer(
    config: OmniConfig, source: str | os.PathLike, directory: str | os.PathLike
) -> Tokenizer:
    """The text vocabulary of a Qwen2.5 checkpoint with the special tokens of an omni model in the place of its own.

    Both families give the same merges the same ids, and number their special tokens from the same place; the names differ:
    <|vision_start|> there is <|vision_bos|> here. Errors: WeightsError, ConfigError.
    """
    base, path = _check_ids(config), Path(source) / "tokenizer.json"
    content = read_json(path)
    vocab = (content.get("model") or {}).get("vocab")
    if not isinstance(vocab, dict) or len(vocab) != base:
        have = f"{len(vocab)} tokens" if isinstance(vocab, dict) else "no vocabulary"
        raise WeightsError(f"{path}: has {have} before the special ones, expected {base}; choose another checkpoint")  # fmt: skip
    return _write(content, config, directory)


def _check_ids(config: OmniConfig) -> int:
    """The id of the first special token; ConfigError unless the others follow in the official order."""
    ids = config.thinker.ids
    base = ids.pad
    for name, content in SPECIAL_TOKENS.items():
        expected = base + ADDED_TOKENS.index(content)
        if getattr(ids, name) != expected:
            raise ConfigError(
                f"ids.{name} {getattr(ids, name)} must be {expected} = ids.pad {base} + {expected - base}, the official order"
            )
    return base


def _write(content: dict, config: OmniConfig, directory: str | os.PathLike) -> Tokenizer:
    """tokenizer.json of a text vocabulary with our special tokens after it, and tokenizer_config.json."""
    base = config.thinker.ids.pad
    content["added_tokens"] = [
        dict(
            id=base + k, content=token, single_word=False, lstrip=False, rstrip=False, normalized=False,
            special=k < NUM_SPECIAL,
        )
        for k, token in enumerate(ADDED_TOKENS)
    ]  # fmt: skip

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "tokenizer.json", content)
    _write_json(directory / "tokenizer_config.json", _settings(config))
    return Tokenizer.load(directory, config=config.thinker)


def _settings(config: OmniConfig) -> dict:
    media = ("image", "audio", "video", "vision_bos", "vision_eos", "audio_bos", "audio_eos")
    return dict(
        tokenizer_class="Qwen2TokenizerFast",
        processor_class="Qwen2_5OmniProcessor",
        model_max_length=config.thinker.text.max_positions,
        add_prefix_space=False,
        add_bos_token=False,
        bos_token=None,
        eos_token=SPECIAL_TOKENS["im_end"],
        pad_token=SPECIAL_TOKENS["pad"],
        unk_token=None,
        errors="replace",
        clean_up_tokenization_spaces=False,
        split_special_tokens=False,
        extra_special_tokens={f"{name}_token": SPECIAL_TOKENS[name] for name in media},
        chat_template=CHAT_TEMPLATE,
    )


def _write_json(path: Path, content: dict) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    part.replace(path)
