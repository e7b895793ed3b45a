"""The vision encoder by itself: pictures together as alone, frames that do not see each other, passes, windows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktalk.config import tiny
from thinktalk.encoders import vision
from thinktalk.encoders.vision import VisionEncoder, VisionStream
from thinktalk.encoders.windows import plan_windows

CONFIG = tiny().thinker.vision
HOST = dict(head_dim=16, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return VisionEncoder(CONFIG).eval()


def patches(grid, seed=0):
    t, h, w = grid
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(t * h * w, CONFIG.patch_values, generator=generator)


def test_pictures_together_equal_pictures_alone(encoder, monkeypatch):
    grids = [(1, 8, 8), (3, 10, 4), (1, 2, 2), (2, 4, 10), (1, 8, 8), (1, 18, 6)]
    pixels = [patches(grid, seed) for seed, grid in enumerate(grids)]
    with torch.inference_mode():
        alone = [encoder.encode([p], [g])[0] for p, g in zip(pixels, grids, strict=True)]
        assert [len(x) for x in alone] == [t * h * w // 4 for t, h, w in grids]
        for limit in (
            1,
            64,
            100,
            10_000,
        ):  # passes of a frame, within a video, across pictures, all
            monkeypatch.setattr(vision, "PASS_PATCHES", limit)
            for tokens, want in zip(encoder.encode(pixels, grids), alone, strict=True):
                # float32 rounds at 6e-8; batched matmuls may sum in another order
                torch.testing.assert_close(tokens, want, rtol=0, atol=1e-5)
        other = encoder.encode([patches(g, 100) for g in grids], grids)
    for tokens, want in zip(other, alone, strict=True):
        assert (tokens - want).abs().max() > 1e-3  # another picture, other tokens


def test_no_pictures_give_no_tokens(encoder):
    assert encoder.encode([], []) == []


def test_passes_hold_what_they_promise(monkeypatch):
    monkeypatch.setattr(vision, "PASS_PATCHES", 100)
    grids = [(5, 4, 8), (1, 30, 30), (2, 8, 4), (1, 2, 2)]
    batches = list(vision._passes(grids))
    for batch in batches:
        filled = sum(count * grids[i][1] * grids[i][2] for i, _, count in batch)
        assert filled <= 100 or (len(batch) == 1 and batch[0][2] == 1)
    seen = sorted((i, f) for batch in batches for i, a, n in batch for f in range(a, a + n))
    assert seen == [(i, f) for i, (t, _, _) in enumerate(grids) for f in range(t)]


def test_frames_do_not_see_each_other(encoder):
    grid = (3, 6, 10)
    a, b = patches(grid, 1), patches(grid, 2)
    b[60:120] = a[60:120]
    with torch.inference_mode():
        x, y = encoder.encode([a], [grid])[0], encoder.encode([b], [grid])[0]
    torch.testing.assert_close(x[15:30], y[15:30], rtol=0, atol=1e-6)  # float32 rounding
    assert (x[:15] - y[:15]).abs().max() > 1e-3


def test_shape_of_a_picture_matters(encoder):
    """The same patches in another shape are another picture: places turn queries and keys."""
    with torch.inference_mode():
        x, y = (encoder.encode([patches((1, 4, 8))], [g])[0] for g in ((1, 4, 8), (1, 8, 4)))
    assert (x - y).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(1, 4, 5), (1, 3, 4), (1, 4, 6), (0, 4, 4)])
def test_wrong_grids_are_refused(encoder, grid):
    with pytest.raises(AssertionError, match="grid"):
        encoder.encode([patches((1, 4, 4))], [grid])


def test_half_precision(encoder):
    half = VisionEncoder(CONFIG).bfloat16().eval()
    half.load_state_dict(encoder.state_dict())
    grid = (2, 10, 6)
    with torch.inference_mode():
        want, got = (e.encode([patches(grid)], [grid])[0] for e in (encoder, half))
    assert got.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: 0.4 % an operation, some dozens of them in four layers
    assert (got - want).abs().max() < 0.05 * want.abs().max()


def test_training_after_inference_reaches_every_weight(encoder):
    """A plan cached in inference mode used as such in training would raise."""
    plan_windows.cache_clear()
    grid = (1, 10, 6)
    with torch.inference_mode():
        encoder.encode([patches(grid)], [grid])
    encoder.zero_grad()
    encoder.encode([patches(grid)], [grid])[0].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if not name.endswith(
            "attn.k.bias"
        ):  # softmax cancels what all keys share, but for the turn
            assert parameter.grad.abs().max() > 1e-6, name


def test_stream_of_grids_is_the_video(encoder):
    h, w, G = 6, 10, 4
    x = torch.stack([patches((G, h, w), 1), patches((G, h, w), 2)]).unflatten(1, (G, h * w))
    stream = VisionStream(encoder, h, w)
    with torch.inference_mode():
        rows = stream(x)
        clips = encoder.encode([row.flatten(0, 1) for row in x], [(G, h, w)] * 2)
    for row, clip in zip(rows, clips, strict=True):
        torch.testing.assert_close(row.flatten(0, 1), clip, rtol=0, atol=1e-5)  # float32 rounding
    assert stream(x[:, :0]).shape == (2, 0, h * w // 4, CONFIG.out_width)


def test_plan_of_a_huge_picture_is_not_kept(encoder, monkeypatch):
    """Its angles alone are 84 MB at the largest picture: eight of them must not stay."""
    plan_windows.cache_clear()
    with torch.inference_mode():
        want = encoder.encode([patches((1, 6, 6))], [(1, 6, 6)])[0]
        plan_windows.cache_clear()
        monkeypatch.setattr(vision, "PASS_PATCHES", 35)
        assert torch.equal(encoder.encode([patches((1, 6, 6))], [(1, 6, 6)])[0], want)
    assert plan_windows.cache_info().currsize == 0


# --------------------------------------------------------------------------------------------------------------- plans

sides = st.integers(1, 13)
clips_drawn = st.lists(st.tuples(st.integers(1, 3), sides, sides), min_size=1, max_size=4)


def check_plan(clips, plan, window=4):
    """Every unit stands in one window, with exactly the units of its own frame and 4x4 tile."""
    places = [
        (clip, frame, row // window, column // window)
        for clip, (t, h, w) in enumerate(clips)
        for frame in range(t)
        for row in range(h // 2)
        for column in range(w // 2)
    ]
    order = range(len(places)) if plan.to_windows is None else plan.to_windows.tolist()
    back = range(len(places)) if plan.to_frames is None else plan.to_frames.tolist()
    assert [order[i] for i in back] == list(range(len(places)))
    start, seen = 0, set()
    for count, size in plan.windows.runs:
        for _ in range(count):
            tile = {places[unit] for unit in order[start : start + size // 4]}
            assert len(tile) == 1
            assert not tile & seen
            seen |= tile
            start += size // 4
    assert start == len(places)
    assert seen == set(places)
    sizes = [size for count, size in plan.frames.runs for _ in range(count)]
    assert sizes == [h * w for t, h, w in clips for _ in range(t)]


@given(units=clips_drawn)
@settings(max_examples=40)
def test_plan_puts_every_unit_into_its_window(units):
    clips = tuple((t, 2 * h, 2 * w) for t, h, w in units)
    check_plan(clips, plan_windows(clips, merge=2, window=4, **HOST))


def test_wrong_windows_are_noticed():
    """Planted fault: windows of 3 units instead of 4."""
    clips = ((1, 16, 16),)
    with pytest.raises(AssertionError):
        check_plan(clips, plan_windows(clips, merge=2, window=3, **HOST))


def test_attention_calls_a_layer_do_not_grow_with_windows():
    """At most four sizes a picture (whole, right, bottom, corner); equal sizes of all pictures share a call."""
    plan = plan_windows(((1, 50, 38), (4, 50, 38), (1, 16, 16)), merge=2, window=4, **HOST)
    assert len(plan.windows.runs) == 4
    assert plan.frames.runs == ((5, 1900), (1, 256))
    assert plan_windows(((1, 64, 64),), merge=2, window=4, **HOST).windows.runs == ((64, 64),)
    assert plan_windows(((3, 8, 8),), merge=2, window=4, **HOST).to_windows is None
