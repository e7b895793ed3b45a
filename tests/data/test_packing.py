"""Packing: a row of many conversations is each of them alone, in hidden states and in gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from thinktalk.config import tiny
from thinktalk.data.examples import IGNORED, Example
from thinktalk.data.packing import Packed, pack, packed_hidden
from thinktalk.errors import InputError
from thinktalk.media.timeline import Audio, Image, Text, rope_positions
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker, merge_media

CONFIG = tiny().thinker
IDS = CONFIG.ids


def example(seed: int, words: int) -> Example:
    """Text, a sound of 3 tokens, a picture of 2 x 2, text to learn; the features are the test's own."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(0, 600, (2, words), generator=generator)
    ids = [*text[0].tolist(), IDS.audio_bos, *[IDS.audio] * 3, IDS.audio_eos, IDS.vision_bos, *[IDS.image] * 4, IDS.vision_eos, *text[1].tolist()]  # fmt: skip
    positions, _ = rope_positions([Text(words), Audio(3), Image(2, 2), Text(words)])
    labels = torch.full((len(ids),), IGNORED)
    labels[-words:] = text[1]
    token_ids = torch.tensor(ids)
    return Example(token_ids, positions, labels, audio=[torch.full((128, 12), float(seed))], name=f"e{seed}")  # fmt: skip


@pytest.fixture(scope="module")
def thinker():
    torch.manual_seed(0)
    model = Thinker(CONFIG.text).double()
    for parameter in model.parameters():  # weights under which every input matters
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)  # fmt: skip
    return model


EXAMPLES = [example(0, 3), example(1, 5), example(2, 2), example(3, 4)]


def features(examples) -> dict[int, torch.Tensor]:
    """Leaves (N, D) for the placeholders of these examples."""
    generator = torch.Generator().manual_seed(9)
    every = torch.randn(4, 7, CONFIG.text.width, generator=generator, dtype=torch.float64)
    mine = every[[int(e.name[1]) for e in examples]]
    sound, picture = mine[:, :3].reshape(-1, CONFIG.text.width), mine[:, 3:].reshape(-1, CONFIG.text.width)  # fmt: skip
    return {IDS.audio: sound.requires_grad_(), IDS.image: picture.requires_grad_()}


def losses(thinker, packed: Packed, examples, hidden_of) -> dict[str, torch.Tensor]:
    """Loss, hidden states of real tokens, gradients of weights and of media."""
    thinker.zero_grad()
    media = features(examples)
    leaves = {k: v.detach().requires_grad_() for k, v in media.items()}
    embeds, _ = merge_media(thinker.embed(packed.token_ids), packed.token_ids, leaves)
    hidden = hidden_of(Embedded(embeds, packed.positions), packed.segments)
    logits = thinker.logits(hidden[:, :-1]).double()
    loss = F.cross_entropy(logits.flatten(0, 1), packed.labels[:, 1:].flatten(), reduction="sum")
    loss.backward()
    real = packed.segments > 0
    gradients = {n: p.grad.clone() for n, p in thinker.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "hidden": hidden[real].detach(), "sound": leaves[IDS.audio].grad, "picture": leaves[IDS.image].grad, **gradients}  # fmt: skip


def alone(thinker) -> dict[str, torch.Tensor]:
    """The same, each example by itself through the ordinary forward."""
    each = [losses(thinker, pack([e], pad_id=IDS.pad), [e], lambda x, _: thinker(x)) for e in EXAMPLES]  # fmt: skip
    joined = {}
    for name in each[0]:
        parts = [one[name] for one in each]
        joined[name] = torch.cat(parts) if name in ("hidden", "sound", "picture") else sum(parts)
    return joined


def compare(ours: dict, theirs: dict) -> None:
    """float64: what is left is the order of sums; the logits go through float32 (thinker.logits), hence 1e-5."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = theirs[name].abs().max().clamp_min(1e-12)
        error = float((ours[name] - theirs[name]).abs().max() / scale)
        limit = 1e-10 if name == "hidden" else 1e-5
        assert error < limit, f"{name}: {error}"


@pytest.mark.parametrize("capacity", [None, 48, 40])
def test_packed_equals_alone(thinker, capacity):
    packed = pack(EXAMPLES, pad_id=IDS.pad, capacity=capacity)
    ours = losses(thinker, packed, EXAMPLES, lambda x, s: packed_hidden(thinker, x, s))
    compare(ours, alone(thinker))


def test_every_input_matters(thinker):
    packed = pack(EXAMPLES, pad_id=IDS.pad)
    ours = losses(thinker, packed, EXAMPLES, lambda x, s: packed_hidden(thinker, x, s))
    for name in ("sound", "picture", "embed.weight"):
        assert ours[name].abs().max() > 1e-3 * ours["layers.0.attn.q.weight"].abs().max()
    # each picture and sound token has a gradient of its own
    assert (ours["picture"].abs().amax(1) > 0).all() and (ours["sound"].abs().amax(1) > 0).all()


@pytest.mark.parametrize("fault", ["plain causal", "positions go on", "media in another order"])
def test_planted_fault_is_found(thinker, fault):
    packed = pack(EXAMPLES, pad_id=IDS.pad)
    examples = EXAMPLES
    hidden_of = lambda x, s: packed_hidden(thinker, x, s)  # noqa: E731
    if fault == "plain causal":
        hidden_of = lambda x, s: thinker(x)  # noqa: E731
    elif fault == "positions go on":
        # a shift of whole conversations is invisible to rotary attention: stretch them instead
        packed.positions[:] = torch.arange(packed.positions.shape[2])
    else:
        examples = EXAMPLES[::-1]
    ours = losses(thinker, packed, examples, hidden_of)
    with pytest.raises(AssertionError):
        compare(ours, alone(thinker))


def test_rows():
    packed = pack(EXAMPLES, pad_id=IDS.pad, capacity=40)
    lengths = [e.length for e in EXAMPLES]
    assert lengths == [17, 21, 15, 19]
    assert packed.segments[0].tolist() == [1] * 17 + [2] * 21 + [0] * 2
    assert packed.segments[1].tolist() == [1] * 15 + [2] * 19 + [0] * 6
    assert packed.tokens == sum(lengths) and packed.fill == 72 / 80
    assert [int(a[0, 0]) for a in packed.audio] == [0, 1, 2, 3]
    assert packed.names == ["e0", "e1", "e2", "e3"]
    assert packed.positions[0, :, 17].tolist() == [0, 0, 0]
    assert (packed.token_ids[packed.segments == 0] == IDS.pad).all()
    assert (packed.labels[packed.segments == 0] == IGNORED).all()
    moved = packed.to("cpu")
    assert torch.equal(moved.labels, packed.labels)
    with pytest.raises(InputError, match="e1: 21 tokens, a row has 20"):
        pack(EXAMPLES, pad_id=IDS.pad, capacity=20)
