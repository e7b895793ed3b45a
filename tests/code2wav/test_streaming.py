"""Streamed speech: windows, what they remember, noise, batches of sessions, memory, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from thinktalk.code2wav import dit as dit_module
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.blocks import Blocks, lay_out
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import draw_noise
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, SpeechState, Windows
from thinktalk.code2wav.vocoding import StreamVocoder
from thinktalk.config import BigVGANConfig, Code2WavConfig, DiTConfig, SpeakerEncoderConfig, nano
from thinktalk.errors import ConfigError, InputError
from thinktalk.stream import fork, tensors

CONFIG = Code2WavConfig(
    dit=DiTConfig(
        width=16, num_layers=3, num_heads=2, head_dim=8, code_width=8, num_codes=50, block_frames=6, num_mels=16,
        look_ahead_layers=(1,), look_backward_layers=(0, 2), speaker_width=4,
        speaker=SpeakerEncoderConfig(
            out_width=6, channels=(8, 8, 8, 16), kernels=(5, 3, 3, 1), dilations=(1, 2, 3, 1), attention_channels=4, se_channels=4
        ),
    ),
    vocoder=BigVGANConfig(
        num_mels=16, initial_channels=16, upsample_rates=(3, 2), upsample_kernels=(7, 4), resblock_kernels=(3,), resblock_dilations=((1, 2),)
    ),
)  # fmt: skip
FLOW = dict(points=3, method="midpoint")
HOP = CONFIG.code_samples
EXACT = (
    1e-10  # float64 rounds at 1e-16, sums in another order at 1e-13; any real fault is far above
)


def make_speech(windows: Windows, config: Code2WavConfig = CONFIG) -> Speech:
    """Weights of gain 1, or the wave would not hear the codes."""
    torch.manual_seed(0)
    dit, vocoder = DiT(config.dit).double(), BigVGAN(config.vocoder).double()
    with torch.no_grad():
        for module in (dit, vocoder):
            for name, p in module.named_parameters():
                fan_in = p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()
                nn.init.normal_(p, std=0.3 if p.ndim == 1 else 1.0 if "codes" in name else fan_in**-0.5)  # fmt: skip
        vocoder.conv_post.weight.mul_(0.02)
    return Speech(dit, vocoder, config, windows=windows)


def make_voice(seed: int) -> Voice:
    g = torch.Generator().manual_seed(seed)
    return Voice(f"v{seed}", torch.randn(1, 4, generator=g), torch.randn(1, 20, 16, generator=g), 0)


def draw_codes(n: int, seed: int = 0, rows: int = 1) -> Tensor:
    return torch.randint(0, 51, (rows, n), generator=torch.Generator().manual_seed(seed))


VOICE = make_voice(1)


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def assert_same(a: Tensor, b: Tensor) -> None:
    assert gap(a, b) <= EXACT


def test_boundaries() -> None:
    windows = Windows()
    own = [windows.own(i) for i in range(9)]
    assert own == [
        (0, 2),
        (2, 5),
        (5, 9),
        (9, 15),
        (15, 23),
        (23, 35),
        (35, 47),
        (47, 59),
        (59, 71),
    ]
    assert [windows.computed(i) for i in (0, 3)] == [(0, 3), (9, 16)]
    far = Windows(look_back_blocks=3, look_ahead_blocks=2, groups=(1, 1, 2, 4, 6))
    assert [far.computed(i) for i in (0, 2, 5)] == [(0, 3), (0, 6), (11, 22)]


@pytest.mark.parametrize("fault", [{"groups": ()}, {"groups": (1, 0)}, {"look_back_blocks": -1}, {"vocoder_lookahead": -2}])  # fmt: skip
def test_windows_that_are_none(fault: dict) -> None:
    with pytest.raises(ConfigError, match=f"windows: {next(iter(fault))}"):
        Windows(**fault)


def test_one_window_is_the_whole() -> None:
    """A window that holds everything, and a vocoder that sees all: the offline wave, with the noise of the same seed."""
    speech = make_speech(Windows(groups=(20,), vocoder_lookahead=99, **FLOW))
    offline, codes = Code2Wav(speech.dit, speech.vocoder.bigvgan, CONFIG), draw_codes(31)
    noise = draw_noise(62, 16, generator=torch.Generator().manual_seed(7)).double()
    whole = offline(codes, VOICE, noise=noise, **FLOW)
    wave = speech(codes, voice=VOICE, seed=7)
    assert wave.shape == (1, 31 * HOP)
    assert gap(wave.float(), whole) <= 1e-6  # offline gives float32 waves
    assert_same(speech(codes, voice=VOICE, noise=noise), wave)
    for other in (dict(seed=8), dict(seed=7, voice=make_voice(2))):
        assert gap(speech(codes, **{"voice": VOICE, **other}), wave) > 1e-3


def without_look_ahead() -> Code2WavConfig:
    return dataclasses.replace(CONFIG, dit=dataclasses.replace(CONFIG.dit, look_ahead_layers=()))


def assert_past_is_heard(guidance: float = 0.5, **windows) -> None:
    """Where no layer looks ahead, windows that wait for nothing give the wave of the whole utterance."""
    config, codes = without_look_ahead(), draw_codes(38, rows=2)
    flow = dict(look_ahead_blocks=0, vocoder_lookahead=99, guidance=guidance, **FLOW)
    whole = make_speech(Windows(groups=(20,), **flow), config)
    parts = make_speech(Windows(groups=(1, 3, 2), **flow, **windows), config)
    start = dict(voice=[VOICE, make_voice(2)], seed=[1, 2])
    assert_same(parts(codes, **start), whole(codes, **start))


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_past_is_heard_as_it_was_spoken(guidance: float) -> None:
    assert_past_is_heard(guidance=guidance)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_planted_look_back_is_not_the_past(blocks: int) -> None:
    """Blocks computed again do not end where they ended the first time: they see less of what came before."""
    with pytest.raises(AssertionError):
        assert_past_is_heard(look_back_blocks=blocks)


def older(self: dit_module.Memory, x: Tensor) -> Tensor | None:
    """Planted: the block before the newest is remembered."""
    self.made.append(x[(self.kept - 1).clamp(0)])
    return None if self.past is None else self.past[len(self.made) - 1]


def misplaced(*args, **kw) -> Blocks:
    """Planted: the past stands where the first block stands."""
    blocks = lay_out(*args, **kw)
    return dataclasses.replace(blocks, past_cos=blocks.cos[:1], past_sin=blocks.sin[:1])


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [(dit_module.Memory, "exchange", older), (dit_module, "lay_out", misplaced)],
)
def test_planted_wrong_past(monkeypatch, owner: object, name: str, fault: object) -> None:
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(AssertionError):
        assert_past_is_heard()


def together(speech: Speech, streams: list[SpeechState], said: list[Tensor]) -> list[Tensor]:
    """Sessions that begin at different times, whose windows run in one batch whenever several are ready."""
    waves: list[list[Tensor]] = [[] for _ in streams]
    for tick in range(60):
        for i, (state, codes) in enumerate(zip(streams, said, strict=True)):
            at = 2 * (tick - 3 * i)  # two codes a tick
            if 0 <= at < codes.shape[1]:
                speech.collect(state, codes[:, at : at + 2], last=at + 2 >= codes.shape[1])
        ready = [i for i, state in enumerate(streams) if speech.ready(state)]
        if ready and tick % 4 == 0:
            for i, wave in zip(ready, speech.run([streams[i] for i in ready]), strict=True):
                waves[i].append(wave)
    assert all(state.done for state in streams)
    return [torch.cat(own, 1) for own in waves]


@pytest.mark.parametrize("blocks", [None, 1])
def test_sessions_together_are_each_alone(blocks: int | None) -> None:
    speech = make_speech(Windows(groups=(1, 2), look_back_blocks=blocks, **FLOW))
    starts = [dict(voice=make_voice(i), seed=i) for i in range(3)]
    said = [draw_codes(n, n) for n in (34, 21, 13)]
    company = []
    run = speech.run
    speech.run = lambda states: company.append(len(states)) or run(states)  # type: ignore[method-assign]
    waves = together(speech, [speech.init_state(1, **start) for start in starts], said)
    assert {1, 2, 3} <= set(company)
    for wave, codes, start in zip(waves, said, starts, strict=True):
        assert_same(wave, speech(codes, **start))
    with pytest.raises(AssertionError):  # planted: a neighbour's voice
        assert_same(waves[0], speech(said[0], voice=starts[1]["voice"], seed=0))


def test_interruption_is_dropping_the_state() -> None:
    """At every moment a fork goes on as the stream would have, whatever was said after it was taken."""
    speech, codes, start = make_speech(Windows(groups=(1, 2), **FLOW)), draw_codes(17), dict(voice=VOICE, seed=5)  # fmt: skip
    whole, state, out = speech(codes, **start), speech.init_state(1, **start), []
    for n in range(17):
        kept, heard = fork(state), sum(w.shape[1] for w in out)
        speech.step(draw_codes(9, 3), kept, last=True)  # another future, thrown away
        again = fork(state)
        assert_same(speech.step(codes[:, n:], again, last=True), whole[:, heard:])
        out.append(speech.step(codes[:, n : n + 1], state))


def test_a_window_that_fails_can_run_again(monkeypatch) -> None:
    """A device may run out of memory for a whole batch; the engine then tries the streams apart."""
    speech, codes = make_speech(Windows(groups=(1,), **FLOW)), draw_codes(12)
    whole, state = speech(codes, voice=VOICE), speech.init_state(1, voice=VOICE)
    speech.collect(state, codes, last=True)
    waves = []
    while speech.ready(state):
        with monkeypatch.context() as patch:
            patch.setattr(StreamVocoder, "step", lambda *args, **kw: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                speech.run([state])
        waves += speech.run([state])
    assert_same(torch.cat(waves, 1), whole)


def test_half_precision() -> None:
    """The flow in bfloat16, the walk and the vocoder in float32: near, within what 8 bits of mantissa leave."""
    speech, codes = make_speech(Windows(groups=(1, 2), **FLOW)).float(), draw_codes(20)
    wave = speech(codes, voice=VOICE)
    half = Speech(speech.dit.bfloat16(), speech.vocoder.bigvgan, CONFIG, windows=speech.windows)
    near = half(codes, voice=VOICE)
    assert near.dtype == torch.float32
    assert gap(near, wave) < 0.2


def test_memory_is_flat() -> None:
    speech = make_speech(Windows(groups=(1, 2), **FLOW))
    state, sizes = speech.init_state(1, voice=VOICE), []
    for n in range(60):
        speech.step(draw_codes(6, n), state)  # two blocks: one window in the steady run
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(state)}  # fmt: skip
        sizes.append(sum(storages.values()))
    assert state.first > 100
    assert max(sizes[10:]) == max(sizes[10:14])
    assert state.past is not None
    assert speech.past_bytes == state.past.nbytes


def test_a_given_noise_may_end() -> None:
    speech = make_speech(Windows(**FLOW))
    state = speech.init_state(1, voice=VOICE, noise=torch.randn(20, 16))
    speech.collect(state, [1] * 8)
    with pytest.raises(InputError, match="noise: 20 frames, expected 2 for each code"):
        speech.collect(state, [1] * 3)
    assert speech.step([1, 2], state, last=True).shape == (1, 10 * HOP)  # nothing was lost
    with pytest.raises(InputError, match="noise: got shape"):
        speech.init_state(1, voice=VOICE, noise=torch.randn(20, 15))


@pytest.mark.parametrize("bad", [-1, 51])
def test_unknown_codes_are_refused(bad: int) -> None:
    """One session's fault never reaches the batch."""
    speech = make_speech(Windows(**FLOW))
    state = speech.init_state(1, voice=VOICE)
    with pytest.raises(InputError, match=f"codes: got {bad}, expected 0 to 50"):
        speech.collect(state, [3, bad])
    assert speech.wants(state) == 9  # three blocks of three codes
    with pytest.raises(InputError, match="made for another model"):
        speech.init_state(1, voice=dataclasses.replace(VOICE, cond=torch.zeros(1, 5)))


def test_what_it_waits_for() -> None:
    speech = make_speech(Windows(groups=(1, 2), **FLOW))
    state = speech.init_state(1, voice=VOICE)
    assert [speech.wants(state), speech.ready(state)] == [6, False]
    speech.collect(state, torch.tensor([1, 2, 3, 4]))
    assert [speech.wants(state), speech.ready(state)] == [2, False]
    speech.collect(state, [5, 6, 7])
    assert [speech.wants(state), speech.ready(state)] == [0, True]
    assert len(speech.run([state])) == 1
    assert [speech.wants(state), speech.ready(state)] == [12 - 7, False]
    speech.collect(state, [], last=True)
    assert [speech.wants(state), speech.ready(state), state.done] == [0, True, False]
    speech.run([state])
    assert [speech.wants(state), speech.ready(state), state.done] == [0, False, True]


def test_silence() -> None:
    """The Talker may stop at once."""
    speech = make_speech(Windows(**FLOW))
    state = speech.init_state(1, voice=VOICE)
    assert speech.step([], state, last=True).shape == (1, 0)
    assert state.done
    assert not speech.ready(state)


def official_kernels() -> Code2WavConfig:
    """Official blocks, kernels and rates on narrow layers."""
    return Code2WavConfig(
        dit=dataclasses.replace(CONFIG.dit, block_frames=24), vocoder=BigVGANConfig(num_mels=16, initial_channels=64)
    )  # fmt: skip


def test_first_sound_officially() -> None:
    """240 ms need 36 codes: a block, the block it looks ahead at, and what the vocoder waits for."""
    speech = make_speech(Windows(points=2, method="euler"), official_kernels())
    state, samples = speech.init_state(1, voice=VOICE), {0: 0}
    for n in range(1, 37):
        samples[n] = samples[n - 1] + speech.step([n], state).shape[1]
    assert speech.vocoder.lookahead == 24
    assert [samples[n] for n in (23, 24, 35, 36)] == [0, 0, 0, 24 * 240]
    early = make_speech(Windows(points=2, method="euler", groups=(1,), look_ahead_blocks=0, vocoder_lookahead=0), official_kernels())  # fmt: skip
    assert early.step([1] * 12, early.init_state(1, voice=VOICE)).shape[1] == 24 * 240


@pytest.mark.parametrize("vocoder", [official_kernels().vocoder, nano().code2wav.vocoder])  # type: ignore[union-attr]
def test_what_the_vocoder_leaves_out_is_below_float32(vocoder: BigVGANConfig) -> None:
    """Frames beyond the default look-ahead move a sample by less than 1e-9 of the wave; float32 rounds at 6e-8."""
    config = dataclasses.replace(vocoder, num_mels=16, initial_channels=64)
    torch.manual_seed(0)
    model = BigVGAN(config).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            fan_in = p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()
            nn.init.normal_(p, std=0.1 if p.ndim == 1 else fan_in**-0.5)
        model.conv_post.weight.mul_(0.02)
        mel = torch.randn(1, 16, 60, dtype=torch.float64) - 3
        whole = model(mel)
        loud = torch.cat([mel[..., :30], torch.randn(1, 16, 30, dtype=torch.float64) - 3], 2)
        moved = (model(loud) - whole).view(60, -1).abs().amax(1) / whole.std()
    ahead = StreamVocoder(model).lookahead
    assert ahead < model.lookahead
    assert moved[29 - ahead] < 1e-9
    assert moved[29 - ahead // 2] > 1e-4  # planted: half as much would be heard
