"""Controls: a question that lacks what its answer needs; a model that is right all the same did not look, or did not listen.

    without_media      the question alone                          pictures, sounds, videos, spoken questions
    others_media       with the media of another item, whose answer is another one
    deaf               a video without its sound
    shifted_sound      the sound comes at another time             Prompt -> Prompt
    scrambled_times    TMRoPE ids of the media in any order        Prompt -> Prompt

What is right without media is guessed from the question. Shift and scramble leave every picture and every sound as they are
and take only what tells when: what needs both eyes and ears must fall to chance. Letters: T tokens, L mel frames.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from thinktalk.config import TokenIds
from thinktalk.prompt import Prompt

__all__ = ["deaf", "media_of", "others", "others_media", "scrambled_times", "shifted_sound", "without_media"]  # fmt: skip

Messages = list[dict[str, Any]]
MEL_PER_SECOND = 100
LEAST_SHIFT_S = 1.0  # half a second is within what two frames a second can tell


def without_media(messages: Messages) -> Messages:
    """The words alone."""
    return _parts(messages, lambda part: None)


def media_of(messages: Messages) -> list[dict[str, Any]]:
    """All media, in their order."""
    return [p for m in messages if not isinstance(m["content"], str) for p in m["content"] if p["type"] != "text"]  # fmt: skip


def others_media(messages: Messages, other: Messages) -> Messages:
    """The words of one conversation with the media of another, the first in the place of the first; what is left is left out."""
    media = iter(media_of(other))
    return _parts(messages, lambda part: next(media, None))


def deaf(messages: Messages) -> Messages:
    """Videos are seen and not heard."""
    return _parts(messages, lambda p: {**p, "use_audio": False} if p["type"] == "video" else p)


def _parts(messages: Messages, change: Any) -> Messages:
    """The messages with each medium changed; where that gives None it is left out."""
    changed = []
    for message in messages:
        if isinstance(message["content"], str):
            changed.append(message)
            continue
        parts = [p if p["type"] == "text" else change(p) for p in message["content"]]
        changed.append({**message, "content": [p for p in parts if p is not None]})
    return changed


def others(answers: Sequence[str], groups: Sequence[str], *, seed: int = 0) -> list[int]:
    """For each item, another one of its group (task) whose answer is another; itself where there is none such.

    Drawn so that every item lends its media about equally often.
    """
    draw, chosen = random.Random(f"{seed} others"), list(range(len(answers)))
    lent = [0] * len(answers)
    for n in draw.sample(chosen, len(chosen)):
        fit = [m for m in range(len(answers)) if groups[m] == groups[n] and answers[m] != answers[n]]  # fmt: skip
        if fit:
            least = min(lent[m] for m in fit)
            chosen[n] = draw.choice([m for m in fit if lent[m] == least])
            lent[chosen[n]] += 1
    return chosen


def shifted_sound(prompt: Prompt, *, seed: int) -> Prompt:
    """The mel (128, L) of each sound turned round by at least a second; its end comes before its beginning then.

    Only the log-mel moves: positions, pictures and how much of everything there is stay. Sounds of less than two seconds
    are turned by half.
    """
    draw = random.Random(f"{seed} shift")

    def turned(mel: torch.Tensor) -> torch.Tensor:
        L = mel.shape[1]
        least = round(LEAST_SHIFT_S * MEL_PER_SECOND)
        by = draw.randint(least, L - least) if 2 * least < L else L // 2
        return torch.roll(mel, by, dims=1)

    return replace(prompt, audio=[turned(mel) for mel in prompt.audio])


def scrambled_times(prompt: Prompt, ids: TokenIds, *, seed: int) -> Prompt:
    """The times that media tokens stand at, dealt out anew among them, sound and pictures alike; rows and columns stay.

    Tokens of one moment (all of a pair of frames, or one of sound) stay together, so that every picture is whole.
    """
    generator = torch.Generator().manual_seed(seed)
    positions_3T = prompt.positions.clone()
    is_sound = prompt.token_ids == ids.audio
    moments: list[torch.Tensor] = []
    for kind in (is_sound, prompt.token_ids == ids.video):
        times = positions_3T[0][kind].unique()
        moments += [kind & (prompt.positions[0] == time) for time in times]
    if not moments:
        return prompt
    times = torch.stack([prompt.positions[0][moment][0] for moment in moments])
    for moment, time in zip(moments, times[torch.randperm(len(times), generator=generator)], strict=True):  # fmt: skip
        positions_3T[0, moment] = time
        positions_3T[1:, moment & is_sound] = time  # a sound has one id on all three axes
    return replace(prompt, positions=positions_3T)
