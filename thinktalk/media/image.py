"""Pictures in: png, jpeg, webp, avif, gif, heic, ... -> PIL RGB -> patches (gh gw, 1176) and their grid (1, gh, gw).

    load_image    upright, 8 bits, on white, first frame
    smart_resize  sides to multiples of 28, area between min and max, aspect ratio kept
    patchify      (x / 255 - mean) / std, cut into patches of 2 frames x 14 x 14 pixels, 2 x 2 neighbours together

Bit-equal to the reference's PIL backend. T frames, H, W pixels, C colours, P patch side, M merge side.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from thinktalk.config import VisionConfig, VisualConfig, exact_div
from thinktalk.errors import InputError
from thinktalk.media.container import no_crash
from thinktalk.media.fetch import describe, is_tensor, open_source, open_stream

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "image_patches", "load_image", "open_picture", "patchify", "quiet", "resize_image", "smart_resize", "to_rgb",
]  # fmt: skip

logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # else its errors about damaged files go to stderr

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""What Pillow may open: its other readers run foreign programs or are rarely looked after."""
MAX_PIXELS = 89_478_485
"""Largest picture decoded (Pillow's own limit against decompression bombs)."""
MAX_RATIO = 200
"""Longest side over shortest; the reference resizes nothing thinner."""
EXPECTED = "a picture (png, jpeg, webp, avif, gif, heic)"


def load_image(source: Any, *, name: str | None = None, allow_urls: bool = False) -> Image.Image:
    """An upright 8-bit RGB picture of a path, bytes, open file, URL, PIL image or uint8 array (H, W[, C]).

    EXIF orientation is applied, transparency lies on white, 16 bits become 8, of an animation the first frame is taken.
    Raises InputError.
    """
    label = describe(source, name=name)
    with no_crash(label, EXPECTED), quiet():
        if isinstance(source, Image.Image):
            _check_pixels(*source.size, label)
            return to_rgb(_upright(source))
        if isinstance(source, np.ndarray) or is_tensor(source):
            return _from_array(np.asarray(source), label)
        opened = open_source(source, allow_urls=allow_urls, what=EXPECTED)
        with open_picture(opened, label) as picture:
            picture.load()
            return to_rgb(_upright(picture))


@contextlib.contextmanager
def open_picture(opened: bytes | Path, name: str) -> Iterator[Image.Image]:
    """A Pillow image (perhaps animated) that is not decoded yet, its size checked."""
    with open_stream(opened) as file, _open(file, name) as picture:
        yield picture


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings about odd metadata, and its own bomb warning, are no news: our limits speak."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(file: Any, name: str) -> Image.Image:
    head = file.read(32)
    file.seek(0)
    if head[4:8] == b"ftyp" and b"avif" not in head and b"avis" not in head:
        return _open_heif(file, name)
    picture = Image.open(file, formats=FORMATS)
    _check_pixels(*picture.size, name)
    return picture


def _open_heif(file: Any, name: str) -> Image.Image:
    try:
        import pi_heif
    except ImportError:
        raise InputError(f"{name}: is HEIC, expected another picture format; pip install pi-heif") from None  # fmt: skip
    heif = pi_heif.open_heif(file, convert_hdr_to_8bit=True)
    _check_pixels(*heif.size, name)
    picture = heif.to_pillow()
    # libheif has turned it already; a camera's EXIF would turn it again
    picture.getexif().pop(0x0112, None)
    picture.info.pop("exif", None)
    return picture


def _check_pixels(width: int, height: int, name: str) -> None:
    if not width or not height:
        raise InputError(f"{name}: has {width} x {height} pixels, expected a picture")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: has {width} x {height} pixels, expected at most {MAX_PIXELS / 1e6:.0f} million; reduce it")  # fmt: skip
    _check_ratio(height, width, name)


def _check_ratio(height: int, width: int, name: str) -> None:
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_RATIO:
        raise InputError(f"{name}: is {width} x {height}, expected an aspect ratio of at most {MAX_RATIO}; crop it")  # fmt: skip


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(picture.getexif().get(0x0112))  # 0x0112: Orientation
    except Exception:  # damaged EXIF says nothing about the pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as RGB; transparency is laid on white."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture.copy() if type(picture) is not Image.Image else picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _to_8_bits(grey: np.ndarray) -> np.ndarray:
    """16-bit grey (0..65535) or float grey (0..1) as uint8; Pillow itself would clip at 255."""
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey.astype(np.float64)) * (255.0 if np.nanmax(grey, initial=0) <= 1 else 1.0)  # fmt: skip
    else:
        grey = grey.astype(np.float64) / 257.0  # 65535 / 255
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):  # fmt: skip
        raise InputError(f"{name}: is {array.dtype} of shape {array.shape}, expected uint8 (H, W), (H, W, 3) or (H, W, 4)")  # fmt: skip
    _check_pixels(array.shape[1], array.shape[0], name)
    return to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))


# ---------------------------------------------------------------------------------------------------------------- size


def smart_resize(
    height: int,
    width: int,
    *,
    factor: int = 28,
    min_pixels: float,
    max_pixels: float,
    name: str = "a picture",
) -> tuple[int, int]:
    """(height, width) in multiples of `factor` with min_pixels..max_pixels and about the same aspect ratio.

    Raises InputError for an aspect ratio over 200. As the reference, rounding half to even.

    >>> smart_resize(480, 640, min_pixels=3136, max_pixels=12845056)
    (476, 644)
    """
    _check_ratio(height, width, name)
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        h = max(factor, math.floor(height / beta / factor) * factor)
        w = max(factor, math.floor(width / beta / factor) * factor)
    elif h * w < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h = math.ceil(height * beta / factor) * factor
        w = math.ceil(width * beta / factor) * factor
    return h, w


def resize_image(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Pillow's bicubic (antialiased) resize."""
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), resample=Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------------------------- patches


def patchify(
    frames: np.ndarray | Tensor, vision: VisionConfig, visual: VisualConfig
) -> tuple[Tensor, tuple[int, int, int]]:
    """Patches (t gh gw, C 2 14 14) float32 and the grid (t, gh, gw) of frames (T, H, W, 3) uint8.

    H and W are multiples of 28; an odd T repeats the last frame. Rows run over t, then 2 x 2 groups of patches, then
    the four of a group; each row over colour, frame, line, column.
    """
    frames = np.asarray(frames)
    T, H, W, C = frames.shape
    assert vision.in_channels == C and frames.dtype == np.uint8, f"expected uint8 RGB, got {frames.dtype} {frames.shape}"  # fmt: skip
    P, M, S = vision.patch, vision.merge, vision.temporal_patch
    t, gh, gw = -(-T // S), exact_div(H, P), exact_div(W, P)
    assert gh % M == 0 and gw % M == 0, f"{H} x {W} is not a multiple of {vision.factor}"
    still = T == 1
    if not still and T % S:
        frames = np.concatenate([frames, np.repeat(frames[-1:], S - T % S, 0)])
    s = 1 if still else S  # a single picture is normalised once and repeated afterwards
    cut = frames.reshape(t, s, gh // M, M, P, gw // M, M, P, C).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    out = np.empty((*cut.shape[:6], S, P, P), np.float32)
    table_C256 = _normalised_values(visual.image_mean, visual.image_std)
    for c in range(C):
        # only 256 values exist a colour: looked up, they are the reference's to the bit, and fast
        out[:, :, :, :, :, c] = table_C256[c][cut[:, :, :, :, :, c]]
    import torch  # not above: who decodes pictures for others needs none of it

    return torch.from_numpy(out.reshape(t * gh * gw, C * S * P * P)), (t, gh, gw)


def image_patches(
    picture: Image.Image, vision: VisionConfig, visual: VisualConfig
) -> tuple[Tensor, tuple[int, int, int]]:
    """Patches (gh gw, 1176) and the grid (1, gh, gw) of one RGB picture, resized to the model's limits."""
    height, width = smart_resize(
        picture.height, picture.width, factor=vision.factor,
        min_pixels=visual.min_pixels, max_pixels=visual.max_pixels,
    )  # fmt: skip
    return patchify(np.asarray(resize_image(picture, height, width))[None], vision, visual)


@functools.cache
def _normalised_values(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(C, 256) float32: every 8-bit value, rescaled in float64 and normalised in float32 as the reference does."""
    values = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean_C1, std_C1 = (np.array(v, np.float32)[:, None] for v in (mean, std))
    return (values - mean_C1) / std_C1
