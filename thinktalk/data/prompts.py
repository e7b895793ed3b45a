"""Prompts: a spoken sample (sound, text) -> a task in natural language, as ChatML messages; splits by hash.

The report replaced hierarchical tags by prompts. Each task has many wordings; those that hash into "test" are never
drawn for training, so that a score on them tells whether the task was understood or the wording learned by heart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from thinktalk.data.samples import AUDIO_NAMES, Sample
from thinktalk.errors import ConfigError, InputError

__all__ = ["TASKS", "split_of", "task_messages", "wordings", "written"]

TASKS: dict[str, tuple[str, ...]] = {
    "transcribe": (
        "Transcribe the audio into text.",
        "Transcribe the recording.",
        "Write down what is said.",
        "What does the speaker say? Answer with the exact words.",
        "Please turn this speech into text.",
        "Listen, and write the words.",
        "Give me a transcript of this.",
        "What was said in this recording?",
        "Take dictation.",
        "Which words do you hear?",
        "Convert the audio to text.",
        "Type out the sentence you hear.",
        "I need the text of this clip, word for word.",
    ),
    "repeat": (
        "Repeat what you hear.",
        "Say that again.",
        "Please say the same sentence.",
        "Repeat after me.",
        "Say it back to me.",
        "Echo what was said.",
        "Can you repeat that?",
        "Tell me again what was said.",
    ),
    "read": (
        "Read this aloud: {text}",
        "Say: {text}",
        "Please read the following sentence. {text}",
        "Speak these words: {text}",
        "Read out loud: {text}",
        "Say the following: {text}",
        "How does this sound? {text}",
        "Pronounce this for me: {text}",
    ),
}
"""Wordings by task; {text} stands for the sample's text. The answer to each is that text, written or spoken."""

SPLITS = ((0.9, "train"), (0.95, "dev"), (1.0, "test"))
"""Upper ends of the parts of the hash space."""


def split_of(text: str, *, salt: str = "") -> str:
    """ "train", "dev" or "test" of a sentence, template, voice or picture: the same everywhere and for ever.

    Case and spaces do not count, so that no test sentence comes back in other clothes.

    >>> split_of("Good morning.") == split_of("good  morning.")
    True
    """
    plain = " ".join(text.casefold().split())
    digest = hashlib.sha256(f"{salt}\0{plain}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for end, name in SPLITS if place < end)


def wordings(task: str, *, split: str = "train") -> list[str]:
    """The wordings of a task that belong to a split; the last of each task is always kept for "test".

    Errors: ConfigError names the tasks there are.
    """
    if task not in TASKS:
        raise ConfigError(f"task {task!r} is unknown; have {', '.join(TASKS)}")
    *rest, last = TASKS[task]
    # a handful of wordings: hashing alone could leave a split without any
    held = [w for w in rest if split_of(w, salt=task) == "test"] + [last]
    return held if split == "test" else [w for w in rest if w not in held]


def task_messages(
    sample: Sample, task: str, generator: torch.Generator, *, split: str = "train"
) -> list[dict[str, Any]]:
    """The sample as a task, its wording drawn: a user's message and the answer.

    Media are named by member: Sample.resolved(messages) puts in the bytes. Errors: InputError (no text, no sound).
    """
    choices = wordings(task, split=split)
    wording = choices[int(torch.randint(len(choices), (), generator=generator))]
    if not sample.text.strip():
        raise InputError(f"{sample.where}: has no text, expected one for the task {task}; use another source")  # fmt: skip
    if task == "read":
        asked: Any = wording.format(text=sample.text)
    else:
        audio = sample.member(*AUDIO_NAMES)
        if audio is None:
            raise InputError(f"{sample.where}: has no sound, expected some for the task {task}; use another source")  # fmt: skip
        sound, words = {"type": "audio", "audio": audio}, {"type": "text", "text": wording}
        # people ask before and after
        first = bool(torch.randint(2, (), generator=generator))
        asked = [words, sound] if first else [sound, words]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": sample.text}]


def written(message: Mapping[str, Any]) -> str:
    """What a message says in words, whatever media stand between them."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
    return "".join(parts)
