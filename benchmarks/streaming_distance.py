"""How far streamed speech is from the whole-utterance run, and what it costs: tables, one JSON line, the plot of the docs.

    python benchmarks/streaming_distance.py [--quick] [--plot docs/img/streaming_distance.svg]

Random weights of unit gain at the tiny size and at the official width (few layers). Random layers hear their neighbours
only faintly, so every table is also taken with the look-back and look-ahead layers turned up ("loud", 8 times).
The same noise on both sides. Mel distances are in units of the mel's deviation.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import torch
from plot import line_chart
from torch import Tensor

from thinktalk import config as cfg
from thinktalk.code2wav.bigvgan import receptive_field
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.streaming import Speech, Windows
from thinktalk.code2wav.vocoding import StreamVocoder
from thinktalk.weights.random import random_model

LOUD = 8.0
BACKS, AHEADS = (0, 1, 2, 3, 4, None), (0, 1, 2, 3)  # None: remembers
GROUPS = ((1,), (2,), (4,), (6,), Windows().groups)
VOCODER_AHEADS = (0, 3, 6, 12, 18, 23, 24, 34)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny size only, short utterances")
    parser.add_argument("--only", choices=("distance", "vocoder", "cost"), help="one part")
    parser.add_argument("--plot", help="write the plot there (SVG)")
    given = parser.parse_args()
    torch.manual_seed(0)
    report: dict[str, list[dict]] = {}
    with torch.inference_mode():
        for title, measure in (("distance", distances), ("vocoder", vocoders), ("cost", costs)):
            if given.only in (None, title):
                report |= measure(quick=given.quick)
    for title, rows in report.items():
        print_table(title, rows)
    print(json.dumps({"benchmark": "streaming distance", **report}))
    if given.plot and "windows" in report:
        draw(report["windows"], given.plot)


REAL = cfg.omni_7b()
LAYERS = 3  # of the official 22: one that looks ahead between two that look back


def distances(*, quick: bool) -> dict[str, list[dict]]:
    """Of windows, by look-back and look-ahead, and by size."""
    report: dict[str, list[dict]] = {"windows": [], "groups": []}
    for name, loud in (("tiny", 1.0), ("tiny, loud", LOUD)):
        bench = Distance(make_model(cfg.tiny(), loud=loud), 8 if quick else 16, name)
        report["windows"] += bench.windows(BACKS, AHEADS)
        report["groups"] += bench.groups()
    for name, loud in (("official width", 1.0), ("official width, loud", LOUD)):
        if not quick:
            bench = Distance(make_model(REAL, layers=LAYERS, loud=loud), 6, name)
            report["windows"] += bench.windows((0, 1, 2, None), (1,))
            report["windows"] += bench.windows((None,), (0, 2))
    return report


def vocoders(*, quick: bool) -> dict[str, list[dict]]:
    """Of the vocoder, by look-ahead."""
    rows = vocoder_rows("tiny", make_model(cfg.tiny()), 30 if quick else 100, VOCODER_AHEADS)
    if not quick:
        rows += vocoder_rows("official", make_model(REAL, layers=LAYERS), 30, (0, 6, 12, 18, 24))
    return {"vocoder": rows}


def costs(*, quick: bool) -> dict[str, list[dict]]:
    """Of a whole answer: counted, then measured."""
    counts = [count_row(seconds) for seconds in (2, 5, 15, 60)]
    rows = cost_rows("tiny", make_model(cfg.tiny()), 5.0)
    if not quick:
        rows += [row for s in (5.0, 15.0) for row in cost_rows("nano", make_model(cfg.nano()), s)]
        depth = REAL.code2wav.dit.num_layers / LAYERS * 9  # all layers; 36 evaluations, not 4
        rows += cost_rows("official", make_model(REAL, layers=LAYERS), 5.0, points=2, depth=depth)
    return {"counts": counts, "cost": rows}


# --------------------------------------------------------------------------------------------------------------- models


def make_model(config: cfg.OmniConfig, *, layers: int | None = None, loud: float = 1.0) -> Code2Wav:
    """Random code2wav; with `layers`, that many at the same width, one looking ahead between two that look back."""
    assert config.code2wav is not None
    if layers is not None:
        dit = replace(config.code2wav.dit, num_layers=layers, look_backward_layers=(0, layers - 1), look_ahead_layers=(1,))  # fmt: skip
        config = replace(config, code2wav=replace(config.code2wav, dit=dit))
    model = random_model(config, parts=("code2wav",))
    for layer in model.dit.layers:
        if layer.attn.look_back or layer.attn.look_ahead:
            layer.attn.o.weight.mul_(loud)
    code2wav = Code2Wav(model.dit, model.vocoder, config.code2wav)
    code2wav.voice = model.voices["Chelsie"]
    return code2wav


def draw_codes(model: Code2Wav, n: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, model.config.dit.num_codes, (1, n), generator=g)


class Mels(Speech):
    """Speech that stops at the mel."""

    def mel(self, codes: Tensor, **start) -> Tensor:
        kept: list[Tensor] = []

        def keep(mels, states, lasts):
            kept.extend(mels)
            return [mel.new_zeros(len(mel), 0) for mel in mels]

        self.vocoder.step_many = keep  # type: ignore[method-assign]
        self(codes, **start)
        return torch.cat(kept, 2)


# ------------------------------------------------------------------------------------------------------------ distances


class Distance:
    """Windows of one model against one window that holds the whole utterance."""

    def __init__(self, model: Code2Wav, blocks: int, name: str):
        self.model, self.name = model, name
        self.codes = draw_codes(model, blocks * model.config.dit.block_codes)
        self.whole = self.mel(Windows(groups=(blocks,), look_ahead_blocks=0))
        self.wave = model.vocode(self.whole)

    def mel(self, windows: Windows) -> Tensor:
        speech = Mels(self.model.dit, self.model.vocoder, self.model.config, windows=windows)
        return speech.mel(self.codes, voice=self.model.voice, seed=0)

    def row(self, windows: Windows, **labels) -> dict:
        mel = self.mel(windows)
        off, scale = (mel - self.whole).abs(), self.whole.std()
        return {
            "model": self.name,
            **labels,
            "mel_mean": float(off.mean() / scale),
            "mel_max": float(off.max() / scale),
            **wave_distance(self.model.vocode(mel), self.wave),
        }

    def windows(self, backs, aheads) -> list[dict]:
        """Every block a window of its own: the worst case, since each edge is in every second of sound."""
        return [
            self.row(
                Windows(look_back_blocks=back, look_ahead_blocks=ahead, groups=(1,)),
                look_back="remembers" if back is None else back,
                look_ahead=ahead,
            )
            for back in backs
            for ahead in aheads
        ]

    def groups(self) -> list[dict]:
        return [self.row(Windows(groups=groups), groups=str(groups)) for groups in GROUPS]


def wave_distance(wave: Tensor, whole: Tensor) -> dict:
    """Signal to distance, and the distance of log spectra (rms over bands, mean over time), both in dB."""
    off = (wave - whole).square().mean().clamp(1e-30)
    snr = 10 * torch.log10(whole.square().mean() / off)
    a, b = (_log_spectrum(w) for w in (wave, whole))
    return {"snr_db": float(snr), "spectrum_db": float((a - b).square().mean(1).sqrt().mean())}


def _log_spectrum(wave: Tensor) -> Tensor:
    window = torch.hann_window(1024)
    spectrum = torch.stft(wave, 1024, 256, window=window, return_complex=True).abs()
    return 20 * spectrum.clamp(1e-4).log10()


def vocoder_rows(name: str, model: Code2Wav, frames: int, aheads) -> list[dict]:
    """Windows of 24 frames with a shorter look-ahead, against the vocoder on the whole mel, in float64."""
    vocoder = model.vocoder.double()
    mel = torch.randn(1, 80, 4 * frames, dtype=torch.float64) - 3
    whole = vocoder(mel)
    rows = []
    for ahead in aheads:
        stream = StreamVocoder(vocoder, ahead)
        state, parts = stream.init_state(1, dtype=torch.float64), mel.split(24, 2)
        wave = torch.cat([stream.step(p, state, last=p is parts[-1]) for p in parts], 1)
        off = float((wave - whole).abs().max() / whole.std())
        rows.append({"model": name, "vocoder_lookahead": ahead, "wave_max": off, **wave_distance(wave.float(), whole.float())})  # fmt: skip
    vocoder.float()
    return rows


# ----------------------------------------------------------------------------------------------------------------- cost


def count_row(seconds: int) -> dict:
    """Blocks that the DiT computes over blocks spoken, and frames through the vocoder over frames spoken, officially."""
    config = REAL.code2wav
    assert config is not None
    size = config.dit.block_frames
    blocks = -(-seconds * config.codes_per_second // config.dit.block_codes)
    behind, ahead = receptive_field(config.vocoder, snake_reach=0)
    row: dict = {"sound_s": seconds, "blocks": int(blocks)}
    for name, back in (("dit", None), ("dit, 2 blocks back", 2)):
        windows, computed, n = Windows(look_back_blocks=back), 0, 0
        while windows.own(n)[0] < blocks:
            first, last = windows.computed(n)
            computed, n = computed + min(last, blocks) - first, n + 1
        row[name] = float(computed / blocks)
    through, heard, spoken, total, n = 0, 0, 0, blocks * size, 0
    while heard < total:
        heard, n = min(Windows().own(n)[1] * size, total), n + 1
        ready = heard if heard == total else heard - ahead
        if ready > spoken:
            through, spoken = through + min(behind, spoken) + heard - spoken, ready
    row["vocoder"] = float(through / total)
    return row


def cost_rows(name: str, model: Code2Wav, seconds: float, *, points: int = 10, depth: float = 1.0) -> list[dict]:  # fmt: skip
    """Work of a whole answer in windows over the offline work; processor time, since other programs disturb the clock.

    `depth` scales the DiT's time to the layers of the whole model.
    """
    rate = model.config.sample_rate / model.config.code_samples
    codes = draw_codes(model, int(seconds * rate))
    variants = {
        "offline": Windows(groups=(codes.shape[1],), points=points),  # one window of everything
        "remembers": Windows(points=points),
        "2 blocks back": Windows(look_back_blocks=2, points=points),
        "remembers, groups of 1": Windows(groups=(1,), points=points),
    }
    spent = {label: (float("inf"), float("inf")) for label in variants}
    for _ in range(2):
        for label, windows in variants.items():
            flow, vocoder = _work(model, windows, codes, whole=label == "offline")
            spent[label] = min(spent[label][0], flow), min(spent[label][1], vocoder)
    flow, vocoder = spent["offline"]
    return [
        {
            "model": name, "sound_s": seconds, "variant": label, "dit": f / flow, "vocoder": v / vocoder,
            "together": (f * depth + v) / (flow * depth + vocoder), "cpu_s_per_s": (f * depth + v) / seconds,
        }
        for label, (f, v) in spent.items()
    ]  # fmt: skip


def _work(model: Code2Wav, windows: Windows, codes: Tensor, *, whole: bool) -> tuple[float, float]:
    """Seconds of processor time of codes to mel, and of mel to wave."""
    speech = Mels(model.dit, model.vocoder, model.config, windows=windows)
    start = time.process_time()
    mel = speech.mel(codes, voice=model.voice)
    between = time.process_time()
    if whole:
        model.vocode(mel)
    else:
        stream, size = StreamVocoder(model.vocoder), model.config.dit.block_frames
        state, at, index = stream.init_state(1, dtype=mel.dtype), 0, 0
        while at < mel.shape[2]:
            end = windows.own(index)[1] * size
            stream.step(mel[..., at:end], state, last=end >= mel.shape[2])
            at, index = end, index + 1
    return between - start, time.process_time() - between


# --------------------------------------------------------------------------------------------------------------- output


def print_table(title: str, rows: list[dict]) -> None:
    """For people."""
    print(f"\n{title}\n" + "".join(f"{key:>26}" if i < 3 else f"{key:>14}" for i, key in enumerate(rows[0])))  # fmt: skip
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        print("".join(f"{cell:>26}" if i < 3 else f"{cell:>14}" for i, cell in enumerate(cells)))


def draw(rows: list[dict], path: str) -> None:
    """Mel distance over look-back, a line a look-ahead, of the loud tiny model."""
    loud = [row for row in rows if row["model"] == "tiny, loud"]
    line_chart(
        path,
        title="Distance of windowed mel to the whole utterance (tiny, loud, one block a window)",
        x_label="blocks of look-back (240 ms each)",
        y_label="mean mel distance / deviation",
        ticks=["remembers" if back is None else str(back) for back in BACKS],
        series={
            f"look-ahead {ahead}": [row["mel_mean"] for row in loud if row["look_ahead"] == ahead]
            for ahead in AHEADS
        },
    )


if __name__ == "__main__":
    main()
