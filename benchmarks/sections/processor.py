"""Processor: a clip to log-mel and a picture to patches, against transformers' feature extractor and PIL processor."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from timing import Row, compare
from transformers import WhisperFeatureExtractor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from thinktalk.config import omni_7b
from thinktalk.layers.mel import log_mel
from thinktalk.media.image import image_patches


def rows(quick: bool) -> list[Row]:
    """A 2 s and a 30 s clip, as the reference pads them to 300 s; pictures of two sizes."""
    return [*_sound_rows(quick), *_picture_rows(quick)]


def _sound_rows(quick: bool) -> list[Row]:
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    out = []
    # short clips are the common case: a turn of a conversation
    for seconds, target in ((2, 50.0), (30, 1.0)):
        pcm = np.random.default_rng(0).standard_normal(seconds * 16_000).astype(np.float32) * 0.1
        ours = torch.from_numpy(pcm)[None]

        def theirs(pcm=pcm):
            return extractor(pcm, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")  # fmt: skip

        def mine(ours=ours):
            return log_mel(ours)

        error = (mine()[0] - theirs()["input_features"][0][:, : seconds * 100]).abs().max().item()
        out.append(
            compare(
                f"log-mel of {seconds} s", mine, theirs, repeats=3 if quick else 7, target=target,
                note=f"max difference {error:.1e}",
            )
        )  # fmt: skip
    return out


def _picture_rows(quick: bool) -> list[Row]:
    config = omni_7b()
    vision, visual = config.thinker.vision, config.visual
    size = {"shortest_edge": visual.min_pixels, "longest_edge": visual.max_pixels}
    processor = Qwen2VLImageProcessorPil(
        size=size, image_mean=list(visual.image_mean), image_std=list(visual.image_std)
    )
    out = []
    for height, width in ((448, 448), (1080, 1920)):
        values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        picture = Image.fromarray(values)

        def theirs(picture=picture):
            return processor(picture, return_tensors="pt")

        def mine(picture=picture):
            return image_patches(picture, vision, visual)

        same = torch.equal(mine()[0], theirs()["pixel_values"])
        out.append(
            compare(
                f"patches of {width} x {height}", mine, theirs, repeats=3 if quick else 7, target=1.0,
                note="bit-equal" if same else "DIFFERENT",
            )
        )  # fmt: skip
    return out
