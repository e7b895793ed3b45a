"""load_image, smart_resize and patchify: formats, modes, turns, limits, and the order of patches."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from media_files import (
    PICTURE_FORMATS,
    animation,
    heic_file,
    noise_picture,
    picture_bytes,
    sound_file,
)
from PIL import Image

from thinktalk.config import VisionConfig, VisualConfig, tiny
from thinktalk.errors import InputError
from thinktalk.media import image as image_module
from thinktalk.media.image import image_patches, load_image, patchify, smart_resize

VISION, VISUAL = tiny().thinker.vision, VisualConfig()
SMOOTH = Image.linear_gradient("L").resize((90, 60)).convert("RGB")


def gap(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max())


@pytest.mark.parametrize("fmt", PICTURE_FORMATS)
def test_every_format(fmt):
    options = {"quality": 95} if fmt in ("JPEG", "WEBP", "AVIF") else {}
    picture = load_image(picture_bytes(SMOOTH, fmt, **options))
    assert picture.mode == "RGB"
    assert picture.size == (90, 60)
    assert gap(picture, SMOOTH) <= (
        6 if options else 0
    )  # lossy formats move a smooth picture a little


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_heic_as_phones_write_it(quarter_turns):
    pytest.importorskip("pi_heif")
    picture = Image.new("RGB", (96, 64), (200, 30, 40))
    picture.paste((20, 60, 200), (0, 0, 48, 32))  # a blue corner, top left
    loaded = load_image(heic_file(quarter_turns=quarter_turns))
    expected = np.rot90(np.asarray(picture), quarter_turns).astype(int)
    assert loaded.size == expected.shape[1::-1]
    assert np.abs(np.asarray(loaded) - expected).mean() < 4  # colours pass through 4:2:0


def test_a_heic_that_holds_something_else():
    pytest.importorskip("pi_heif")
    data = picture_bytes(SMOOTH, "AVIF", quality=95)
    assert b"avif" in data[:32]
    with pytest.raises(InputError):
        load_image(data.replace(b"avif", b"heic"))


def test_without_pi_heif_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(InputError, match="pip install pi-heif"):
        load_image(heic_file())


def test_sources_of_every_kind(tmp_path):
    data = picture_bytes(SMOOTH, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (path, str(path), data, io.BytesIO(data), SMOOTH, np.asarray(SMOOTH)):
        assert gap(load_image(source), SMOOTH) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    picture = noise_picture(30, 50)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = load_image(picture_bytes(picture, "PNG", exif=exif))
    a, b = np.asarray(picture), np.asarray(upright)
    expected = {
        1: a, 2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2),
        6: np.rot90(a, -1), 7: a.transpose(1, 0, 2)[::-1, ::-1], 8: np.rot90(a, 1),
    }[orientation]  # fmt: skip
    assert np.array_equal(b, expected)


def test_damaged_exif_is_ignored():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    assert load_image(picture_bytes(SMOOTH, "JPEG", exif=exif)).size == (90, 60)


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    half = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
    assert load_image(clear).getpixel((5, 5)) == (255, 255, 255)
    assert load_image(half).getpixel((5, 5)) == (255, 127, 127)
    grey = Image.new("LA", (40, 40), (0, 0))
    assert load_image(picture_bytes(grey, "PNG")).getpixel((5, 5)) == (255, 255, 255)
    indexed = Image.new("RGB", (40, 40), (9, 9, 9)).quantize(4)
    clear_index = indexed.getpixel((5, 5))
    data = picture_bytes(indexed, "PNG", transparency=clear_index)
    assert load_image(data).getpixel((5, 5)) == (255, 255, 255)
    key = Image.new("RGB", (40, 40), (1, 2, 3))
    assert load_image(picture_bytes(key, "PNG", transparency=(1, 2, 3))).getpixel((5, 5)) == (255,) * 3  # fmt: skip


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes(mode):
    picture = SMOOTH.convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (90, 60))
    assert load_image(picture).mode == "RGB"


def test_cmyk_jpeg():
    red = Image.new("RGB", (40, 40), (200, 30, 40))
    assert gap(load_image(picture_bytes(red.convert("CMYK"), "JPEG", quality=95)), red) <= 6


def test_16_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 4000).astype(np.uint16).reshape(40, 100)
    for fmt in ("PNG", "TIFF"):
        out = np.asarray(load_image(picture_bytes(Image.fromarray(ramp), fmt)))[..., 0]
        assert np.abs(out - ramp / 257.0).max() <= 0.5
    unit = (ramp / 65535).astype(np.float32)
    out = np.asarray(load_image(picture_bytes(Image.fromarray(unit), "TIFF")))[..., 0]
    assert np.abs(out - unit * 255).max() <= 0.51


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame(fmt):
    assert abs(np.asarray(load_image(animation(fmt)))[-10:, -10:].mean() - 20) < 3


BAD = {
    "nothing": b"",
    "text": b"not a picture",
    "sound": sound_file("wav", "pcm_s16le", seconds=0.1),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",  # Pillow would run ghostscript
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "half png": picture_bytes(noise_picture(50, 50), "PNG")[:3000],
    "half jpeg": picture_bytes(noise_picture(50, 50), "JPEG")[:1000],
    "half webp": picture_bytes(noise_picture(50, 50), "WEBP")[:1000],
    "half avif": picture_bytes(noise_picture(50, 50), "AVIF")[:1000],
    "half gif": picture_bytes(noise_picture(50, 50), "GIF")[:1000],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_one_line(name, tmp_path, capfd):
    path = tmp_path / f"{name}.png"
    path.write_bytes(BAD[name])
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    assert f"{name}.png: " in str(caught.value)
    assert capfd.readouterr().err == ""


def png_header(width: int, height: int) -> bytes:
    """A png that declares this size and holds nothing of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


def test_decompression_bombs_are_refused_by_their_header():
    with pytest.raises(InputError, match="900000000 pixels"):
        load_image(png_header(30_000, 30_000))
    with pytest.raises(InputError, match="12000 x 9000 pixels, expected at most 89 million"):
        load_image(png_header(12_000, 9_000))  # Pillow itself would only warn


@pytest.mark.parametrize(
    "source", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(3, np.uint8),
               np.zeros((0, 4, 3), np.uint8), 5, None, ("a", 1)]
)  # fmt: skip
def test_bad_arrays_and_strangers(source):
    with pytest.raises(InputError):
        load_image(source)


# ---------------------------------------------------------------------------------------------------------------- size


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_smart_resize_keeps_its_promises(height, width):
    if max(height, width) / min(height, width) > 200:
        with pytest.raises(InputError):
            smart_resize(height, width, min_pixels=3136, max_pixels=12_845_056)
        return
    h, w = smart_resize(height, width, min_pixels=3136, max_pixels=12_845_056)
    assert h % 28 == w % 28 == 0
    assert h >= 28
    assert w >= 28
    assert h * w >= 3136 or max(height, width) / min(height, width) > 50
    assert h * w <= 12_845_056 or min(h, w) == 28


def test_ratio_over_200_names_the_picture(tmp_path):
    with pytest.raises(
        InputError, match="a picture: is 201 x 1, expected an aspect ratio of at most 200"
    ):
        smart_resize(1, 201, min_pixels=3136, max_pixels=12_845_056)
    path = tmp_path / "thin.png"
    path.write_bytes(picture_bytes(Image.new("RGB", (201, 1)), "PNG"))
    with pytest.raises(InputError, match=r"thin\.png: is 201 x 1"):
        load_image(path)
    with pytest.raises(InputError):
        smart_resize(0, 5, min_pixels=3136, max_pixels=12_845_056)


# ------------------------------------------------------------------------------------------------------------- patches


def patches_by_hand(frames: np.ndarray, vision: VisionConfig) -> np.ndarray:
    """One patch after the other, in plain loops."""
    if len(frames) % 2:
        frames = np.concatenate([frames, frames[-1:]])
    x = (frames.astype(np.float64) / 255 - VISUAL.image_mean) / VISUAL.image_std
    T, H, W, _ = frames.shape
    rows = []
    for t in range(0, T, 2):
        for block_h in range(0, H, 28):
            for block_w in range(0, W, 28):
                for h in (block_h, block_h + 14):
                    for w in (block_w, block_w + 14):
                        cube = x[t : t + 2, h : h + 14, w : w + 14]  # frame, line, column, colour
                        rows.append(cube.transpose(3, 0, 1, 2).reshape(-1))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 56, 84), (2, 28, 56), (3, 56, 28), (4, 28, 28)]
)
def test_patches_lie_in_the_order_of_the_reference(count, height, width):
    frames = np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)
    patches, grid = patchify(frames, VISION, VISUAL)
    assert grid == ((count + 1) // 2, height // 14, width // 14)
    assert patches.dtype == torch.float32
    expected = patches_by_hand(frames, VISION)
    assert patches.shape == expected.shape
    # float32 of values up to 2.7
    assert np.abs(patches.numpy() - expected).max() < 1e-6
    # planted fault: patches in plain raster order, not in groups of 2 x 2
    flat = expected.reshape(grid[0], grid[1] // 2, grid[2] // 2, 2, 2, -1)
    raster = flat.transpose(0, 1, 3, 2, 4, 5).reshape(expected.shape)
    assert grid[2] == 2 or np.abs(patches.numpy() - raster).max() > 0.1


def test_a_torch_tensor_of_frames_works_too():
    frames = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    a, _ = patchify(frames, VISION, VISUAL)
    b, _ = patchify(frames.numpy(), VISION, VISUAL)
    assert torch.equal(a, b)


def test_picture_and_its_tokens():
    patches, (t, gh, gw) = image_patches(noise_picture(100, 200), VISION, VISUAL)
    assert (t, gh, gw) == (1, 8, 14)
    assert patches.shape == (112, 1176)
    half = patches.view(112, 3, 2, 196)
    assert torch.equal(half[:, :, 0], half[:, :, 1])  # a picture is two equal frames


def test_frames_of_the_wrong_kind_are_our_mistake():
    with pytest.raises(AssertionError):
        patchify(np.zeros((1, 42, 28, 3), np.uint8), VISION, VISUAL)
    with pytest.raises(AssertionError):
        patchify(np.zeros((1, 28, 28, 3), np.float32), VISION, VISUAL)


def test_no_reader_of_ours_runs_foreign_programs():
    assert "EPS" not in image_module.FORMATS
