"""The largest difference from transformers of every part, on one random checkpoint: a table, then one JSON line.

    python benchmarks/parity.py [--seeds 3] [--write docs/parity.md]

The tests in tests/parity decide; this prints the figures. An error is max|a - b| / max|b| in float32, but for waves, where it is
of full scale.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from page import put
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "parity")]

try:
    import test_parity_end_to_end as end_to_end
    from reference import make_reference, part_weights
    from transformers import WhisperFeatureExtractor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
except ImportError as missing:
    sys.exit(f"parity: {missing}; install the extra: pip install -e '.[parity,dev]'")

from thinktalk import config as cfg
from thinktalk import load
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import sample
from thinktalk.code2wav.speaker import Voice
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.layers.mel import log_mel
from thinktalk.media.image import image_patches
from thinktalk.messages import Embedded
from thinktalk.talker.model import Talker
from thinktalk.thinker.model import Thinker
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = cfg.tiny()


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def filled(module: torch.nn.Module, reference, part: str) -> torch.nn.Module:
    module.load_state_dict(part_weights(reference, part))
    return module.eval()


@torch.no_grad()
def parts(seed: int) -> Iterator[tuple[str, float]]:
    """(part, error) of one random model on one set of random inputs."""
    g = torch.Generator().manual_seed(seed)
    reference = make_reference(CONFIG, seed)
    pcm = torch.randn(1, 16000 * 7 + 321, generator=g) * 0.1
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    whole = extractor(
        pcm[0].numpy(), sampling_rate=16000, return_attention_mask=True, return_tensors="pt"
    )
    frames = int(whole["attention_mask"].sum())
    mel = log_mel(pcm)
    yield "log-mel, 7 s", error(mel[0], whole["input_features"][0, :, :frames])

    picture = end_to_end.picture(333, 217, seed)
    size = {"shortest_edge": 3136, "longest_edge": 12845056}
    seen = Qwen2VLImageProcessorPil(size=size)(images=[picture], return_tensors="pt")
    patches, grid = image_patches(picture, CONFIG.thinker.vision, CONFIG.visual)
    yield "patches of a picture", error(patches, seen["pixel_values"])

    ears = filled(AudioEncoder(CONFIG.thinker.audio), reference, "audio")
    tower = reference.thinker.model.audio_tower
    theirs = tower(mel[0], feature_lens=torch.tensor([frames])).last_hidden_state
    yield "audio encoder, 7 s", error(ears.encode([mel[0]])[0], theirs)

    eyes = filled(VisionEncoder(CONFIG.thinker.vision), reference, "vision")
    theirs = reference.thinker.model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output
    yield "vision encoder, 333 x 217", error(eyes.encode([patches], [grid])[0], theirs)

    embeds = torch.randn(1, 200, CONFIG.thinker.text.width, generator=g)
    positions = torch.randint(0, 3000, (1, 3, 200), generator=g)
    thinker = filled(Thinker(CONFIG.thinker.text), reference, "thinker")
    hidden = reference.thinker.model.language_model(
        inputs_embeds=embeds, position_ids=positions.transpose(0, 1), use_cache=False
    ).last_hidden_state
    logits = thinker.logits(thinker(Embedded(embeds, positions)))
    yield "Thinker logits, 200 tokens", error(logits, reference.thinker.lm_head(hidden))

    talker = filled(Talker(CONFIG.talker), reference, "talker")
    hidden = reference.talker.model(
        inputs_embeds=reference.talker.thinker_to_talker_proj(embeds),
        position_ids=positions.transpose(0, 1),
        use_cache=False,
    ).last_hidden_state
    logits = talker.logits(talker(Embedded(embeds, positions)))
    yield "Talker logits, 200 tokens", error(logits, reference.talker.codec_head(hidden))

    dit = filled(DiT(CONFIG.code2wav.dit), reference, "dit")
    codes = torch.randint(0, 8193, (1, 50), generator=g)
    cond, ref_mel = torch.randn(1, 192, generator=g), torch.randn(1, 80, 80, generator=g) - 4
    speaker = reference.token2wav.code2wav_dit_model.input_embed.spk_encoder(ref_mel)
    yield "ECAPA speaker encoder", error(dit.speaker(ref_mel), speaker)
    noise = torch.randn(1, 100, 80, generator=g)
    original, torch.randn = torch.randn, lambda *a, **k: noise
    try:
        theirs = reference.token2wav.code2wav_dit_model.sample(cond, ref_mel, codes)
    finally:
        torch.randn = original
    mel = sample(dit, codes, Voice("v", cond, ref_mel, 0), noise=noise)
    yield "flow, 36 evaluations, 1 s", error(mel, theirs)

    vocoder = filled(BigVGAN(CONFIG.code2wav.vocoder), reference, "vocoder")
    theirs = reference.token2wav.code2wav_bigvgan_model(theirs)
    yield "flow and BigVGAN, 1 s: wave", error(vocoder(mel)[0], theirs.reshape(-1))


def together() -> Iterator[tuple[str, float]]:
    """Whole conversations, greedy, from files to waves; text ids and codes are asserted equal on the way."""
    with tempfile.TemporaryDirectory() as folder:
        reference = end_to_end.tiny_reference()
        reference.save_pretrained(folder)
        g = torch.Generator().manual_seed(5)
        voice = {
            "cond": torch.randn(1, 192, generator=g),
            "ref_mel": torch.randn(1, 60, 80, generator=g) - 4,
            "bos_token": 929,
        }
        torch.save({"Chelsie": voice}, Path(folder) / "spk_dict.pt")
        build_tokenizer(CONFIG, folder)
        end_to_end.write_clip(Path(folder) / "clip.mp4")
        clip = {"type": "video", "video": str(Path(folder) / "clip.mp4")}
        omni = load(folder)
        contents = {
            "text": [[end_to_end.TEXT]],
            "sound": [[end_to_end.SOUND, end_to_end.TEXT]],
            "picture": [[end_to_end.PICTURE, end_to_end.TEXT]],
            "silent video": [[{**clip, "use_audio": False}, end_to_end.TEXT]],
            "video with sound": [[clip, end_to_end.TEXT]],
            "all together": [[end_to_end.PICTURE, end_to_end.SOUND, clip, end_to_end.TEXT]],
        }
        contents["a batch of three unequal rows"] = [
            contents["all together"][0], contents["text"][0], contents["sound"][0],
        ]  # fmt: skip
        for name, rows in contents.items():
            ours, theirs = end_to_end.answered(omni, rows), end_to_end.referred(omni, folder, rows)
            for mine, other in zip(ours, theirs, strict=True):
                assert mine[0] == other[0], "text ids differ"
                assert mine[1] == other[1], "codes differ"
            wave = max(np.abs(a[2] - b[2]).max() for a, b in zip(ours, theirs, strict=True))
            yield f"end to end, {name}: wave (ids and codes equal)", float(wave)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3, help="random models a part")
    options.add_argument("--write", metavar="PAGE", help="put the table between the page's markers")
    args = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    worst: dict[str, float] = {}
    for seed in range(args.seeds):
        for name, value in parts(seed):
            worst[name] = max(worst.get(name, 0.0), value)
    worst |= dict(together())
    lines = ["| part | largest error |", "|---|---|"]
    lines += [f"| {name} | {value:.1e} |" for name, value in worst.items()]
    print("\n".join(lines))
    print(json.dumps({"benchmark": "parity", "seeds": args.seeds, "errors": worst}))
    if args.write:
        note = f"`python benchmarks/parity.py --seeds {args.seeds}` printed:"
        put(args.write, "parity table", "\n".join([note, "", *lines]))


if __name__ == "__main__":
    main()
