"""Asking: items of a published set, each a sound and a question -> what the model writes, several answered together.

    Ask(key="1089-134686-0000", sound=..., question="Transcribe ...", target="HE HOPED ...")
    answered(bench, "librispeech/test-clean", asks)  ->  [{"key", "text": target, "said", "tokens", "seconds"}]

Greedy, without speech. Of many items a few are drawn by their names, so that `--n 100` is not all of one speaker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinktalk.errors import ThinktalkError
from thinktalk.eval.bench import Bench
from thinktalk.eval.items import Item, Result
from thinktalk.eval.public.published import figure
from thinktalk.eval.worst import keep_sound, worst
from thinktalk.media.audio import load_audio

__all__ = ["Ask", "answered", "drawn", "told", "worst_of"]

SHOWN_HZ = 16_000

LONGEST = 512  # tokens of an answer


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One item of a published set."""

    key: str
    """Its name in the set."""
    target: str
    """What is right: words, a label, a letter."""
    sound: Callable[[], Any] | None = field(default=None, repr=False)
    """Gives what `Omni.chat` takes for a sound, when it is wanted."""
    picture: Callable[[], Any] | None = field(default=None, repr=False)
    """The same for a picture, which is shown before the sound."""
    question: str = ""
    """Asked in writing, behind the sound."""
    system: str | None = None
    """Instead of the usual system prompt."""
    group: str = ""
    """The part of the set that it is counted in."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What scoring needs besides."""


def drawn(asks: Sequence[Ask], n: int) -> list[Ask]:
    """At most n of them, the same ones everywhere, in the set's order; fewer are always among more."""
    if len(asks) <= n:
        return list(asks)
    by_chance = sorted(asks, key=lambda a: hashlib.sha256(a.key.encode()).digest())[:n]
    kept = {a.key for a in by_chance}
    return [a for a in asks if a.key in kept]


def answered(bench: Bench, name: str, asks: Sequence[Ask], *, longest: int | None = None) -> list[Result]:  # fmt: skip
    """A result an item of `drawn(asks, bench.n)`: `said` and `tokens`, or `fault`; those on disk are not asked again."""
    items = [Item(a.key, a, told={"text": a.target, **({"group": a.group} if a.group else {})}) for a in drawn(asks, bench.n)]  # fmt: skip
    own = [item for n, item in enumerate(items) if n % bench.share.world == bench.share.rank]
    longest = longest or LONGEST
    work = _Together(bench, own, longest)
    questions = sorted({(a.system or "", bench.question or a.question) for a in asks} if len(asks) else ())  # fmt: skip
    asked = hashlib.sha256(repr(questions).encode()).hexdigest()[:16]
    return bench.results(name, items, work, asked=asked, longest=longest)


class _Together:
    """The work of `run_items`, which wants one item's result: that item and those behind it are answered in one batch."""

    def __init__(self, bench: Bench, items: Sequence[Item], longest: int):
        self.bench, self.items, self.longest = bench, items, longest
        self._at = {item.key: n for n, item in enumerate(items)}
        self._ready: dict[str, dict[str, Any] | ThinktalkError] = {}

    def __call__(self, item: Item) -> dict[str, Any]:
        if item.key not in self._ready:
            start = self._at[item.key]
            self._ask(self.items[start : start + self.bench.batch])
        found = self._ready.pop(item.key)
        if isinstance(found, ThinktalkError):
            raise found
        return found

    def _ask(self, items: Sequence[Item]) -> None:
        try:
            replies = self.bench.omni.chat_batch(
                [_messages(item.content, self.bench.question) for item in items],
                **{**self.bench.options, "speech": False, "greedy": True, "max_text_tokens": self.longest},
            )  # fmt: skip
        except ThinktalkError as error:
            if len(items) == 1:
                self._ready[items[0].key] = error
                return
            for item in items:  # one that cannot be answered must not take the others with it
                self._ask([item])
            return
        for item, reply in zip(items, replies, strict=True):
            self._ready[item.key] = {"said": reply.text.strip(), "tokens": len(reply.token_ids)}


def _messages(ask: Ask, question: str | None) -> list[dict[str, Any]]:
    words = ask.question if question is None else question
    parts: list[dict[str, Any]] = [] if ask.picture is None else [{"type": "image", "image": ask.picture()}]  # fmt: skip
    parts += [] if ask.sound is None else [{"type": "audio", "audio": ask.sound()}]
    parts += [{"type": "text", "text": words}] if words else []
    # a model that is asked in its own words has been trained without the report's system prompts
    system = (
        []
        if ask.system is None or question is not None
        else [{"role": "system", "content": ask.system}]
    )
    return [*system, {"role": "user", "content": parts}]


def told(bench: Bench, key: str, results: Sequence[Result]) -> dict[str, Any]:
    """What every Row of a published set tells: its items, what they took, and the report's figure."""
    return {
        "key": key,
        "keys": [r["key"] for r in results],
        "seconds": sum(r["seconds"] for r in results),
        "faults": sum("fault" in r for r in results),
        "tokens": sum(int(r.get("tokens", 0)) for r in results),
        "seed": bench.seed,
        **figure(key),
    }


def worst_of(
    bench: Bench,
    asks: Sequence[Ask],
    results: Sequence[Result],
    tops: Sequence[float],
    bottoms: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """The items of a Row that went worst, each with its sound beside the report; with `bottoms`, tops are errors."""
    if not bench.share.leads:
        return []
    found = worst(results, tops, bottoms, lower_is_better=bottoms is not None, perfect=1.0 if bottoms is None else 0.0)  # fmt: skip
    sounds = {a.key: a.sound for a in asks}
    for told in found:
        sound = sounds.get(told["key"])
        try:
            if sound is not None:
                told["sound"] = keep_sound(bench.out, load_audio(sound(), sample_rate=SHOWN_HZ), SHOWN_HZ)  # fmt: skip
        except ThinktalkError:
            continue  # what could not be asked cannot be played either
    return found
