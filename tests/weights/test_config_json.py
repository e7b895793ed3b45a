"""config.json: both key styles to the same configuration, sizes of the DiT honoured, wrong values named."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinktalk import config as cfg
from thinktalk.errors import ConfigError, ThinktalkError
from thinktalk.weights.config_read import config_from_json, read_config
from thinktalk.weights.config_write import config_to_json
from thinktalk.weights.model import build

OFFICIAL = json.loads(
    (Path(__file__).parents[1] / "goldens" / "official_7b_config.json").read_text()
)


def official():
    return {"config.json": copy.deepcopy(OFFICIAL)}


@pytest.mark.parametrize("preset", [cfg.tiny, cfg.nano, cfg.omni_3b, cfg.omni_7b])
def test_there_and_back(preset):
    assert config_from_json(config_to_json(preset())) == preset()


def test_every_number_is_carried():
    """There and back with every generation default, front end and voice size changed."""
    config = replace(
        cfg.tiny(),
        generation=cfg.GenerationConfig(
            max_text_tokens=7, max_codes=9, text_temperature=0.3, text_top_k=5, text_top_p=0.7, text_sample=True,
            text_repetition_penalty=1.2, code_temperature=0.4, code_top_k=3, code_top_p=0.6,
            code_repetition_penalty=1.3, flow_points=5, flow_guidance=0.2, flow_sway=-0.5,
        ),
        visual=cfg.VisualConfig(
            min_pixels=784, max_pixels=78400, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6), video_fps=3.0,
            video_min_frames=2, video_max_frames=20, video_min_tokens=4, video_max_tokens=30, video_total_tokens=500,
        ),
        code2wav=replace(cfg.tiny().code2wav, sample_rate=16_000),
    )  # fmt: skip
    assert config_from_json(config_to_json(config)) == config


def test_text_only():
    config = replace(cfg.tiny(), talker=None, code2wav=None)
    assert config_from_json(config_to_json(config)) == config
    # the keys of a talker that is not there may stay in the file
    assert config_from_json(config_to_json(config, base=config_to_json(cfg.tiny()))) == config


def test_dit_sizes_are_honoured_under_either_name():
    """The reference silently ignores dim, depth and heads (docs/fidelity.md)."""
    raw = official()
    raw["config.json"]["token2wav_config"]["dit_config"] |= {"dim": 512, "depth": 21, "heads": 8}
    dit = config_from_json(raw).code2wav.dit
    assert (dit.width, dit.num_layers, dit.num_heads) == (512, 21, 8)
    raw["config.json"]["token2wav_config"]["dit_config"]["hidden_size"] = 1024
    with pytest.raises(ConfigError, match="disagree"):
        config_from_json(raw)


def test_newer_style():
    """transformers 5: rope_parameters, hidden_size and friends in the DiT, nested processor settings."""
    raw = official()
    main = raw["config.json"]
    for section in (main["thinker_config"]["text_config"], main["talker_config"]):
        rope = section.pop("rope_scaling")
        section["rope_parameters"] = {
            "rope_theta": section.pop("rope_theta"), "rope_type": "default", "mrope_section": rope["mrope_section"],
        }  # fmt: skip
    dit = main["token2wav_config"]["dit_config"]
    for old, new in (
        ("dim", "hidden_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
    ):
        dit[new] = dit.pop(old)
    raw["processor_config.json"] = {
        "image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 999_992}},
        "feature_extractor": {"feature_size": 128, "hop_length": 160},
    }
    config = config_from_json(raw)
    assert config.visual.max_pixels == 999_992
    assert replace(config, visual=cfg.VisualConfig()) == cfg.omni_7b()


def test_both_pixel_keys_and_sizes():
    raw = official() | {"preprocessor_config.json": {"min_pixels": 4000, "max_pixels": 50_000}}
    visual = config_from_json(raw).visual
    assert (visual.min_pixels, visual.max_pixels) == (4000, 50_000)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("thinker_config.text_config.hidden_size", "big", "hidden_size"),
        ("thinker_config.text_config.num_hidden_layers", 10**9, "num_hidden_layers"),
        ("thinker_config.text_config.hidden_act", "gelu", "hidden_act"),
        ("thinker_config.text_config.use_sliding_window", True, "use_sliding_window"),
        ("thinker_config.text_config.rope_scaling.rope_type", "yarn", "rope_type"),
        ("thinker_config.text_config.rope_scaling.mrope_section", [16, 24], "mrope_section"),
        ("thinker_config.text_config.rope_scaling.mrope_section", [16, 24, 25], "mrope_section"),
        ("thinker_config.audio_config.output_dim", 3583, "out_width"),
        ("thinker_config.audio_config.encoder_attention_heads", 7, "encoder_attention_heads"),
        ("thinker_config.vision_config.embed_dim", 1281, "disagree"),
        ("thinker_config.vision_config.fullatt_block_indexes", "all", "fullatt_block_indexes"),
        ("talker_config.embedding_size", 100, "input_width"),
        ("token2wav_config.dit_config.look_ahead_layers", [99], "look_ahead_layers"),
        ("token2wav_config.bigvgan_config.upsample_rates", [5, 3], "upsample_rates"),
        ("token2wav_config.bigvgan_config.mel_dim", 100, "num_mels"),
        (
            "token2wav_config.bigvgan_config.resblock_dilation_sizes",
            [1, 3, 5],
            "resblock_dilation_sizes",
        ),
    ],
)
def test_wrong_values_are_named(path, value, told):
    raw = official()
    *sections, key = path.split(".")
    target = raw["config.json"]
    for section in sections:
        target = target[section]
    target[key] = value
    with pytest.raises(ThinktalkError, match=told) as caught:
        config_from_json(raw)
    assert "\n" not in str(caught.value)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from leaves(item, (*path, key))


PATHS = sorted(leaves(config_to_json(cfg.tiny())["config.json"]))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=3),
    st.lists(st.integers(-1, 9), max_size=7), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


@given(path=st.sampled_from(PATHS), value=VALUES, remove=st.booleans())
def test_a_strangers_config_is_refused_or_built(path, value, remove):
    """Any single value of config.json replaced or removed: a one-line error, or a model that can be built."""
    raw = config_to_json(cfg.tiny())
    target = raw["config.json"]
    for key in path[:-1]:
        target = target[key]
    if remove:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    try:
        build(config_from_json(raw))
    except ThinktalkError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_errors_name_the_file(damaged):
    raw = json.loads((damaged / "config.json").read_text())
    raw["talker_config"]["num_attention_heads"] = "four"
    (damaged / "config.json").write_text(json.dumps(raw))
    with pytest.raises(
        ConfigError, match=r"damaged: config.json.talker_config.num_attention_heads: is 'four'"
    ):
        read_config(damaged)


def test_the_speech_tokenizer_is_written_and_read():
    """Ours beside the official sections; a config without it reads as None, a wrong number in it is named."""
    config = replace(
        cfg.nano(), wav2code=replace(cfg.nano().wav2code, levels=(5, 7), num_layers=2, choices=9)
    )
    raw = config_to_json(config)
    assert config_from_json(raw) == config
    assert "wav2code_config" not in config_to_json(cfg.tiny())["config.json"]
    raw["config.json"]["wav2code_config"]["levels"] = [8, 1]
    with pytest.raises(ConfigError, match=r"wav2code_config.levels"):
        config_from_json(raw)
