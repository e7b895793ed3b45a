"""Scoring: token ids -> how likely they are, and prompts -> what the model writes, batched: all that a harness asks of a model.

    likelihoods([(context, continuation)])  ->  [(log-likelihood, whether greedy would write it)]
    rolling(ids)                            ->  log-likelihood of a whole text, window by window
    write(prompts, until, options)          ->  texts that end before a stop string

A harness hands over a conversation as one string. Its special tokens are read back from that string and from nowhere else:
what a data set wrote as "<|im_start|>" is text. Letters: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from thinktalk import pipeline
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.decoder import join_rows
from thinktalk.messages import Embedded
from thinktalk.omni import Omni
from thinktalk.prompt import DEFAULT_SYSTEM, SPECIAL_TOKENS, Prompt

__all__ = ["Scorer", "written_options"]

Ids = list[int]
Pair = tuple[Ids, Ids]
START, END = SPECIAL_TOKENS["im_start"], SPECIAL_TOKENS["im_end"]
SPLIT = re.compile("|".join(re.escape(token) for token in (START, END)))
JOINER = "\u2060"  # written between "<" and "|" of what only looks like a special token, taken out again before it is read
LONGEST_ANSWER = 256  # tokens, where a task names no limit: lm-evaluation-harness' own default


class Scorer:
    """A model as harnesses see it; rows of a batch do not change one another."""

    def __init__(self, omni: Omni, *, batch_size: int = 8, max_length: int | None = None) -> None:
        """`max_length`: tokens of context and continuation together; None is the model's own."""
        self.omni, self.batch_size = omni, batch_size
        context = omni.config.thinker.text.max_positions
        self.max_length = context if max_length is None else min(max_length, context)
        if batch_size < 1 or self.max_length < 2:
            raise ConfigError(f"batch_size {batch_size}, max_length {self.max_length}: expected at least 1 and 2; give larger ones")  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ text and ids

    @property
    def prefix(self) -> int:
        """What stands before a text without context: <|endoftext|>, as in Qwen2's training."""
        return self.omni.config.thinker.ids.pad

    def encode(self, text: str) -> Ids:
        """Token ids; special tokens only in a string that `chat` wrote."""
        tokenizer, ids = self.omni.tokenizer, self.omni.config.thinker.ids
        if not text.startswith(START):
            return tokenizer.encode(text)
        found: Ids = []
        at = 0
        for mark in SPLIT.finditer(text):
            found += tokenizer.encode(_plain(text[at : mark.start()]))
            found.append(ids.im_start if mark[0] == START else ids.im_end)
            at = mark.end()
        return found + tokenizer.encode(_plain(text[at:]))

    def chat(self, history: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """A conversation as one string, by the chat template; `answer` opens the assistant's turn, else the last turn stays open."""
        turns = [(str(turn["role"]), str(turn["content"])) for turn in history]
        if not turns or turns[0][0] != "system":
            turns.insert(0, ("system", DEFAULT_SYSTEM))
        whole = "".join(f"{START}{role}\n{_escaped(content)}{END}\n" for role, content in turns)
        return f"{whole}{START}assistant\n" if answer else whole.removesuffix(f"{END}\n")

    def pair(self, context: str, continuation: str) -> Pair:
        """Both as ids. Spaces at the end of the context go to the continuation, as words have them; no context: `prefix`."""
        bare = context.rstrip(" ")
        continuation, context = context[len(bare) :] + continuation, bare
        before = self.encode(context)
        whole = self.encode(context + continuation)
        if not before:
            return [self.prefix], whole
        return before, whole[len(before) :]

    # ------------------------------------------------------------------------------------------------------- likelihoods

    def likelihoods(self, pairs: Sequence[Pair], *, told: Callable[[int, float, bool], None] | None = None) -> list[tuple[float, bool]]:  # fmt: skip
        """Of each continuation: the sum of its tokens' log-probabilities, and whether each is the likeliest one.

        Too long: the beginning of the context is left out. `told` gets (which, sum, greedy) as soon as it is known.
        Errors: InputError (a continuation with no token, or longer than the model's context).
        """
        # the four answers of a question share all they are asked after: one row for all that read the same ids
        rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for n, (context, continuation) in enumerate(pairs):
            if not continuation or len(continuation) >= self.max_length + 1:
                raise InputError(f"continuation {n}: {len(continuation)} tokens, expected 1 to {self.max_length}; drop this item")  # fmt: skip
            rows[tuple((context + continuation)[-self.max_length - 1 :][:-1])].append(n)
        scores: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        for batch in _batches(list(rows), self.batch_size):
            hidden = self._hidden(batch)
            for row, read in enumerate(batch):
                lengths = [len(pairs[n][1]) for n in rows[read]]
                # logits of the last positions only: (longest, V), the vocabulary is wide
                logits = self._logits(hidden[row, len(read) - max(lengths) : len(read)])
                chances = torch.log_softmax(logits, -1)
                for n, length in zip(rows[read], lengths, strict=True):
                    wanted = torch.tensor(pairs[n][1], device=chances.device)
                    own = chances[-length:]
                    total = float(own.gather(1, wanted[:, None]).sum())
                    scores[n] = (total, bool((own.argmax(-1) == wanted).all()))
                    if told is not None:
                        told(n, *scores[n])
        return scores

    def rolling(self, ids: Ids) -> float:
        """Log-likelihood of a text of any length: each token once, with as much before it as the model can read."""
        pairs: list[Pair] = []
        for start, length in _windows(len(ids), self.max_length):
            before = ids[:start][-(self.max_length - length + 1) :] or [self.prefix]
            pairs.append((before, ids[start : start + length]))
        return sum(score for score, _ in self.likelihoods(pairs)) if pairs else 0.0

    @torch.inference_mode()
    def _hidden(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states (B, T, D) of texts, padded at the right."""
        thinker = self.omni.model.thinker
        assert thinker is not None
        home = thinker.embed.weight.device
        rows = []
        for ids in batch:
            T = len(ids)
            positions = torch.arange(T, device=home).expand(1, 3, T)
            rows.append(Embedded(thinker.embed(torch.tensor([list(ids)], device=home)), positions))
        x, _ = join_rows(rows)
        return thinker.forward(x)

    @torch.inference_mode()
    def _logits(self, hidden: Tensor) -> Tensor:
        assert self.omni.model.thinker is not None
        return self.omni.model.thinker.logits(hidden)

    # ------------------------------------------------------------------------------------------------------------- write

    def prompt(self, ids: Ids, *, room: int = 0) -> Prompt:
        """Text as a prompt; with `room` tokens left behind it, its beginning is left out where it is too long."""
        kept = ids[-max(1, self.max_length - room) :] or [self.prefix]
        T = len(kept)
        positions = torch.arange(T).expand(3, T)
        return Prompt(token_ids=torch.tensor(kept), positions=positions, next_position=T)

    def write(self, prompts: Sequence[Prompt], options: pipeline.Options, *, until: Sequence[str] = (), told: Callable[[int, str], None] | None = None) -> list[str]:  # fmt: skip
        """What the model answers to each, without the stop string that ended it and what follows.

        `told` gets (which, text) as soon as its batch is done. Errors: InputError (no room behind a prompt).
        """
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda n: -prompts[n].length)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            said = self._written([prompts[n] for n in batch], options, [stop for stop in until if stop])  # fmt: skip
            for n, text in zip(batch, said, strict=True):
                texts[n] = text
                if told is not None:
                    told(n, text)
        return texts

    def _written(self, prompts: list[Prompt], options: pipeline.Options, until: list[str]) -> list[str]:  # fmt: skip
        omni = self.omni
        streams = [omni.tokenizer.decode_stream() for _ in prompts]
        texts, ended = [""] * len(prompts), [False] * len(prompts)
        longest = max(map(len, until), default=0)
        for tokens in pipeline.think(omni.model, pipeline.embed(omni.model, prompts), options):
            for row, token in enumerate(tokens):
                if ended[row] or token is None:
                    ended[row] = True
                    continue
                piece = streams[row].push(token)
                looked = (
                    len(texts[row]) - longest + 1
                )  # a stop string may have begun before this piece
                texts[row] += piece
                ended[row] = any(stop in texts[row][max(0, looked) :] for stop in until)
            if all(ended):
                break
        whole = (text + stream.flush() for text, stream in zip(texts, streams, strict=True))
        return [min((text.split(stop, 1)[0] for stop in until), key=len, default=text) for text in whole]  # fmt: skip


def written_options(omni: Omni, asked: Mapping[str, Any]) -> tuple[pipeline.Options, list[str]]:
    """Options and stop strings of a task's generation arguments; sampling only where the task says do_sample.

    Known: until, max_gen_toks (or max_new_tokens, max_tokens), do_sample, temperature, top_p, top_k, repetition_penalty, seed.
    """
    until = asked.get("until") or []
    limits = [asked[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if asked.get(name)]  # fmt: skip
    temperature = float(asked.get("temperature") or 0)
    sample = bool(asked.get("do_sample", temperature > 0)) and temperature > 0
    changed: dict[str, Any] = {"max_text_tokens": int(limits[0]) if limits else LONGEST_ANSWER, "text_sample": sample}  # fmt: skip
    if sample:
        changed["text_temperature"] = temperature
    for name, to, kind in (("top_p", "text_top_p", float), ("top_k", "text_top_k", int), ("repetition_penalty", "text_repetition_penalty", float)):  # fmt: skip
        if asked.get(name) is not None:
            changed[to] = kind(asked[name])
    generation = replace(omni.config.generation, **changed)
    options = pipeline.Options(generation=generation, greedy=not sample, seed=int(asked.get("seed") or 0), speech=False)  # fmt: skip
    return options, [until] if isinstance(until, str) else [str(stop) for stop in until]


def _batches(rows: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    """The longest first: what does not fit into memory fails at once, and little is padding."""
    rows = sorted(rows, key=len, reverse=True)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _windows(tokens: int, longest: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the pieces that are scored: full ones, then what is left."""
    for start in range(0, tokens, longest):
        yield start, min(longest, tokens - start)


def _escaped(text: str) -> str:
    return SPLIT.sub(lambda mark: mark[0].replace("<|", f"<{JOINER}|"), text)


def _plain(text: str) -> str:
    return text.replace(f"<{JOINER}|", "<|")
