"""The Thinker's head, where media go, and building on the meta device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from thinktalk.config import omni_7b, tiny
from thinktalk.messages import Embedded
from thinktalk.talker.model import Talker
from thinktalk.thinker.model import Thinker, merge_media
from thinktalk.weights.names import official_name

TEXT = tiny().thinker.text


def test_a_tied_head_is_the_embedding() -> None:
    tied = Thinker(replace(TEXT, tie_embeddings=True))
    assert "lm_head.weight" not in tied.state_dict()
    hidden = torch.randn(2, TEXT.width)
    torch.testing.assert_close(tied.logits(hidden), hidden @ tied.embed.weight.T)


def test_logits_are_float32_in_half_precision() -> None:
    thinker = Thinker(TEXT).bfloat16()
    assert thinker.logits(torch.randn(1, TEXT.width, dtype=torch.bfloat16)).dtype == torch.float32


def test_media_stand_where_their_placeholders_are() -> None:
    ids = torch.tensor([[1, 7, 7, 2, 8], [7, 3, 8, 8, 4]])
    embeds = torch.zeros(2, 5, 3) + ids[..., None]
    sounds, pictures = 100 + torch.arange(9.0).view(3, 3), 200 + torch.arange(9.0).view(3, 3)
    read, heard = merge_media(embeds, ids, {7: sounds, 8: pictures})
    assert torch.equal(
        read[0], torch.stack([embeds[0, 0], sounds[0], sounds[1], embeds[0, 3], pictures[0]])
    )
    assert torch.equal(
        read[1], torch.stack([sounds[2], embeds[1, 1], pictures[1], pictures[2], embeds[1, 4]])
    )
    there = (ids == 7) | (ids == 8)
    assert (heard[there] == 0).all()
    assert torch.equal(heard[~there], embeds[~there])
    assert embeds[0, 1, 0] == 7  # the caller's tensor is left alone
    same, told = merge_media(embeds, ids, {})
    assert same is embeds
    assert told is embeds


def test_features_and_placeholders_must_agree() -> None:
    with pytest.raises(AssertionError, match="2 placeholders 7 in the prompt, 3 features"):
        merge_media(torch.zeros(1, 3, 4), torch.tensor([[7, 7, 1]]), {7: torch.zeros(3, 4)})


@torch.no_grad()
def test_built_on_meta_and_given_weights() -> None:
    config = tiny()
    x = Embedded(torch.randn(1, 5, TEXT.width), torch.arange(5).expand(1, 3, 5))
    for kind, part in ((Thinker, config.thinker.text), (Talker, config.talker)):
        real = kind(part).eval()
        with torch.device("meta"):
            empty = kind(part).eval()
        assert not list(
            empty.buffers()
        )  # constants are no part of the module: none is left on meta
        empty.load_state_dict(real.state_dict(), assign=True)
        assert torch.equal(empty(x), real(x))
        state = empty.init_state(1)
        assert state.layers[0].k.device.type == "cpu"
        # one kernel for 5 rows, others for 3 and 2: float32 rounding
        pieces = [empty.step(x.narrow(0, 3), state), empty.step(x.narrow(3, 2), state)]
        torch.testing.assert_close(torch.cat(pieces, 1), real(x), rtol=0, atol=1e-5)


def test_sizes_and_names_of_the_real_model() -> None:
    config = omni_7b()
    with torch.device("meta"):
        thinker, talker = Thinker(config.thinker.text), Talker(config.talker)
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (thinker, talker)]
    # the language model with its head, and the talker, as counted in the official checkpoint
    assert millions == pytest.approx([7070.6 + 545.0, 1351.4], abs=0.1)
    for part, module in (("thinker", thinker), ("talker", talker)):
        assert all(official_name(part, name) for name in module.state_dict())
    assert talker.layers[0].attn.q.weight.shape == (1536, 896)  # attention is wider than the model
