"""init: the first checkpoint. Configuration, texts, checkpoints of other models -> a directory in the official layout.

    nothing                   -> every part with weights to start from, a tokenizer whose merges come from the texts
    Qwen2.5, Qwen2.5-VL, Whisper  -> Thinker and its vocabulary, vision, audio (the report, section 3.1); the rest as above

Weights to start from keep the stream of every transformer at unit size: embeddings have it, each layer keeps what it gets
(matrices of variance 1 / inputs), and what layers add begins at zero, so that depth costs no signal (ReZero; DiT's adaLN-zero
is the same idea). Heads begin almost at zero: the first loss is the logarithm of the vocabulary. Vocoder and speaker
encoder, which are convolutions, keep torch's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.data.mixture import expand
from thinktalk.data.shards import scan
from thinktalk.errors import ConfigError, InputError
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights.config_write import write_config
from thinktalk.weights.hf import planned
from thinktalk.weights.init import init_audio, init_thinker, init_vision
from thinktalk.weights.model import PARTS, build
from thinktalk.weights.store import Planned, atomic_directory, write_index, write_parts
from thinktalk.weights.tokenizer import adopt_tokenizer, build_tokenizer
from thinktalk.weights.voices import save_voices
from thinktalk.weights.wav2code import PREFIX

__all__ = ["first_checkpoint", "fresh_weights", "mute_voices", "texts_of"]

HEAD_STD = 1e-3  # nearly uniform predictions at first
ADDING = (".o.weight", ".down.weight")  # what a layer adds to the stream
VOICE_TOKEN = 227  # Ethan's, counted from <|endoftext|>; the ids after it are unused in the official vocabulary
SILENCE = -11.5  # log mel of nothing: log(1e-5)
VOICE_FRAMES = 100

Filler = Callable[[Any, str | Path], Any]
FILLERS: dict[str, Filler] = {"thinker": init_thinker, "vision": init_vision, "audio": init_audio}


def first_checkpoint(
    config: OmniConfig,
    directory: str | Path,
    *,
    sources: Mapping[str, str | Path] | None = None,
    texts: Iterable[str] = (),
    voices: Sequence[str] = ("Chelsie", "Ethan"),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, int]:
    """Write `directory`, one file a part; gives {part: tensors copied from its source}.

    sources: {"thinker": Qwen2.5 directory, "vision": Qwen2.5-VL, "audio": Whisper}; parts without one start from nothing.
    texts:   what the tokenizer's merges are learnt from, where no Thinker brings its own.
    voices:  their names; they have tokens and are silent until a DiT was trained (c2_flow).
    One part is in memory at a time. Errors: ConfigError, WeightsError, before anything has its name.
    """
    sources = dict(sources or {})
    if unknown := set(sources) - set(FILLERS):
        raise ConfigError(f"source of {sorted(unknown)[0]!r}: expected one of {', '.join(FILLERS)}")
    copied: dict[str, int] = {}
    where: dict[str, str] = {}
    with atomic_directory(directory, overwrite=True) as fresh:
        if "thinker" in sources and (Path(sources["thinker"]) / "tokenizer.json").exists():
            adopt_tokenizer(config, sources["thinker"], fresh)
        else:
            given = list(texts)
            build_tokenizer(config, fresh, *([given] if given else []))
        for part in _parts(config):
            torch.manual_seed(seed)  # a part does not depend on the others
            model = build(config, part, device="cpu")
            for stage, module in model.stages().items():
                fresh_weights(module)
                if stage in sources:
                    done = FILLERS[stage](module, sources[stage])
                    copied[stage] = len(done.copied) + len(done.partial)
                write_parts(fresh, {stage: planned(stage, module, config, dtype)}, where)
        if config.wav2code is not None:
            torch.manual_seed(seed)
            tokenizer = SpeechTokenizer(config.wav2code)
            fresh_weights(tokenizer)
            own = [Planned(PREFIX + n, dtype, tuple(t.shape), lambda t=t: t) for n, t in tokenizer.state_dict().items()]  # fmt: skip
            write_parts(fresh, {"wav2code": own}, where)
        write_index(fresh, where)
        write_config(config, fresh, dtype=str(dtype).removeprefix("torch."))
        if config.code2wav is not None:
            save_voices(mute_voices(config, voices), fresh)
    return copied


def _parts(config: OmniConfig) -> list[str]:
    have = {"thinker": True, "talker": config.talker, "code2wav": config.code2wav}
    return [part for part in PARTS if have[part]]


@torch.no_grad()
def fresh_weights(module: nn.Module) -> None:
    """Give a part of the model the weights that training starts from; draws from torch's own generator."""
    for path, child in module.named_modules():
        name = f".{path}.weight"
        if ".speaker." in name or isinstance(child, (nn.Conv1d, nn.ConvTranspose1d)):
            continue
        if isinstance(child, nn.Embedding):
            nn.init.normal_(child.weight, std=1.0)
        elif isinstance(child, nn.Linear):
            head = path in ("lm_head", "head")
            std = HEAD_STD if head else child.in_features**-0.5
            nn.init.normal_(child.weight, std=std)
            if name.endswith(ADDING) and ".layers." in name:
                nn.init.zeros_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
    if isinstance(module, DiT):
        # adaLN-zero (Peebles & Xie 2023, section 3.2): the gates are closed, so what they gate need not be
        for path, child in module.named_modules():
            if path.endswith("modulation") or path == "output":
                nn.init.zeros_(child.weight)
                nn.init.zeros_(child.bias)
            elif f".{path}.weight".endswith(ADDING):
                nn.init.normal_(child.weight, std=child.in_features**-0.5)
    tied = getattr(module, "lm_head", module) is None
    if tied:  # the same numbers are read and predict
        nn.init.normal_(module.embed.weight, std=module.embed.embedding_dim**-0.5)


def mute_voices(config: OmniConfig, names: Sequence[str]) -> dict[str, Voice]:
    """Voices with a token each and silence to copy. ConfigError when the vocabulary has no room for so many."""
    assert config.code2wav is not None
    first, dit = config.thinker.ids.pad + VOICE_TOKEN, config.code2wav.dit
    room = config.thinker.text.vocab_size - first
    if not 0 < len(names) <= room:
        raise ConfigError(f"{len(names)} voices: expected 1 to {max(0, room)}, as many tokens as the vocabulary has left")  # fmt: skip
    return {
        name: Voice(
            name=name,
            cond=torch.zeros(1, dit.speaker_width),
            ref_mel=torch.full((1, VOICE_FRAMES, dit.num_mels), SILENCE),
            bos_token=first + number,
        )
        for number, name in enumerate(names)
    }


def texts_of(paths: Sequence[str], *, limit: int = 200_000) -> Iterator[str]:
    """What is said and written in text files and shards: each line, each sample's text and messages, at most `limit`."""
    count = 0
    for text in _texts(paths):
        if count >= limit:
            return
        if text.strip():
            count += 1
            yield text


def _texts(paths: Sequence[str]) -> Iterator[str]:
    for given in paths:
        if Path(given).is_file() and not given.endswith(".tar"):
            try:
                yield from Path(given).read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{given}: cannot be read as text ({error}); give a UTF-8 file or shards") from None  # fmt: skip
            continue
        for path in expand(given):
            for entry in scan(path).entries:
                record = json.loads(entry.read("json").get("json", b"{}"))
                yield str(record.get("text") or "")
                for message in record.get("messages") or ():
                    content = message.get("content")
                    parts = [{"text": content}] if isinstance(content, str) else content or ()
                    yield from (str(part["text"]) for part in parts if "text" in part)
