"""Omni: the face of the package. A checkpoint goes in; text and speech come out.

omni = thinktalk.load("Qwen2.5-Omni-7B", device="cuda", dtype="bfloat16")
reply = omni.chat([{"role": "user", "content": [{"type": "audio", "audio": "question.wav"}]}])
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinktalk import pipeline
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.engine.engine import Engine
from thinktalk.engine.session import Session
from thinktalk.enrolment import Enrolment, enrol
from thinktalk.errors import ConfigError, InputError, WeightsError
from thinktalk.events import Event, Reply
from thinktalk.prompt import Prompt, Tokenizer, build_prompt
from thinktalk.weights.hf import OmniModel
from thinktalk.weights.hf import load as load_weights
from thinktalk.weights.pretrained import shipped
from thinktalk.weights.voices import find_voice

__all__ = ["Omni", "load", "resolve"]

NANO = "nano"
TRANSCRIBE = "Transcribe the audio into text."
READ_ALOUD = "Read this text aloud, word for word: "


def resolve(model: str | Path) -> Path:
    """The directory of a model: "nano" (shipped), a directory, or a hub id (needs the `hub` extra)."""
    path = Path(model)
    if str(model) == NANO and not path.exists():
        found = shipped(NANO)
        if found is None:
            raise WeightsError(
                "nano: the shipped small model is not part of this version yet; "
                "give a checkpoint directory or a hub id with --model"
            )
        return found
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(
            f"{path}: a file, expected a directory in the official layout; give its folder"
        )
    parts = str(model).split("/")
    if len(parts) != 2 or not all(part and not part.startswith(".") for part in parts):
        raise WeightsError(
            f"{model}: no such directory, and not a hub id (OWNER/NAME); check the path given as model"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise WeightsError(
            f"{model}: no such directory; to fetch it as a hub id install the extra: pip install 'thinktalk[hub]'"
        ) from None
    try:
        return Path(
            snapshot_download(
                str(model),
                allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "spk_dict.pt"],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        line = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{model}: could not be fetched from the hub: {line}; check the id and the network"
        ) from None


def load(
    model: str | Path = NANO,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None = None,
    parts: Iterable[str] | None = None,
    placement: Mapping[str, str] | None = None,
) -> Omni:
    """A checkpoint, ready to use. Errors: WeightsError, ConfigError.

    device:    where it runs; `placement` {"thinker": "cuda:0", "talker": "cuda:1"} overrides it part by part.
    dtype:     "float32", "bfloat16", "int8", or a mapping of parts; None is as stored. code2wav is float32 unless a mapping
               names it.
    parts:     any of "thinker", "talker", "code2wav"; ("thinker",) needs no talker, vocoder or voices on disk.
    """
    directory = resolve(model)
    check_device(device)
    where = dict.fromkeys(("thinker", "talker", "code2wav"), str(device)) | dict(placement or {})
    for place in where.values():
        check_device(place)
    weights = load_weights(directory, parts=parts, device=where, dtype=dtype)
    tokenizer = Tokenizer.load(directory, config=weights.config.thinker)
    return Omni(weights, tokenizer, directory=directory)


def check_device(device: str | torch.device) -> None:
    """ConfigError unless this machine has the device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"device {device}: not usable here ({line}); use cpu, cuda, cuda:1 or mps"
        ) from None


class Omni:
    """A loaded model: chat, chat_batch, stream, session, transcribe, say, code2wav."""

    def __init__(self, model: OmniModel, tokenizer: Tokenizer, *, directory: Path | None = None):
        self.model, self.tokenizer, self.directory = model, tokenizer, directory
        self._engine: Engine | None = None

    @property
    def config(self) -> OmniConfig:
        """Configuration of the checkpoint."""
        return self.model.config

    @property
    def voices(self) -> list[str]:
        """Names that `voice` may take."""
        return sorted(self.model.voices)

    @property
    def can_speak(self) -> bool:
        """Whether Talker and code2wav are loaded."""
        return {"talker", "code2wav"} <= set(self.model.parts)

    # ---------------------------------------------------------------------------------------------------------- chat

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, noise: Tensor | None = None, **options: Any
    ) -> Reply:
        """One whole answer.

        Options: voice="default", greedy=False, seed=0, max_text_tokens=1024, max_codes=4096, speech (default: when the
        model can), allow_urls=False, use_audio_in_video=None, flow_points, flow_guidance, flow_method ("rk4", "midpoint",
        "euler"). `noise` (2 x codes, mel bands) fixes the flow's start. Errors: InputError, ConfigError.

        >>> omni.chat([{"role": "user", "content": "Hello!"}], speech=False).text
        """
        rows = None if noise is None else [noise]
        return self.chat_batch([messages], noise=rows, **options)[0]

    def chat_batch(
        self,
        batch: Sequence[Sequence[Mapping[str, Any]]],
        *,
        noise: Sequence[Tensor] | None = None,
        **options: Any,
    ) -> list[Reply]:
        """Several conversations together; each answer is what `chat` would give alone. Options as `chat`."""
        if not batch:
            return []
        request = self._request(**options)
        start = time.perf_counter()
        prompts = [request.prompt(messages) for messages in batch]
        prepare_ms = (time.perf_counter() - start) * 1e3
        return _timed(_finish(request.answer(prompts, noise=noise)), prepare_ms)

    @property
    def engine(self) -> Engine:
        """The streaming engine over this model, made when first used; `omni.engine.start()` gives it a thread of its own."""
        if self._engine is None:
            self._engine = Engine(self.model, self.tokenizer)
        return self._engine

    def stream(
        self, messages: Sequence[Mapping[str, Any]], *, noise: Tensor | None = None, **options: Any
    ) -> Iterator[Event]:
        """One answer as it is made: TextDelta and AudioChunk as they come, then Done(reply). Options as `chat`.

        Text and codes are those of `chat`; the sound is made window by window (docs/streaming.md), so that it begins long
        before the text ends. Leaving the loop early stops the work. Errors: as `chat`, and Busy.
        """
        request = self._request(**options)
        session = Session(
            self.engine, voice=request.voice_name, options=request.options, messages=messages, **request.media
        )  # fmt: skip
        with session:
            yield from session.respond_sync(noise=noise)

    def session(
        self,
        *,
        system: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        fps: float | None = None,
        frame_tokens: int | None = None,
        **options: Any,
    ) -> Session:
        """A conversation that listens while you speak: hear, see, text, respond, interrupt (docs/conversation.md).

        `system` replaces the default system prompt, `messages` is a conversation so far; `fps` and `frame_tokens` fix how see()
        samples. Options as `chat`, for every reply. Errors: ConfigError, InputError, Busy.
        """
        request = self._request(**options)
        return Session(
            self.engine, voice=request.voice_name, options=request.options, system=system, messages=messages,
            fps=fps, frame_tokens=frame_tokens, **request.media,
        )  # fmt: skip

    def transcribe(
        self, audio: Any, *, max_text_tokens: int | None = None, allow_urls: bool = False
    ) -> str:
        """What is said in a recording: a path, bytes, or (samples, rate)."""
        content = [{"type": "audio", "audio": audio}, {"type": "text", "text": TRANSCRIBE}]
        reply = self.chat(
            [{"role": "user", "content": content}],
            speech=False,
            greedy=True,
            max_text_tokens=max_text_tokens,
            allow_urls=allow_urls,
        )
        return reply.text.strip()

    def say(self, text: str, *, noise: Tensor | None = None, **options: Any) -> Reply:
        """The text, word for word, as speech: the Thinker is made to say it and the Talker speaks. Options as `chat`."""
        if not text.strip():
            raise InputError("text: empty, expected something to say; give a text")
        request = self._request(**{**options, "speech": True})
        prompt = request.prompt([{"role": "user", "content": READ_ALOUD + text}])
        tokens = self.tokenizer.encode(text)
        room = self.config.thinker.text.max_positions - prompt.length - 1
        if len(tokens) > room:
            raise InputError(
                f"text: {len(tokens)} tokens, expected at most {room}; say it in pieces"
            )
        rows = None if noise is None else [noise]
        return _finish(request.answer([prompt], noise=rows, given=[tokens]))[0]

    def enrol(self, name: str, clip: Any, **options: Any) -> Enrolment:
        """A voice made of a clip of somebody speaking; `voice=name` means it from now on, in this Omni (docs/voices.md).

        Options: fit, steps, seed. Errors: InputError, WeightsError.

        >>> omni.enrol("mine", "examples/question.wav").voice.ref_mel.shape
        """
        made = enrol(self.model, name, clip, directory=self.directory, **options)
        # another table, not another entry: the engine's thread may be reading this one
        self.model.voices = {**self.model.voices, name: made.voice}
        return made

    def code2wav(
        self,
        codes: Sequence[int] | Tensor,
        voice: str = "default",
        noise: Tensor | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Float32 samples of speech codes in a voice; `noise` (2 x codes, mel bands) fixes the result."""
        request = self._request(voice=voice, speech=True, **options)
        row = torch.as_tensor(codes, dtype=torch.long).reshape(-1).tolist()
        noises = None if noise is None else [noise]
        return pipeline.speak(self.model, [row], [request.voice], request.options, noise=noises)[0]

    # ------------------------------------------------------------------------------------------------------- request

    def _request(
        self,
        *,
        voice: str = "default",
        greedy: bool = False,
        seed: int = 0,
        speech: bool | None = None,
        max_text_tokens: int | None = None,
        max_codes: int | None = None,
        flow_points: int | None = None,
        flow_guidance: float | None = None,
        flow_method: str | None = None,
        allow_urls: bool = False,
        use_audio_in_video: bool | None = None,
    ) -> _Request:
        speech = self.can_speak if speech is None else speech
        if speech and not self.can_speak:
            raise ConfigError(
                f"speech: the model was loaded with parts {', '.join(self.model.parts)}, expected talker and code2wav too; "
                "load them or ask for speech=False"
            )
        for name, value in (("max_text_tokens", max_text_tokens), ("max_codes", max_codes)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: expected 1 or more")
        asked = {
            "max_text_tokens": max_text_tokens,
            "max_codes": max_codes,
            "flow_points": flow_points,
            "flow_guidance": flow_guidance,
            "flow_method": flow_method,
        }
        generation = replace(
            self.config.generation,
            **{name: value for name, value in asked.items() if value is not None},
        )
        options = pipeline.Options(generation=generation, greedy=greedy, seed=seed, speech=speech)
        if speech:
            find_voice(self.model.voices, voice)
        media = {"allow_urls": allow_urls, "use_audio_in_video": use_audio_in_video}
        return _Request(self, options, voice if speech else None, media)


class _Request:
    """Checked options of one call."""

    def __init__(
        self, omni: Omni, options: pipeline.Options, voice: str | None, media: dict[str, Any]
    ):
        self.omni, self.options, self.voice_name, self.media = omni, options, voice, media

    @property
    def voice(self) -> Voice:
        """The voice that speaks."""
        assert self.voice_name is not None
        return find_voice(self.omni.model.voices, self.voice_name)

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        omni = self.omni
        return build_prompt(
            messages,
            tokenizer=omni.tokenizer,
            config=omni.config,
            speech=self.options.speech,
            max_tokens=omni.config.thinker.text.max_positions - 1,
            **self.media,
        )

    def answer(self, prompts: list[Prompt], **more: Any):
        omni = self.omni
        voices = [self.voice] * len(prompts) if self.options.speech else []
        return pipeline.answer(
            omni.model, omni.tokenizer, prompts, self.options, voices=voices, **more
        )


def _finish(answering) -> list[Reply]:
    while True:
        try:
            next(answering)
        except StopIteration as stop:
            return stop.value


def _timed(replies: list[Reply], prepare_ms: float) -> list[Reply]:
    """Replies whose timing counts the loading of media too."""
    return [
        replace(
            reply,
            timing={
                "prepare": prepare_ms,
                **reply.timing,
                "total": prepare_ms + reply.timing["total"],
            },
        )
        for reply in replies
    ]
