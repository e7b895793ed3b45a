"""k1_icl: the Talker learns to speak in its context, in any voice, from shards of speech whose codes are known."""

from __future__ import annotations

from dataclasses import dataclass

from thinktalk.recipes.talker_recipe import TalkerRecipe

__all__ = ["TalkRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class TalkRecipe(TalkerRecipe):
    """The numbers of the run."""

    out: str = "out/k1_icl"
    steps: int = 20_000


def recipe() -> TalkRecipe:
    """The defaults."""
    return TalkRecipe()
