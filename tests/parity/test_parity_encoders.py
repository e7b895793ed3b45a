"""Audio and vision encoders against transformers: float32 to 1e-5 over drawn lengths and grids, bf16 no worse than theirs."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import part_weights, tiny_reference

from thinktalk.config import tiny
from thinktalk.encoders import audio, windows
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.layers import segments

CONFIG = tiny().thinker
TOLERANCE = (
    1e-5  # float32 rounds at 6e-8; a few layers of sums in another order give 3e-7 (measured)
)


def build(kind, config, part):
    """As the loader does: without memory first, then given the checkpoint's tensors."""
    with torch.device("meta"):
        module = kind(config)
    module.load_state_dict(part_weights(tiny_reference(), part), assign=True)
    return module.eval()


@pytest.fixture(scope="module", autouse=True)
def _reference():
    """Made outside inference mode: its weights become ours."""
    return tiny_reference()


@pytest.fixture(scope="module")
def ears():
    return build(AudioEncoder, CONFIG.audio, "audio")


@pytest.fixture(scope="module")
def eyes():
    return build(VisionEncoder, CONFIG.vision, "vision")


def their_audio(mels, tower=None):
    tower = tower or tiny_reference().thinker.model.audio_tower
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    return tower(torch.cat(mels, 1), feature_lens=lengths).last_hidden_state


def their_vision(patches, grids, tower=None):
    tower = tower or tiny_reference().thinker.model.visual
    return tower(torch.cat(patches), grid_thw=torch.tensor(grids)).pooler_output


def draw_mels(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(CONFIG.audio.num_mels, n, generator=generator) for n in lengths]


def draw_patches(grids, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(t * h * w, CONFIG.vision.patch_values, generator=generator) for t, h, w in grids
    ]


def gap(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def assert_parity(ours, theirs):
    ours = torch.cat(ours)
    assert ours.shape == theirs.shape
    assert gap(ours, theirs) <= TOLERANCE, f"relative gap {gap(ours, theirs)}"


# --------------------------------------------------------------------------------------------------------------- audio

LENGTHS = [3000, 200, 1, 2, 3, 37, 137, 401, 537, 4]


@torch.inference_mode()
def test_every_clip_moves_the_audio_tokens():
    mels = draw_mels([400, 37, 250])
    before = their_audio(mels)
    for n, other in enumerate(draw_mels([400, 37, 250], seed=1)):
        after = their_audio([*mels[:n], other, *mels[n + 1 :]])
        assert gap(after, before) >= 100 * TOLERANCE


@torch.inference_mode()
def test_audio_parity(ears):
    mels = draw_mels(LENGTHS)
    assert_parity(ears.encode(mels), their_audio(mels))


@given(lengths=st.lists(st.integers(3, 650), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_audio_parity_of_drawn_clips(ears, lengths, seed):
    mels = draw_mels(lengths, seed)
    with torch.inference_mode():
        assert_parity(ears.encode(mels), their_audio(mels))


@torch.inference_mode()
def test_audio_that_sees_beyond_its_block_is_noticed(ears, monkeypatch):
    monkeypatch.setattr(segments, "_attend", joined_attention(segments._attend))
    mels = draw_mels(LENGTHS)
    with pytest.raises(AssertionError, match="relative gap"):
        assert_parity(ears.encode(mels), their_audio(mels))


@torch.inference_mode()
def test_audio_positions_one_late_are_noticed(ears, monkeypatch):
    table = audio._sinusoids
    monkeypatch.setattr(audio, "_sinusoids", lambda *a: table(*a).roll(1, 0))
    mels = draw_mels([250])
    with pytest.raises(AssertionError, match="relative gap"):
        assert_parity(ears.encode(mels), their_audio(mels))


# -------------------------------------------------------------------------------------------------------------- vision

GRIDS = [(1, 32, 32), (1, 2, 2), (3, 10, 12), (1, 34, 18), (2, 4, 6), (1, 32, 32), (2, 12, 10)]


@torch.inference_mode()
def test_every_picture_and_its_shape_move_the_vision_tokens():
    grids = [(1, 8, 12), (2, 6, 10)]
    patches = draw_patches(grids)
    before = their_vision(patches, grids)
    for n, other in enumerate(draw_patches(grids, seed=1)):
        changed = [*patches[:n], other, *patches[n + 1 :]]
        assert gap(their_vision(changed, grids), before) >= 100 * TOLERANCE
    for other_grids in ([(1, 12, 8), (2, 6, 10)], [(1, 8, 12), (2, 10, 6)]):
        assert gap(their_vision(patches, other_grids), before) >= 100 * TOLERANCE


@torch.inference_mode()
def test_vision_parity(eyes):
    patches = draw_patches(GRIDS)
    assert_parity(eyes.encode(patches, GRIDS), their_vision(patches, GRIDS))


sides = st.integers(1, 11).map(lambda units: 2 * units)


@given(
    grids=st.lists(st.tuples(st.integers(1, 3), sides, sides), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_vision_parity_of_drawn_grids(eyes, grids, seed):
    patches = draw_patches(grids, seed)
    with torch.inference_mode():
        assert_parity(eyes.encode(patches, grids), their_vision(patches, grids))


@pytest.fixture
def fresh_plans():
    """Faults planted in a plan must not stay in the cache."""
    windows.plan_windows.cache_clear()
    yield
    windows.plan_windows.cache_clear()


def swapped(grids):
    return [(t, w, h) for t, h, w in grids]


def joined_attention(attend):
    """Planted fault: all segments of a run as a single one."""
    return lambda q, k, v, C, S: attend(q, k, v, 1, C * S)


@pytest.mark.parametrize(
    "fault", ["rows for columns", "wider windows", "one frame", "all layers full"]
)
@torch.inference_mode()
def test_vision_faults_are_noticed(eyes, monkeypatch, fresh_plans, fault):
    if fault == "rows for columns":
        rotary = windows._rotary
        monkeypatch.setattr(windows, "_rotary", lambda clips, *a: rotary(swapped(clips), *a))
    elif fault == "wider windows":
        tiles = windows._tiles
        monkeypatch.setattr(windows, "_tiles", lambda clips, merge, n: tiles(clips, merge, n + 1))
    elif fault == "one frame":
        monkeypatch.setattr(segments, "_attend", joined_attention(segments._attend))
    else:
        config = dataclasses.replace(CONFIG.vision, full_attention_layers=(0, 1, 2, 3))
        monkeypatch.setattr(eyes, "config", config)
    patches = draw_patches([(3, 10, 12)])
    with pytest.raises(AssertionError, match="relative gap"):
        assert_parity(eyes.encode(patches, [(3, 10, 12)]), their_vision(patches, [(3, 10, 12)]))


# ---------------------------------------------------------------------------------------------------------------- bf16


@torch.inference_mode()
def test_bfloat16_is_no_further_from_float32_than_the_reference(ears, eyes):
    """Both round at 2^-8 in each layer; ours may round elsewhere, so half as far again is allowed."""
    reference = tiny_reference().thinker.model
    mels, grids = draw_mels([437, 200]), [(2, 10, 12), (1, 16, 16)]
    patches = draw_patches(grids)
    for exact, theirs, ours in (
        (
            their_audio(mels),
            their_audio(mels, copy.deepcopy(reference.audio_tower).bfloat16()),
            torch.cat(copy.deepcopy(ears).bfloat16().encode(mels)),
        ),
        (
            their_vision(patches, grids),
            their_vision(patches, grids, copy.deepcopy(reference.visual).bfloat16()),
            torch.cat(copy.deepcopy(eyes).bfloat16().encode(patches, grids)),
        ),
    ):
        assert ours.dtype == theirs.dtype == torch.bfloat16
        assert (ours - exact).norm() <= 1.5 * (theirs - exact).norm()
