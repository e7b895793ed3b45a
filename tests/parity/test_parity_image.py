"""Pictures and video frames to patches, bit for bit against transformers' PIL backend and formulas."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    smart_resize as reference_size,
)

from thinktalk.config import VisualConfig, omni_7b
from thinktalk.errors import InputError
from thinktalk.media import image as image_module
from thinktalk.media.image import image_patches, resize_image, smart_resize

VISION = omni_7b().thinker.vision
# official smallest size, and a largest one that keeps the test short
VISUAL = VisualConfig(max_pixels=200 * 28 * 28)


@functools.cache
def processor() -> Qwen2VLImageProcessorPil:
    size = {"shortest_edge": VISUAL.min_pixels, "longest_edge": VISUAL.max_pixels}
    return Qwen2VLImageProcessorPil(
        size=size, image_mean=list(VISUAL.image_mean), image_std=list(VISUAL.image_std)
    )


def picture(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def compare(image: Image.Image) -> None:
    theirs = processor()(image, return_tensors="pt")
    ours, grid = image_patches(image, VISION, VISUAL)
    assert [list(grid)] == theirs["image_grid_thw"].tolist()
    assert torch.equal(ours, theirs["pixel_values"])


# enlarged, as it is, reduced, a multiple of 28 already, thin, and halves that round to even (42 / 28 = 1.5)
SIZES = [(20, 31), (100, 150), (700, 900), (224, 280), (20, 1500), (42, 70), (98, 126)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_patches_are_bit_equal(height, width):
    compare(picture(height, width))


def test_every_pixel_counts():
    """The comparison is exact, so any change shows; a single pixel moves a patch by far more than rounding."""
    image = picture(100, 150)
    changed = image.copy()
    changed.putpixel((75, 50), tuple(255 - v for v in image.getpixel((75, 50))))
    a, _ = image_patches(image, VISION, VISUAL)
    b, _ = image_patches(changed, VISION, VISUAL)
    assert (a - b).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("resize_image", lambda p, h, w: p.resize((w, h), Image.Resampling.BILINEAR)),
        ("resize_image", lambda p, h, w: resize_image(p, h, w).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ("_normalised_values", lambda mean, std: np.tile(np.linspace(0, 1, 256, dtype=np.float32), (3, 1))),
        ("smart_resize", lambda h, w, **k: (h // 28 * 28, w // 28 * 28)),
    ],
)  # fmt: skip
def test_planted_faults(monkeypatch, name, fault):
    monkeypatch.setattr(image_module, name, fault)
    with pytest.raises(AssertionError):
        compare(picture(100, 150))


def test_planted_fault_in_the_last_bit(monkeypatch):
    """Normalising in float64 instead of float32 differs in the last bit only, and is seen."""
    visual = dataclasses.replace(VISUAL)
    values = np.arange(256) / 255
    table = (values - np.array(visual.image_mean)[:, None]) / np.array(visual.image_std)[:, None]
    monkeypatch.setattr(image_module, "_normalised_values", lambda *_: table.astype(np.float32))
    with pytest.raises(AssertionError):
        compare(picture(100, 150))


@settings(max_examples=300)
@given(
    st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([3136, 100_352]),
    st.sampled_from([12_845_056, 602_112, 100_352 * 1.05]),
)  # fmt: skip
def test_smart_resize_is_the_references(height, width, least, most):
    try:
        expected = reference_size(height, width, 28, least, most)
    except ValueError:
        with pytest.raises(InputError):
            smart_resize(height, width, min_pixels=least, max_pixels=most)
        return
    assert smart_resize(height, width, min_pixels=least, max_pixels=most) == expected
