"""What the Talker reads: the same whether the reply comes whole or a token at a time, and right after a video."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from thinktalk.config import tiny
from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.stream import fork
from thinktalk.talker.model import Talker
from thinktalk.talker.prepare import TalkerFeed, feed_rows
from thinktalk.thinker.model import Thinker

CONFIG = tiny()
D, VOICE = CONFIG.thinker.text.width, 929


@pytest.fixture(scope="module")
def parts() -> tuple[Talker, Thinker]:
    torch.manual_seed(0)
    return Talker(CONFIG.talker).eval(), Thinker(CONFIG.thinker.text).eval()


def start(parts: tuple[Talker, Thinker]) -> TalkerFeed:
    return TalkerFeed.start(parts[0], parts[1].embed, voice_token=VOICE)


def chunk(length: int, seed: int = 0, first: int = 0) -> ThinkerChunk:
    generator = torch.Generator().manual_seed(seed)
    embeds, hidden = (torch.randn(1, length, D, generator=generator) for _ in range(2))
    positions = first + torch.arange(length).expand(1, 3, length)
    return ThinkerChunk(positions[:, 0], embeds, hidden, positions)


def sizes(total: int) -> st.SearchStrategy[list[int]]:
    cuts = st.lists(st.integers(0, total), max_size=4).map(sorted)
    return cuts.map(lambda c: [b - a for a, b in zip([0, *c], [*c, total], strict=True)])


def read_all(
    feed: TalkerFeed, prompt: ThinkerChunk, reply: ThinkerChunk, codes: Tensor
) -> Embedded:
    """The definition, written down at once: everything first, then the codes."""
    pieces = [feed.prompt(prompt)]
    feed.reply(reply)
    feed.end()
    pieces.append(feed.opening())
    return Embedded.concat(pieces + [feed.next(codes[:, n : n + 1]) for n in range(codes.shape[1])])


@torch.no_grad()
def test_the_definition(parts: tuple[Talker, Thinker]) -> None:
    talker, thinker = parts
    prompt, reply, codes = chunk(5), chunk(3, 1), torch.randn(1, 6, D)
    x = read_all(start(parts), prompt, reply, codes)
    k = CONFIG.talker

    def said(token: int) -> Tensor:
        return thinker.embed(torch.tensor(token))

    def code(token: int) -> Tensor:
        return talker.embed(torch.tensor(token))

    s = [
        *(reply.hidden + reply.embeds)[0],
        said(k.text_end),
        said(k.text_pad),
        said(k.text_pad),
        said(k.text_pad),
    ]
    expected = [
        *(prompt.hidden + prompt.embeds)[0],
        said(VOICE) + code(k.codec_pad),
        s[0] + code(k.codec_bos),
        *(codes[0, n] + s[n + 1] for n in range(6)),
    ]
    torch.testing.assert_close(
        x.embeds[0], torch.stack(expected), rtol=0, atol=1e-6
    )  # one float32 sum
    assert torch.equal(x.positions, torch.arange(13).expand(1, 3, 13))


@given(prompt_sizes=sizes(7), reply_sizes=sizes(5), data=st.data())
def test_lock_step_equals_all_at_once(
    parts: tuple[Talker, Thinker],
    prompt_sizes: list[int],
    reply_sizes: list[int],
    data: st.DataObject,
) -> None:
    """Replies arrive in any pieces, codes are taken whenever the feed says it is ready."""
    prompt, reply, codes = (
        chunk(7),
        chunk(5, 1),
        torch.randn(1, 9, D, generator=torch.Generator().manual_seed(2)),
    )
    whole = read_all(start(parts), prompt, reply, codes)
    feed, pieces, start_at = start(parts), [], 0
    for size in prompt_sizes:
        pieces.append(feed.prompt(prompt.narrow(start_at, size)))
        start_at += size
    arrivals, start_at = [], 0
    for size in reply_sizes:
        arrivals.append(reply.narrow(start_at, size))
        start_at += size
    taken = -1  # opening not read yet

    def take() -> None:
        nonlocal taken
        pieces.append(feed.opening() if taken < 0 else feed.next(codes[:, taken : taken + 1]))
        taken += 1

    while arrivals or not feed.ended or taken < codes.shape[1]:
        if feed.ready and taken < codes.shape[1] and (feed.ended or data.draw(st.booleans())):
            take()
        elif arrivals:
            feed.reply(arrivals.pop(0))
        else:
            feed.end()
    joined = Embedded.concat(pieces)
    assert torch.equal(joined.embeds, whole.embeds)
    assert torch.equal(joined.positions, whole.positions)


def test_text_after_a_video_and_codes_after_its_highest_position(
    parts: tuple[Talker, Thinker],
) -> None:
    """The reference starts text after the last segment only, but decodes after the highest position of all."""
    prompt = chunk(4)
    prompt.positions = torch.tensor([[[0, 90, 10, 11], [0, 3, 10, 11], [0, 4, 10, 11]]])
    x = read_all(start(parts), prompt, chunk(1), torch.zeros(1, 2, D))
    assert x.positions[0, :, 4:].tolist() == [[12, 13, 91, 92]] * 3


def test_a_fork_is_independent(parts: tuple[Talker, Thinker]) -> None:
    feed = start(parts)
    feed.prompt(chunk(3))
    feed.reply(chunk(2, 1))
    feed.opening()
    kept = fork(feed)
    for branch in (feed, kept):
        branch.end()
        first, second, third = (branch.next(torch.zeros(1, 1, D)) for _ in range(3))
        assert torch.equal(second.embeds, branch.text_end)
        assert torch.equal(third.embeds, branch.text_pad)
        assert first.positions.flatten().tolist() == [5, 5, 5]


def test_misuse_is_named(parts: tuple[Talker, Thinker]) -> None:
    feed = start(parts)
    feed.prompt(chunk(3))
    assert not feed.ready
    with pytest.raises(AssertionError, match="not said enough"):
        feed.opening()
    feed.end()
    assert feed.ready  # an empty reply opens with text end
    with pytest.raises(AssertionError, match="ended"):
        feed.reply(chunk(1))
    with pytest.raises(AssertionError, match="ended"):
        feed.end()


def test_rows_of_several_conversations(parts: tuple[Talker, Thinker]) -> None:
    feeds = [start(parts) for _ in range(3)]
    for n, feed in enumerate(feeds):
        feed.prompt(chunk(2 + n, n))
        feed.reply(chunk(4, n))
        feed.opening()
    forks, codes = [fork(feed) for feed in feeds], torch.randn(3, 1, D)
    together = feed_rows(feeds, codes)
    for n, feed in enumerate(forks):
        alone = feed.next(codes[n : n + 1])
        assert torch.equal(together.row(n).embeds, alone.embeds)
        assert torch.equal(together.row(n).positions, alone.positions)


def test_a_thinker_in_another_dtype(parts: tuple[Talker, Thinker]) -> None:
    """Placement may put the Thinker in bf16 and the Talker in float32: the feed speaks the Talker's."""
    thinker = Thinker(CONFIG.thinker.text).bfloat16()
    feed = TalkerFeed.start(parts[0], thinker.embed, voice_token=VOICE)
    heard = chunk(2)
    heard.embeds, heard.hidden = heard.embeds.bfloat16(), heard.hidden.bfloat16()
    assert feed.prompt(heard).embeds.dtype == torch.float32
    feed.reply(heard)
    assert feed.opening().embeds.dtype == torch.float32
