"""How many of a decoder's own codes does c1_inverse find again? A world whose true codes are known, made and learnt here.

    six letters, each a sound of its own, three voices -> c1_tokenizer -> codes -> c2_flow -> that decoder frozen -> c1_inverse

    python benchmarks/inverse.py [--out DIR] [--steps C1 C2 INVERSE]

Prints the share of frames whose code is found again, beside that of the most frequent code, and the word errors of the tokenizer's
own reader: of true codes, of found codes, and of what the decoder says of each (Griffin-Lim for a vocoder) when it is heard again.
What is there is passed by. About four minutes on one quiet core.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from thinktalk.code2wav.flow import sample_many
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig, SpeechMelConfig
from thinktalk.data.answers import spoken_sources
from thinktalk.data.coding import code_shards
from thinktalk.data.samples import parse
from thinktalk.data.shards import ShardWriter
from thinktalk.layers.mel import log_mel, mel_filter_bank
from thinktalk.metrics.wer import Errors
from thinktalk.recipes.init import tiny
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training.init import first_checkpoint
from thinktalk.training.loop import Trainer
from thinktalk.training.parallel import World
from thinktalk.training.reader import CodeReader
from thinktalk.training.speech_batches import Mels
from thinktalk.weights import hf
from thinktalk.weights.wav2code import load_tokenizer

RATE, LETTER_SECONDS = 24_000, 0.12
FORMANTS = {"a": (700, 1300), "e": (450, 2100), "i": (280, 2900), "o": (500, 900), "u": (320, 650), "s": ()}  # fmt: skip
VOICES = {"low": 110.0, "mid": 160.0, "high": 220.0}


def sound(letter: str, pitch: float, random: np.random.Generator) -> np.ndarray:
    """One letter."""
    n = int(LETTER_SECONDS * RATE)
    t = np.arange(n) / RATE
    swell = np.minimum(1, np.minimum(t, LETTER_SECONDS - t) / 0.02)
    if letter == " ":
        return 1e-3 * random.standard_normal(n)
    if letter == "s":
        return 0.1 * swell * np.diff(random.standard_normal(n + 1))
    wave = np.zeros(n)
    for hertz in pitch * np.arange(1, int(5000 / pitch)):
        loud = sum(np.exp(-(((hertz - f) / 150.0) ** 2)) for f in FORMANTS[letter]) + 0.02
        wave += loud * np.sin(2 * np.pi * hertz * t + random.uniform(0, 2 * np.pi))
    return 0.25 * swell * wave / np.abs(wave).max()


def write_world(folder: Path, count: int, seed: int) -> None:
    """Shards of sentences of three-letter words."""
    random = np.random.default_rng(seed)
    with ShardWriter(folder / "train") as shards:
        for number in range(count):
            words = []
            for _ in range(random.integers(2, 5)):
                word = ""
                while len(word) < 3:
                    letter = list(FORMANTS)[random.integers(6)]
                    word += "" if word.endswith(letter) else letter
                words.append(word)
            text, voice = " ".join(words), list(VOICES)[random.integers(3)]
            pitch = VOICES[voice] * random.uniform(0.95, 1.05)
            wave = np.concatenate([sound(letter, pitch, random) for letter in f" {text} "])
            file = io.BytesIO()
            soundfile.write(file, wave.astype(np.float32), RATE, format="WAV")
            record = {
                "text": text, "voice": voice, "seconds": len(wave) / RATE, "phones": text,
                "durations": [round(LETTER_SECONDS / 0.01)] * (len(text) + 2), "frame_seconds": 0.01,
            }  # fmt: skip
            members = {"json": json.dumps(record).encode(), "wav": file.getvalue()}
            shards.write(f"{number:05d}", members)


def world_config() -> OmniConfig:
    """The tiny model with 16 codes: few enough for each to mean something."""
    config = tiny()
    assert config.wav2code is not None and config.code2wav is not None
    dit = replace(config.code2wav.dit, num_codes=17)
    return replace(
        config,
        wav2code=replace(config.wav2code, levels=(4, 4)),
        code2wav=replace(config.code2wav, dit=dit),
    )


def train(name: str, out: Path, start: Path, shards: Path, *settings: str) -> Path:
    """The checkpoint at the end of a run."""
    common = [f"start={start}", f"shards={shards}", f"out={out / name}", "batch_seconds=12", "precision=fp32"]  # fmt: skip
    recipe = change(find_recipe(name), [*common, *settings])
    model = out / name / "model"
    if not model.exists():
        trainer = Trainer(recipe.stage(), recipe.data(World()), recipe)
        trainer.run()
        stage = recipe.stage()
        stage.modules.load_state_dict(trainer.weights(), strict=False)
        recipe.export(stage, model)
        print(f"{name}: {trainer.step} steps, {trainer.elapsed:.0f} s", flush=True)
    return model


def griffin_lim(mel_MT: Tensor, config: SpeechMelConfig, *, rounds: int = 40) -> np.ndarray:
    """Samples of a natural-log mel (M, T): magnitudes by least squares, phases that agree with each other (Griffin 1984)."""
    bands_MF = mel_filter_bank(config.num_mels, config.n_fft, config.sample_rate).T.float()
    size_FT = (torch.linalg.pinv(bands_MF) @ mel_MT.float().exp()).clamp(min=0)
    options = dict(n_fft=config.n_fft, hop_length=config.hop, window=torch.hann_window(config.n_fft))  # fmt: skip
    phase = torch.randn(size_FT.shape, generator=torch.Generator().manual_seed(0))
    spectrum = torch.polar(size_FT, phase)
    for _ in range(rounds):
        wave = torch.istft(spectrum, **options)
        spectrum = torch.polar(size_FT, torch.stft(wave, **options, return_complex=True).angle())
    return torch.istft(spectrum, **options).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/inverse"))
    parser.add_argument("--steps", type=int, nargs=3, default=(1200, 400, 400))
    args = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = args.out
    report(out, *make(out, args.steps))


def make(out: Path, counts: Sequence[int], *, sentences: int = 600) -> tuple[Path, Path, Path]:
    """Checkpoints that end c1, c2 and c1_inverse after so many steps each, in a world made here."""
    steps = [f"steps={n}" for n in counts]
    if not (out / "init").exists():
        write_world(out / "world", sentences, 0)
        write_world(out / "unheard", sentences // 10, 1)
        first_checkpoint(world_config(), out / "init", sources={}, texts=iter(["a e i o u s"]), voices=tuple(VOICES), seed=0, dtype=torch.float32)  # fmt: skip
    clean = ["augmentation.noise=0", "augmentation.room=0", "weights.agreement=0.1"]
    first = train("c1_tokenizer", out, out / "init", out / "world", "from_ears=false", steps[0], "optim.lr=3e-3", *clean)  # fmt: skip
    tokenizer = load_tokenizer(first)
    code_shards(tokenizer, out / "world", out / "coded")
    shown = "reference_frames=[40,80]"
    second = train("c2_flow", out, first, out / "coded", steps[1], "optim.lr=2e-3", f"flow.{shown}")
    # nothing but the decoder tells which codes: no letters, no codes
    alone = ["inverse.ctc_weight=0", "num_layers=2", "first_code=1", "choices=16", f"inverse.flow.{shown}"]  # fmt: skip
    third = train("c1_inverse", out, second, out / "coded", steps[2], "optim.lr=3e-3", *alone)
    return first, second, third


def found_again(out: Path, first: Path, third: Path) -> dict[str, float]:
    """Share of the codes of sentences that nobody learnt from found again, beside that of the most frequent code alone."""
    samples = [parse(entry) for entry in spoken_sources(out / "unheard")[0].entries]
    heard = [log_mel(torch.from_numpy(sample.pcm(16_000))[None])[0] for sample in samples]
    true, found = (torch.cat(load_tokenizer(c).encode(heard)) for c in (first, third))
    counts = Counter(true.tolist())
    return {
        "codes_used": len(counts),
        "most_frequent": counts.most_common(1)[0][1] / counts.total(),
        "recovered": float((found == true).float().mean()),
    }


def report(out: Path, first: Path, second: Path, third: Path) -> None:
    """Print what was found on sentences that nobody learnt from, and what is heard of it."""
    tokenizer = load_tokenizer(first)
    reader, dit = CodeReader.load(out / "c1_tokenizer"), hf.load(second, parts=["code2wav"]).dit
    assert dit is not None
    config = world_config().code2wav
    assert config is not None
    sources = spoken_sources(out / "unheard")
    samples = [parse(entry) for entry in sources[0].entries]
    texts = [sample.text for sample in samples]
    heard = [log_mel(torch.from_numpy(sample.pcm(16_000))[None])[0] for sample in samples]
    mels, chance = Mels(sources, config.mel), torch.Generator().manual_seed(0)
    shown = [mels.of_another(sample, chance)[:, :80].T[None] for sample in samples]
    voices = [Voice("", torch.zeros(1, dit.config.speaker_width), mel, 0) for mel in shown]

    def wrong(codes: Sequence[Tensor]) -> float:
        return sum(reader.errors(codes, texts), Errors()).rate

    def again(mels: Sequence[Tensor]) -> float:
        waves = [soxr.resample(griffin_lim(mel, config.mel), RATE, 16_000) for mel in mels]
        return wrong(tokenizer.encode([log_mel(torch.from_numpy(w).float()[None])[0] for w in waves]))  # fmt: skip

    def spoken(codes: Sequence[Tensor]) -> float:
        g = torch.Generator().manual_seed(1)
        return again(sample_many(dit, codes, voices, generator=g, points=10, method="midpoint"))

    true, found = tokenizer.encode(heard), load_tokenizer(third).encode(heard)
    result = {
        **found_again(out, first, third),
        "wer_true_codes": wrong(true),
        "wer_found_codes": wrong(found),
        "wer_recording_by_griffin_lim": again([mels.of(sample) for sample in samples]),
        "wer_true_codes_spoken": spoken(true),
        "wer_found_codes_spoken": spoken(found),
    }
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
