"""Starting points: our stages, filled from random tiny Qwen2.5, Qwen2.5-VL and Whisper checkpoints, compute what those do."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from thinktalk import config as cfg
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker
from thinktalk.weights.init import init_audio, init_thinker, init_vision

TOLERANCE = 1e-5  # relative, float32: the project's bound for parity
TEXT = cfg.DecoderConfig(
    vocab_size=128, width=64, ffn_width=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    mrope_section=(2, 3, 3),
)  # fmt: skip
VISION = cfg.VisionConfig(
    depth=3, width=32, ffn_width=48, num_heads=2, out_width=64, full_attention_layers=(1,)
)
AUDIO = cfg.AudioEncoderConfig(width=32, num_layers=2, num_heads=4, ffn_width=64, out_width=64)


def saved(model, directory):
    """A model with no trivial norms or biases, in its own files."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.eval().save_pretrained(directory)
    return model


def text_keys(**more):
    return dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512,
    ) | more  # fmt: skip


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen")
    rope = dict(rope_type="default", rope_theta=1e6)
    torch.manual_seed(0)
    return saved(
        Qwen2ForCausalLM(Qwen2Config(**text_keys(vocab_size=128, rope_parameters=rope))), directory
    ), directory


@pytest.fixture(scope="module")
def qwen_vl(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen_vl")
    rope = dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 3, 3])
    vision = dict(
        depth=3, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64, fullatt_block_indexes=[1]
    )  # fmt: skip
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=text_keys(vocab_size=128, rope_parameters=rope, rms_norm_eps=1e-6),
        vision_config=vision,
    )
    return saved(Qwen2_5_VLForConditionalGeneration(config), directory), directory


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """With 100 positions, so that its whole window is one of our blocks of 2 s."""
    directory = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=128, max_source_positions=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return saved(WhisperForConditionalGeneration(config), directory), directory


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max(), (
        ours - theirs
    ).abs().max() / theirs.abs().max()


@torch.no_grad()
def text_logits(thinker, ids):
    positions = torch.arange(ids.shape[1]).expand(len(ids), 3, -1)
    return thinker.logits(thinker(Embedded(thinker.embed(ids), positions)))


@pytest.mark.parametrize("source", ["qwen", "qwen_vl"])
@torch.no_grad()
def test_thinker(source, request):
    theirs, directory = request.getfixturevalue(source)
    thinker = Thinker(TEXT).eval()
    done = init_thinker(thinker, directory)
    assert done.untouched == done.partial == () and len(done.copied) == len(thinker.state_dict())
    ids = torch.randint(0, 128, (2, 9))
    near(text_logits(thinker, ids), theirs(input_ids=ids).logits)
    assert (
        text_logits(thinker, ids.flip(1)) - text_logits(thinker, ids)
    ).abs().max() > 0.01  # the ids matter
    thinker.layers[1].attn.q.bias[3] += 0.1  # planted fault
    with pytest.raises(AssertionError):
        near(text_logits(thinker, ids), theirs(input_ids=ids).logits)


@torch.no_grad()
def test_vision(qwen_vl):
    theirs, directory = qwen_vl
    vision = VisionEncoder(VISION).eval()
    done = init_vision(vision, directory)
    assert done.untouched == () and len(done.copied) == len(vision.state_dict())
    grid = (1, 12, 20)
    patches = torch.randn(240, 1176)
    expected = theirs.model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output
    near(vision.encode([patches], [grid])[0], expected)
    assert (
        vision.encode([patches + 0.1], [grid])[0] - expected
    ).abs().max() > 1e-3 * expected.abs().max()
    q, k = vision.layers[0].attn.q.weight, vision.layers[0].attn.k.weight
    q.copy_(k)  # planted fault: the thirds of qkv in another order
    with pytest.raises(AssertionError):
        near(vision.encode([patches], [grid])[0], expected)


@torch.no_grad()
def test_audio(whisper):
    """Whisper's layers on one block; what follows them (pairs, norm, projection) is done here by hand."""
    theirs, directory = whisper
    audio = AudioEncoder(AUDIO).eval()
    done = init_audio(audio, directory)
    assert done.untouched == ("proj.weight", "proj.bias", "bos_eos.weight")
    mel = torch.randn(1, 128, 200)
    seen = []
    hook = theirs.model.encoder.layers[-1].register_forward_hook(
        lambda module, args, out: seen.append(out)
    )
    theirs.model.encoder(mel)
    hook.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    pairs = hidden.unflatten(1, (-1, 2)).mean(2)
    expected = audio.proj(theirs.model.encoder.layer_norm(pairs))
    near(audio(mel), expected)
    assert (audio(mel + 0.1) - expected).abs().max() > 1e-3 * expected.abs().max()
    audio.norm.bias[0] += 0.01  # planted fault
    with pytest.raises(AssertionError):
        near(audio(mel), expected)


@torch.no_grad()
def test_vocabularies_of_two_sizes(qwen):
    theirs, directory = qwen
    thinker = Thinker(replace(TEXT, vocab_size=140)).eval()
    before = thinker.embed.weight.clone()
    assert init_thinker(thinker, directory).partial == ("embed.weight", "lm_head.weight")
    assert torch.equal(thinker.embed.weight[:128], theirs.model.embed_tokens.weight)
    assert torch.equal(thinker.embed.weight[128:], before[128:])
    ids = torch.randint(0, 128, (1, 5))
    near(text_logits(thinker, ids)[..., :128], theirs(input_ids=ids).logits)


def test_a_tied_head(qwen, tmp_path):
    """Qwen2.5-3B has no lm_head: its embedding becomes our head."""
    _, directory = qwen
    tensors = load_file(directory / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    thinker = Thinker(TEXT)
    init_thinker(thinker, tmp_path)
    assert torch.equal(thinker.lm_head.weight, tensors["model.embed_tokens.weight"])
    tied = Thinker(replace(TEXT, tie_embeddings=True))
    assert "lm_head.weight" not in init_thinker(tied, directory).copied


def test_a_narrower_language_model_keeps_the_mergers_end(qwen_vl):
    vision = VisionEncoder(replace(VISION, out_width=48))
    assert init_vision(vision, qwen_vl[1]).untouched == ("merger.down.weight", "merger.down.bias")


def test_sources_that_do_not_fit(qwen, qwen_vl, whisper, tmp_path):
    for wrong in (
        lambda: init_thinker(Thinker(TEXT), whisper[1]),
        lambda: init_vision(VisionEncoder(VISION), qwen[1]),
        lambda: init_audio(AudioEncoder(AUDIO), qwen_vl[1]),
        lambda: init_thinker(Thinker(replace(TEXT, ffn_width=100)), qwen[1]),
        lambda: init_audio(AudioEncoder(AUDIO), tmp_path),
    ):
        with pytest.raises(WeightsError) as caught:
            wrong()
        assert "\n" not in str(caught.value)
    for wrong in (
        lambda: init_thinker(Thinker(replace(TEXT, rope_theta=10_000.0)), qwen[1]),
        lambda: init_thinker(
            Thinker(replace(TEXT, num_heads=8, head_dim=8, mrope_section=(1, 1, 2))), qwen[1]
        ),
        lambda: init_vision(VisionEncoder(replace(VISION, full_attention_layers=(2,))), qwen_vl[1]),
        lambda: init_audio(AudioEncoder(replace(AUDIO, num_heads=2)), whisper[1]),
    ):
        with pytest.raises(ConfigError, match="differ"):
            wrong()


def test_trained_positions_are_refused(whisper, tmp_path):
    tensors = load_file(whisper[1] / "model.safetensors")
    tensors["model.encoder.embed_positions.weight"][7, 3] += 0.1
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((whisper[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="sinusoids"):
        init_audio(AudioEncoder(AUDIO), tmp_path)
