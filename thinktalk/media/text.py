"""Text: strings to token ids (byte-level BPE of the checkpoint) and token ids to strings, whole or as they come.

Special tokens never come out of `encode`: what a user writes, "<|im_start|>system" included, is ordinary text.
The structure of a conversation is added by prompt.py, by id.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Core

from thinktalk.config import ThinkerConfig
from thinktalk.errors import InputError, WeightsError

__all__ = ["SPECIAL_TOKENS", "SPLIT_PATTERN", "TextStream", "Tokenizer", "byte_level_bpe"]

SPECIAL_TOKENS = {
    "pad": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "audio": "<|AUDIO|>",
    "audio_bos": "<|audio_bos|>",
    "audio_eos": "<|audio_eos|>",
    "vision_bos": "<|vision_bos|>",
    "vision_eos": "<|vision_eos|>",
    "vision_pad": "<|vision_pad|>",
    "image": "<|IMAGE|>",
    "video": "<|VIDEO|>",
}
"""How the special tokens of config.TokenIds are written; the key is the field's name."""

SPLIT_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen2's split into words, single digits, punctuation and spaces, before the merges."""


def byte_level_bpe(model: models.BPE) -> Core:
    """A Qwen2 pipeline around these merges: NFC, split, bytes; no prefix space, nothing added."""
    core = Core(model)
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return core


class Tokenizer:
    """Strings to token ids and back.

    >>> tokenizer = Tokenizer.load("pretrained/nano")
    >>> tokenizer.decode(tokenizer.encode("Good morning.")) == "Good morning."
    """

    def __init__(self, core: Core) -> None:
        # one set: a token that a file calls ordinary text would otherwise be parsed out of what users write
        core.add_special_tokens(
            [
                AddedToken(content, special=True, normalized=False)
                for content in SPECIAL_TOKENS.values()
                if core.token_to_id(content) is not None
            ]
        )
        core.encode_special_tokens = True
        core.no_padding()
        core.no_truncation()
        self._core = core

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Core]]:
        return Tokenizer, (self._core,)  # the core alone forgets encode_special_tokens

    @classmethod
    def load(
        cls, directory: str | os.PathLike, *, config: ThinkerConfig | None = None
    ) -> Tokenizer:
        """The tokenizer of a checkpoint: tokenizer.json, or vocab.json with merges.txt and added_tokens.json.

        With `config`, the special tokens must have the ids that the model was trained with.
        Errors: WeightsError names the file.
        """
        directory = Path(directory)
        if (directory / "tokenizer.json").is_file():
            core = _read_tokenizer_json(directory / "tokenizer.json")
        elif (directory / "vocab.json").is_file():
            core = _read_vocab(directory)
        else:
            raise WeightsError(
                f"{directory}: no tokenizer.json and no vocab.json, expected one of them; copy the tokenizer files of the checkpoint there"
            )
        tokenizer = cls(core)
        if config is not None:
            tokenizer.check(config, where=directory)
        return tokenizer

    def check(self, config: ThinkerConfig, *, where: object = "tokenizer") -> None:
        """The special tokens stand at the configuration's ids and every id has an embedding; else WeightsError."""
        wrong = [
            f"{content} is {have if have is not None else 'absent'}, not {getattr(config.ids, name)}"
            for name, content in SPECIAL_TOKENS.items()
            if (have := self._core.token_to_id(content)) != getattr(config.ids, name)
        ]
        if wrong:
            raise WeightsError(
                f"{where}: the tokenizer is of another model: {'; '.join(wrong)}; take the tokenizer files of this checkpoint"
            )
        if self.vocab_size > config.text.vocab_size:
            raise WeightsError(
                f"{where}: the tokenizer has {self.vocab_size} ids, the model embeds {config.text.vocab_size}; take the tokenizer files of this checkpoint"
            )

    @property
    def vocab_size(self) -> int:
        """Ids 0 .. vocab_size - 1 have a text, special tokens included."""
        return self._core.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of ordinary text; special tokens written in it are not special. Errors: InputError (not Unicode)."""
        try:
            return self._core.encode(text, add_special_tokens=False).ids
        except TypeError:  # lone surrogates, as os.fsdecode makes of bytes that are no UTF-8
            raise InputError(
                f"text: {_excerpt(text)} holds half of a surrogate pair, expected Unicode text; decode it as UTF-8"
            ) from None

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 come out as U+FFFD, ids without a text as nothing."""
        return self._core.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def decode_stream(self, *, skip_special: bool = True) -> TextStream:
        """A decoder for ids that arrive one after the other; its pieces, joined, are `decode` of the whole."""
        return TextStream(self, skip_special=skip_special)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; a character may be spread over several tokens."""
        token = self._core.id_to_token(token_id)
        if token is None:
            return b""
        alphabet = self._bytes
        if all(c in alphabet for c in token):
            return bytes(alphabet[c] for c in token)
        return token.encode()  # an added token is written as it is

    def is_special(self, token_id: int) -> bool:
        """Whether this id is structure, not text."""
        return token_id in self._special

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._core.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def _bytes(self) -> dict[str, int]:
        """GPT-2's alphabet: the byte each character of a token stands for."""
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [b for b in range(256) if b not in printable]
        return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


@dataclass
class TextStream:
    """Token ids to text as they arrive: only whole characters are given out, half ones wait for their other bytes.

    >>> stream = tokenizer.decode_stream()
    >>> "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)
    """

    tokenizer: Tokenizer
    skip_special: bool = True
    pending: bytes = field(default=b"", repr=False)  # the start of a character that is not complete

    def push(self, token_id: int) -> str:
        """The text that this id completes; empty while a character is incomplete."""
        if self.skip_special and self.tokenizer.is_special(token_id):
            return ""
        return self._decode(self.tokenizer.token_bytes(token_id), last=False)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._decode(b"", last=True)

    def fork(self) -> TextStream:
        """An independent copy."""
        return TextStream(self.tokenizer, self.skip_special, self.pending)

    def _decode(self, more: bytes, *, last: bool) -> str:
        data = self.pending + more
        text, used = codecs.utf_8_decode(data, "replace", last)
        self.pending = data[used:]
        return text


# --------------------------------------------------------------------------------------------------------------- files


def _read_tokenizer_json(path: Path) -> Core:
    try:
        return Core.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(
            f"{path}: {_one_line(error)}, expected a tokenizer.json of the tokenizers library; download it again"
        ) from None


def _read_vocab(directory: Path) -> Core:
    """vocab.json + merges.txt, the special tokens from added_tokens.json or from tokenizer_config.json."""
    path = directory / "merges.txt"
    try:
        core = byte_level_bpe(models.BPE.from_file(str(directory / "vocab.json"), str(path)))
    except Exception as error:
        raise WeightsError(
            f"{directory}: vocab.json and merges.txt: {_one_line(error)}, expected a byte-level BPE vocabulary; download them again"
        ) from None
    try:
        tokens = _added_tokens(directory)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{directory}: added_tokens.json or tokenizer_config.json: {_one_line(error)}, expected each added token with its id; download them again"
        ) from None
    for token_id, token in sorted(tokens.items()):
        (core.add_special_tokens if token.special else core.add_tokens)([token])
        if core.token_to_id(token.content) != token_id:
            raise WeightsError(
                f"{directory}: the added token {token.content} has id {token_id}, the vocabulary leaves {core.token_to_id(token.content)} for it; download vocab.json and added_tokens.json again"
            )
    return core


def _added_tokens(directory: Path) -> dict[int, AddedToken]:
    """Added tokens by id; only tokenizer_config.json knows which ones are special."""
    tokens = {
        int(token_id): AddedToken(content, special=False, normalized=False)
        for content, token_id in _read_json(directory / "added_tokens.json").items()
    }
    entries = _read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {})
    for token_id, entry in entries.items():
        special = bool(entry.get("special"))
        tokens[int(token_id)] = AddedToken(entry["content"], special=special, normalized=False)
    return tokens


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(
            f"{path}: {_one_line(error)}, expected JSON; download it again"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: a JSON {type(content).__name__}, expected an object; download it again"
        )
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
