"""Noises: a name and a random generator -> pcm (S,) at 16 kHz, peak 1; 39 kinds, synthesised, no two times the same.

    EVENTS      bell, knock, bark, ...    one short happening each, that can be counted
    TEXTURES    rain, engine, siren, ...  something that goes on for some seconds

Each is the textbook model of its source: decaying inharmonic partials (bell), Karplus-Strong (guitar), pulses through
resonances (dog, frog), shaped noise (wind, waves), swept sines (siren, bird). Pitch, length and colour are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from thinktalk.data.synth.encode import RATE

__all__ = ["EVENTS", "TEXTURES", "glide", "noise_of", "tone"]

TAU = 2 * np.pi


def noise_of(name: str, rng: Generator, *, seconds: float = 3.0) -> np.ndarray:
    """One event (as long as it is), or `seconds` of a texture; float32, peak 1, without a click at its ends."""
    pcm = EVENTS[name](rng) if name in EVENTS else TEXTURES[name](rng, seconds)
    fade = min(80, len(pcm) // 4)
    pcm[:fade] *= np.linspace(0, 1, fade)
    pcm[-fade:] *= np.linspace(1, 0, fade)
    return (pcm / max(1e-9, np.abs(pcm).max())).astype(np.float32)


def tone(hertz: float, seconds: float, rng: Generator) -> np.ndarray:
    """A soft steady tone with a few harmonics."""
    return glide(hertz, hertz, seconds, rng)


def glide(start: float, stop: float, seconds: float, rng: Generator) -> np.ndarray:
    """A tone whose pitch goes evenly (in octaves) from one frequency to another."""
    hertz = np.geomspace(start, stop, _samples(seconds))
    weights = [1.0, rng.uniform(0, 0.5), rng.uniform(0, 0.25)]
    return sum(w * _sine(hertz * (k + 1)) for k, w in enumerate(weights)) * _rise_and_fall(len(hertz), 0.03)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ parts


def _samples(seconds: float) -> int:
    return round(seconds * RATE)


def _time(seconds: float) -> np.ndarray:
    return np.arange(_samples(seconds)) / RATE


def _sine(hertz: np.ndarray) -> np.ndarray:
    """A sine of a frequency that changes, its phase whole."""
    return np.sin(TAU * np.cumsum(hertz) / RATE)


def _decay(seconds: float, half_s: float) -> np.ndarray:
    return 0.5 ** (_time(seconds) / half_s)


def _rise_and_fall(count: int, edge_s: float) -> np.ndarray:
    edge = min(_samples(edge_s), count // 2)
    shape = np.ones(count)
    shape[:edge] = np.linspace(0, 1, edge)
    shape[count - edge :] = np.linspace(1, 0, edge)
    return shape


def _band(x: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """What lies between two frequencies, with soft edges (order: how steep)."""
    hertz = np.fft.rfftfreq(len(x), 1 / RATE) + 1e-3
    gain = 1 / np.sqrt((1 + (low / hertz) ** (2 * order)) * (1 + (hertz / high) ** (2 * order)))
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def _resonate(x: np.ndarray, formants: list[tuple[float, float]]) -> np.ndarray:
    """Through peaks of (Hz, width in Hz), side by side."""
    hertz = np.fft.rfftfreq(len(x), 1 / RATE)
    gain = sum(1 / (1 + ((hertz - f) / (width / 2)) ** 2) for f, width in formants) + 0.01
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def _pulses(hertz: np.ndarray) -> np.ndarray:
    """A pulse at every whole turn, what a voice or an engine begins with."""
    turns = np.cumsum(hertz) / RATE
    return np.diff(np.floor(turns), prepend=0.0)


def _scatter(event: Callable[[], np.ndarray], a_second: float, seconds: float, rng: Generator) -> np.ndarray:  # fmt: skip
    """Events at random moments."""
    out = np.zeros(_samples(seconds))
    for at in rng.integers(0, len(out), max(1, round(a_second * seconds))):
        one = event()[: len(out) - at]
        out[at : at + len(one)] += one
    return out


def _slowly(seconds: float, a_second: float, low: float, high: float, rng: Generator) -> np.ndarray:
    """A level that wanders between two bounds."""
    knots = rng.uniform(low, high, max(3, round(seconds * a_second) + 2))
    return np.interp(_time(seconds), np.linspace(0, seconds, len(knots)), knots)


def _partials(base: float, ratios: tuple[float, ...], seconds: float, half_s: float, rng: Generator) -> np.ndarray:  # fmt: skip
    """Decaying sines; higher ones die sooner."""
    t = _time(seconds)
    return sum(rng.uniform(0.5, 1) * np.sin(TAU * base * r * t) * 0.5 ** (t * (0.5 + r / 2) / half_s) for r in ratios if base * r < RATE / 2.2)  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- events


def _beep(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.12, 0.3)
    return np.sin(TAU * r.uniform(700, 1800) * _time(seconds)) * _rise_and_fall(_samples(seconds), 0.01)  # fmt: skip


def _buzzer(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.25, 0.5)
    return np.sign(np.sin(TAU * r.uniform(90, 180) * _time(seconds))) * _rise_and_fall(_samples(seconds), 0.01)  # fmt: skip


def _bell(r: Generator) -> np.ndarray:
    return _partials(r.uniform(500, 1100), (0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1), 1.2, r.uniform(0.15, 0.3), r)  # fmt: skip


def _gong(r: Generator) -> np.ndarray:
    rush = _band(r.standard_normal(_samples(1.8)), 200, 2500) * _decay(1.8, 0.25) * 0.4
    return _partials(r.uniform(70, 130), (1, 1.47, 2.09, 2.56, 3.4, 4.3, 5.2), 1.8, 0.5, r) + rush


def _drum(r: Generator) -> np.ndarray:
    start = r.uniform(120, 220)
    hertz = start * (0.45 + 0.55 * _decay(0.4, 0.04))
    return _sine(hertz) * _decay(0.4, 0.07) + 0.15 * r.standard_normal(_samples(0.4)) * _decay(0.4, 0.01)  # fmt: skip


def _cymbal(r: Generator) -> np.ndarray:
    return _band(r.standard_normal(_samples(0.8)), r.uniform(3500, 5000), 9000) * _decay(0.8, r.uniform(0.08, 0.18))  # fmt: skip


def _clap(r: Generator) -> np.ndarray:
    out = np.zeros(_samples(0.25))
    for k in range(3):
        at = _samples(k * r.uniform(0.008, 0.014))
        out[at:] += r.standard_normal(len(out) - at) * _decay(0.25, 0.004 if k < 2 else 0.03)[: len(out) - at]  # fmt: skip
    return _band(out, 700, r.uniform(2000, 3500))


def _knock(r: Generator) -> np.ndarray:
    hit = r.standard_normal(_samples(0.2)) * _decay(0.2, 0.003)
    base = r.uniform(180, 320)
    return _resonate(hit, [(base, 60), (base * 2.1, 90), (base * 3.7, 200)]) * _decay(0.2, 0.03)


def _click(r: Generator) -> np.ndarray:
    return _band(r.standard_normal(_samples(0.06)) * _decay(0.06, 0.0015), r.uniform(1500, 2500), 6000)  # fmt: skip


def _bark(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.16, 0.26)
    t = _time(seconds) / seconds
    voice = _pulses(r.uniform(350, 550) * (0.7 + 0.6 * np.sin(np.pi * t))) + 0.12 * r.standard_normal(len(t))  # fmt: skip
    return _resonate(voice, [(r.uniform(700, 1000), 250), (1700, 400), (2900, 600)]) * np.sin(np.pi * t) ** 0.6  # fmt: skip


def _meow(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.6, 0.9)
    t = _time(seconds) / seconds
    voice = _pulses(r.uniform(480, 680) * (0.8 + 0.35 * np.sin(np.pi * t)))
    closed, opened = _resonate(voice, [(700, 200), (2300, 300)]), _resonate(voice, [(1200, 300), (2900, 400)])  # fmt: skip
    mix = np.sin(np.pi * t) ** 2
    return (closed * (1 - mix) + opened * mix) * np.sin(np.pi * t**0.7)


def _moo(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.9, 1.3)
    t = _time(seconds) / seconds
    voice = _pulses(r.uniform(110, 150) * (0.85 + 0.25 * np.sin(np.pi * t)))
    return _resonate(voice, [(300, 120), (700, 200), (2200, 500)]) * np.sin(np.pi * t) ** 0.5


def _quack(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.16, 0.24)
    t = _time(seconds) / seconds
    voice = _pulses(r.uniform(190, 260) * (1.15 - 0.3 * t))
    return _resonate(voice, [(1100, 150), (1900, 200), (3000, 300)]) * np.sin(np.pi * t) ** 0.4


def _hoot(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.35, 0.55)
    t = _time(seconds) / seconds
    return _sine(r.uniform(330, 460) * (1 + 0.06 * np.sin(np.pi * t))) * np.sin(np.pi * t)


def _cuckoo(r: Generator) -> np.ndarray:
    high = r.uniform(620, 720)
    parts = [np.sin(TAU * h * _time(s)) * _rise_and_fall(_samples(s), 0.04) for h, s in ((high, 0.18), (high * 0.8, 0.28))]  # fmt: skip
    return np.concatenate([parts[0], np.zeros(_samples(0.07)), parts[1]])


def _drop(r: Generator) -> np.ndarray:
    start = r.uniform(500, 900)
    return _sine(np.geomspace(start, start * r.uniform(2.2, 3), _samples(0.12))) * _decay(
        0.12, 0.02
    )


def _laser(r: Generator) -> np.ndarray:
    start = r.uniform(3000, 4500)
    return np.sign(_sine(np.geomspace(start, 200, _samples(0.3)))) * _decay(0.3, 0.12)


def _horn(r: Generator) -> np.ndarray:
    seconds, base = r.uniform(0.35, 0.6), r.uniform(330, 440)
    t = _time(seconds)
    saw = sum(np.sin(TAU * base * q * k * t) / k for q in (1.0, 1.26) for k in range(1, 10))
    return saw * _rise_and_fall(len(t), 0.02)


def _whistle(r: Generator) -> np.ndarray:
    seconds = r.uniform(0.4, 0.7)
    t = _time(seconds)
    pitch = r.uniform(2100, 2700) * (1 + 0.02 * np.sign(np.sin(TAU * 30 * t)))
    breath = _band(r.standard_normal(len(t)), 1500, 4000) * 0.15
    return (_sine(pitch) + breath) * _rise_and_fall(len(t), 0.03)


def _guitar(r: Generator) -> np.ndarray:
    """Karplus and Strong 1983: a burst of noise in a loop that averages it, one turn of the loop at a time."""
    period = round(RATE / r.uniform(110, 330))
    turn, out = r.uniform(-1, 1, period), []
    for _ in range(_samples(0.9) // period):
        out.append(turn)
        turn = 0.498 * (turn + np.roll(turn, 1))
    return np.concatenate(out)


def _glass(r: Generator) -> np.ndarray:
    return _partials(r.uniform(1800, 2600), (1, 1.59, 2.1, 2.83), 0.7, r.uniform(0.05, 0.1), r)


def _spring(r: Generator) -> np.ndarray:
    t = _time(0.6)
    hertz = r.uniform(160, 240) * (1 + 0.5 * np.sin(TAU * r.uniform(10, 14) * t) * _decay(0.6, 0.15))  # fmt: skip
    return sum(_sine(hertz * k) / k for k in (1, 2, 3, 4)) * _decay(0.6, 0.15)


EVENTS: dict[str, Callable[[Generator], np.ndarray]] = {
    "beep": _beep, "buzzer": _buzzer, "bell": _bell, "gong": _gong, "drum": _drum, "cymbal": _cymbal, "clap": _clap,
    "knock": _knock, "click": _click, "bark": _bark, "meow": _meow, "moo": _moo, "quack": _quack, "hoot": _hoot,
    "cuckoo": _cuckoo, "water drop": _drop, "laser": _laser, "horn": _horn, "whistle": _whistle, "guitar": _guitar,
    "glass": _glass, "spring": _spring,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- textures


def _rain(r: Generator, s: float) -> np.ndarray:
    drops = _scatter(lambda: r.uniform(0.3, 1) * _sine(np.full(160, r.uniform(1500, 5000))) * 0.5 ** (np.arange(160) / 20), 250, s, r)  # fmt: skip
    return drops + 0.25 * _band(r.standard_normal(_samples(s)), 1200, 6500)


def _wind(r: Generator, s: float) -> np.ndarray:
    low, high = (_band(r.standard_normal(_samples(s)), f, f * 1.8) for f in (r.uniform(200, 300), r.uniform(450, 650)))  # fmt: skip
    return low * _slowly(s, 1.5, 0.2, 1, r) + high * _slowly(s, 1.5, 0.0, 0.8, r)


def _waves(r: Generator, s: float) -> np.ndarray:
    swell = np.sin(np.pi * (_time(s) / r.uniform(1.6, 2.4) + r.uniform(0, 1))) ** 4
    return _band(r.standard_normal(_samples(s)), 300, 3000, 1) * (0.08 + swell)


def _thunder(r: Generator, s: float) -> np.ndarray:
    roll = _band(r.standard_normal(_samples(s)), 30, r.uniform(120, 200)) * _slowly(s, 4, 0.2, 1, r)
    crack = np.zeros(_samples(s))
    burst = _band(r.standard_normal(_samples(0.4)), 200, 3000) * _decay(0.4, 0.05)
    crack[: len(burst)] = burst[: len(crack)]
    return (roll / np.abs(roll).max() + 0.5 * crack / np.abs(crack).max()) * np.linspace(1, 0.15, len(roll))  # fmt: skip


def _fire(r: Generator, s: float) -> np.ndarray:
    crackle = _scatter(lambda: r.uniform(0.2, 1) * r.standard_normal(120) * 0.5 ** (np.arange(120) / 12), 22, s, r)  # fmt: skip
    return crackle + 0.12 * _band(r.standard_normal(_samples(s)), 100, 900) * _slowly(s, 6, 0.3, 1, r)  # fmt: skip


def _engine(r: Generator, s: float) -> np.ndarray:
    rate = r.uniform(28, 55) * _slowly(s, 2, 0.9, 1.1, r)
    puffs = _pulses(rate) + 0.02 * r.standard_normal(_samples(s))
    return _resonate(puffs, [(90, 60), (210, 120), (600, 500)])


def _helicopter(r: Generator, s: float) -> np.ndarray:
    beat = np.maximum(0, np.sin(TAU * np.cumsum(np.full(_samples(s), r.uniform(10, 15))) / RATE)) ** 6  # fmt: skip
    return _band(r.standard_normal(_samples(s)), 60, 900, 1) * (0.1 + beat)


def _siren(r: Generator, s: float) -> np.ndarray:
    low, rate = r.uniform(500, 700), r.uniform(0.4, 0.8)
    hertz = low * 2 ** (0.5 - 0.5 * np.cos(TAU * rate * _time(s)))
    return _sine(hertz) + 0.4 * _sine(2 * hertz)


def _alarm(r: Generator, s: float) -> np.ndarray:
    high, rate = r.uniform(1500, 2200), r.uniform(3.5, 5)
    hertz = np.where(np.sin(TAU * rate * _time(s)) > 0, high, high * 0.75)
    return np.sign(_sine(hertz)) * 0.6 + _sine(hertz)


def _telephone(r: Generator, s: float) -> np.ndarray:
    t = _time(s)
    ring = np.sin(TAU * r.uniform(1100, 1400) * t) * (np.sin(TAU * 20 * t) > 0)
    return _band(ring, 500, 5000) * ((t % 1.5) < 1.0)


def _clock(r: Generator, s: float) -> np.ndarray:
    out, at, turn = np.zeros(_samples(s)), 0.0, 0
    pitches, step = (r.uniform(2500, 3500), r.uniform(1600, 2300)), r.uniform(0.4, 0.55)
    while _samples(at) < len(out):
        tick = np.sin(TAU * pitches[turn % 2] * _time(0.03)) * _decay(0.03, 0.004)
        part = out[_samples(at) : _samples(at) + len(tick)]
        part += tick[: len(part)]
        at, turn = at + step, turn + 1
    return out


def _bird(r: Generator, s: float) -> np.ndarray:
    def chirp() -> np.ndarray:
        f = r.uniform(2600, 4200)
        return glide(f, f * r.uniform(1.2, 1.6), r.uniform(0.06, 0.12), r)

    out, at = np.zeros(_samples(s)), r.uniform(0, 0.2)
    while _samples(at) < len(out):
        for _ in range(r.integers(2, 6)):
            one = chirp()
            part = out[_samples(at) : _samples(at) + len(one)]
            part += one[: len(part)]
            at += r.uniform(0.12, 0.18)
        at += r.uniform(0.25, 0.6)
    return out


def _cricket(r: Generator, s: float) -> np.ndarray:
    t = _time(s)
    pulses = np.maximum(0, np.sin(TAU * r.uniform(45, 60) * t)) ** 2
    return np.sin(TAU * r.uniform(4200, 5200) * t) * pulses * (np.sin(TAU * r.uniform(2, 3) * t) > 0)  # fmt: skip


def _frog(r: Generator, s: float) -> np.ndarray:
    croak = np.sin(TAU * r.uniform(1.1, 1.6) * _time(s)) > 0.2
    return _resonate(_pulses(r.uniform(50, 75) * _slowly(s, 3, 0.9, 1.1, r)), [(500, 120), (1400, 250)]) * croak  # fmt: skip


def _bee(r: Generator, s: float) -> np.ndarray:
    hertz = r.uniform(190, 250) * _slowly(s, 5, 0.9, 1.12, r)
    return _band(sum(_sine(hertz * k) / k for k in range(1, 9)), 150, 2500) * _slowly(s, 3, 0.4, 1, r)  # fmt: skip


def _heart(r: Generator, s: float) -> np.ndarray:
    beat = lambda: _sine(np.geomspace(75, 45, _samples(0.13))) * _decay(0.13, 0.03)  # noqa: E731
    out, at, gap = np.zeros(_samples(s)), 0.05, r.uniform(0.75, 1.0)
    while _samples(at) < len(out):
        for offset, level in ((0.0, 1.0), (0.28 * gap, 0.7)):
            part = out[_samples(at + offset) : _samples(at + offset) + _samples(0.13)]
            part += level * beat()[: len(part)]
        at += gap
    return out


def _hiss(r: Generator, s: float) -> np.ndarray:
    return _band(r.standard_normal(_samples(s)), r.uniform(2500, 3500), 8000)


TEXTURES: dict[str, Callable[[Generator, float], np.ndarray]] = {
    "rain": _rain, "wind": _wind, "sea": _waves, "thunder": _thunder, "fire": _fire, "engine": _engine,
    "helicopter": _helicopter, "siren": _siren, "alarm": _alarm, "telephone": _telephone, "clock": _clock, "bird": _bird,
    "cricket": _cricket, "frog": _frog, "bee": _bee, "heartbeat": _heart, "hiss": _hiss,
}  # fmt: skip
