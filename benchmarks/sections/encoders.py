"""Audio and vision encoders: tiny sizes and real widths against transformers, and against the bare matmuls they are made of.

"matmuls" is the time of F.linear alone for every linear layer of one run, same shapes and weights, float32; convolutions,
attention, norms and activations are the encoder's own cost. A ratio of 0.85 means that the encoder runs at 85 % of their rate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from timing import Row, compare
from torch import Tensor, nn

from thinktalk import config as cfg
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import Grid, VisionEncoder


def rows(quick: bool) -> list[Row]:
    """All rows of the section."""
    with torch.no_grad():
        return [*tiny_rows(quick), *real_rows(quick)]


def tiny_rows(quick: bool) -> list[Row]:
    """The tiny model. Where attention itself is the time (long clips, large pictures) both sides call the same kernel."""
    audio, vision = audio_pair(cfg.tiny()), vision_pair(cfg.tiny())
    fast = dict(repeats=15 if quick else 51, warmup=3, target=2.0)
    out = []
    for seconds in (1, 4, 30):
        mels = [torch.randn(128, 100 * seconds)]
        out.append(compare(f"tiny audio encoder, {seconds} s", *with_mels(*audio, mels), **fast))
    for grids in ([(1, 8, 8)], [(1, 16, 16)], [(1, 16, 16)] * 4, [(1, 32, 32)]):
        what = f"{len(grids)} x {14 * grids[0][1]}x{14 * grids[0][2]}"
        out.append(compare(f"tiny vision encoder, {what}", *with_grids(*vision, grids), **fast))
    return out


def real_rows(quick: bool) -> list[Row]:
    """30 s of sound and a 448x448 picture at the official widths; a quarter of the vision layers is full (officially an eighth)."""
    layers = 2 if quick else 4
    thinker = cfg.omni_3b().thinker
    audio = replace(thinker.audio, num_layers=layers)
    vision = replace(thinker.vision, depth=layers, full_attention_layers=(layers - 1,))
    config = replace(cfg.omni_3b(), thinker=replace(thinker, audio=audio, vision=vision))
    return [
        *compare_real(
            f"audio encoder 30 s, {layers} layers",
            audio_pair(config),
            lambda *pair: with_mels(*pair, [torch.randn(128, 3000)]),
            repeats=2 if quick else 3,
        ),
        *compare_real(
            f"vision encoder 448x448, {layers} layers",
            vision_pair(config),
            lambda *pair: with_grids(*pair, [(1, 32, 32)]),
            repeats=2 if quick else 3,
        ),
    ]


def compare_real(name: str, pair: tuple[nn.Module, nn.Module], runs, repeats: int) -> list[Row]:
    """Ours against theirs in both dtypes, and ours against the float32 matmuls."""
    ours, theirs = pair
    run_ours, run_theirs = runs(ours, theirs)
    bare = matmuls(ours, run_ours)
    half_ours, half_theirs = (copy.deepcopy(m).bfloat16() for m in pair)
    run_half_ours, run_half_theirs = runs(half_ours, half_theirs)
    few = dict(repeats=repeats)
    return [
        compare(f"{name}, float32", run_ours, run_theirs, target=1.0, **few),
        compare(f"{name}, float32, rate of its matmuls", run_ours, bare, target=0.85, **few),
        compare(f"{name}, bf16", run_half_ours, run_half_theirs, target=1.0, **few),
        compare(f"{name}, bf16, rate of float32 matmuls", run_half_ours, bare, target=1.7, **few),
    ]


def matmuls(module: nn.Module, run: Callable[[], object]) -> Callable[[], None]:
    """A function that does nothing but the linear layers of `run`."""
    calls: list[tuple[nn.Linear, torch.Size]] = []
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    hooks = [
        m.register_forward_hook(lambda m, x, y: calls.append((m, x[0].shape))) for m in linears
    ]
    run()
    for hook in hooks:
        hook.remove()
    inputs = {shape: torch.randn(shape) for _, shape in calls}

    def bare() -> None:
        for linear, shape in calls:
            F.linear(inputs[shape], linear.weight, linear.bias)

    return bare


# --------------------------------------------------------------------------------------------------------------- pairs


def audio_pair(config: cfg.OmniConfig) -> tuple[AudioEncoder, nn.Module]:
    """Ours and transformers' on the same weights."""
    from reference import reference_config
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

    torch.manual_seed(0)
    theirs = Qwen2_5OmniAudioEncoder(reference_config(config).thinker_config.audio_config)
    return share("audio", AudioEncoder(config.thinker.audio), theirs)


def vision_pair(config: cfg.OmniConfig) -> tuple[VisionEncoder, nn.Module]:
    """Ours and transformers' on the same weights."""
    from reference import reference_config
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniVisionEncoder

    torch.manual_seed(0)
    theirs = Qwen2_5OmniVisionEncoder(reference_config(config).thinker_config.vision_config)
    return share("vision", VisionEncoder(config.thinker.vision), theirs)


def share(part: str, ours: nn.Module, theirs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Give ours the weights of theirs."""
    from reference import part_weights

    holder = nn.Module()
    holder.thinker = nn.Module()
    holder.thinker.add_module({"audio": "audio_tower", "vision": "visual"}[part], theirs)
    ours.load_state_dict(part_weights(holder, part), assign=True)
    return ours.eval(), theirs.eval()


def with_mels(ours: nn.Module, theirs: nn.Module, mels: list[Tensor]):
    """Both sides on clips."""
    packed, lengths = torch.cat(mels, 1), torch.tensor([mel.shape[1] for mel in mels])
    return lambda: ours.encode(mels), lambda: theirs(packed, feature_lens=lengths)


def with_grids(ours: nn.Module, theirs: nn.Module, grids: list[Grid]):
    """Both sides on pictures."""
    patches = [torch.randn(t * h * w, 1176) for t, h, w in grids]
    packed, thw = torch.cat(patches), torch.tensor(grids)
    return lambda: ours.encode(patches, grids), lambda: theirs(packed, grid_thw=thw)
