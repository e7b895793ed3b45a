"""Show: samples -> one HTML page with players, pictures with their boxes, spectrograms over phones or events, and token timelines.

A token is a cell: its hue is its time id (25 a second), its brightness falls with the row of a picture, a line under it
says that it is learned. So a media token in the wrong place, a label on a question or a frame label that drifts is seen.
The page needs nothing from elsewhere: media are inside it.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from thinktalk.config import OmniConfig
from thinktalk.data.examples import IGNORED, Example, encode
from thinktalk.data.prompts import task_messages
from thinktalk.data.samples import AUDIO_NAMES, IMAGE_NAMES, VIDEO_NAMES, Sample
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel
from thinktalk.media.text import Tokenizer

__all__ = ["spectrogram", "token_cells", "write_page"]

PIXELS_PER_SECOND = 100  # one a mel frame
MAX_CELLS = 3000
"""Tokens drawn of one sample; the rest is counted."""
KINDS = {**dict.fromkeys(AUDIO_NAMES, "audio"), **dict.fromkeys(IMAGE_NAMES, "img"), **dict.fromkeys(VIDEO_NAMES, "video")}  # fmt: skip
MIME = {
    "opus": "audio/ogg", "ogg": "audio/ogg", "mp3": "audio/mpeg", "m4a": "audio/mp4", "jpg": "image/jpeg",
    "mkv": "video/x-matroska", "mov": "video/quicktime",
}  # fmt: skip

# black, violet, orange, yellow: dark to light in grey, too
RAMP = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], float)

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
section { border-top: 1px solid #ccc; padding: 1em 0 } h2 { font-size: 1em; font-family: monospace }
.sound { overflow-x: auto } .sound img { display: block; height: 128px; image-rendering: pixelated }
.phones { position: relative; height: 1.5em } .phones span { position: absolute; overflow: hidden; text-align: center;
  border-left: 1px solid #bbb; font-size: 11px; height: 100% } img.picture, video { max-width: 20em; max-height: 15em }
.boxed { position: relative; display: inline-block } .boxed span { position: absolute; border: 1px solid #f0f; font-size: 10px;
  line-height: 1; color: #f0f; overflow: visible; white-space: nowrap }
.tokens { font: 12px monospace; line-height: 2 } .tokens span { padding: 2px 1px; border-radius: 2px; white-space: pre }
.tokens .learned { border-bottom: 3px solid #222 } .fault { color: #a00 } details pre { white-space: pre-wrap }
"""


def write_page(
    samples: Iterable[Sample],
    path: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer,
    config: OmniConfig,
    title: str = "samples",
) -> int:
    """Write the page of these samples; how many it shows. A sample without messages is shown as one to transcribe.

    What cannot be decoded is shown as its fault. Errors: InputError when `path` cannot be written.
    """
    cards = [_card(sample, tokenizer, config) for sample in samples]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    legend = "<p>A cell is a token: hue is its time id, darker rows are lower in a picture, a line under it says that it is learned.</p>"
    page = f"{head}<h1>{html.escape(title)}</h1>{legend}{''.join(cards)}</html>\n"
    part = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None  # fmt: skip
    finally:
        part.unlink(missing_ok=True)
    return len(cards)


def _card(sample: Sample, tokenizer: Tokenizer, config: OmniConfig) -> str:
    parts = [f"<section><h2>{html.escape(sample.where)}</h2>"]
    facts = [f"{sample.voice}" if sample.voice else "", f"{sample.seconds:g} s" if sample.seconds else ""]  # fmt: skip
    parts.append(f"<p><b>{html.escape(sample.text)}</b> {html.escape(' '.join(f for f in facts if f))}</p>")  # fmt: skip
    parts += [_medium(sample, name, content, config) for name, content in sample.media.items()]
    try:
        parts.append(token_cells(_example(sample, tokenizer, config), tokenizer))
    except InputError as error:
        parts.append(f'<p class="fault">{html.escape(str(error))}</p>')
    record = json.dumps(sample.record, ensure_ascii=False, indent=1)
    parts.append(f"<details><summary>record</summary><pre>{html.escape(record)}</pre></details></section>")  # fmt: skip
    return "".join(parts)


def _example(sample: Sample, tokenizer: Tokenizer, config: OmniConfig) -> Example:
    messages = sample.messages or task_messages(
        sample, "transcribe" if sample.member(*AUDIO_NAMES) else "read", torch.Generator()
    )
    return encode(sample.resolved(messages), tokenizer=tokenizer, config=config, name=sample.where)


def _medium(sample: Sample, name: str, content: bytes, config: OmniConfig) -> str:
    """A player or a picture, with a spectrogram where there is sound to see."""
    ending = name.rpartition(".")[2]
    kind = KINDS.get(ending)
    if kind is None:
        return f"<p>{html.escape(name)}: {len(content)} bytes</p>"
    mime = MIME.get(ending, f"{'image' if kind == 'img' else kind}/{ending}")
    url = f"data:{mime};base64,{base64.b64encode(content).decode()}"
    if kind == "img":
        picture = f'<img class="picture" alt="{html.escape(name)}" src="{url}">'
        return f'<div class="boxed">{picture}{_boxes(sample)}</div>'
    player = f'<{kind} controls src="{url}"></{kind}>'
    if kind == "video":
        return player
    try:
        pcm = sample.pcm(config.mel.sample_rate, member=name)
    except InputError as error:
        return f'{player}<p class="fault">{html.escape(str(error))}</p>'
    width = len(pcm) * PIXELS_PER_SECOND // config.mel.sample_rate
    picture = base64.b64encode(spectrogram(pcm, config)).decode()
    image = f'<img alt="spectrogram" width="{width}" src="data:image/png;base64,{picture}">'
    phones = _phones(sample) if name == sample.member(*AUDIO_NAMES) else ""
    return f'{player}<div class="sound">{image}{phones}</div>'


def spectrogram(pcm: np.ndarray, config: OmniConfig) -> bytes:
    """A PNG of the log-mel that the model hears, one column a frame of 10 ms, low bands at the bottom."""
    mel = log_mel(torch.from_numpy(pcm)[None], config.mel)[0].numpy()
    level = (mel - mel.min()) / max(float(np.ptp(mel)), 1e-6) * (len(RAMP) - 1)
    colours = np.stack([np.interp(level, np.arange(len(RAMP)), RAMP[:, c]) for c in range(3)], -1)
    file = io.BytesIO()
    Image.fromarray(colours[::-1].round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _phones(sample: Sample) -> str:
    """The labels under the spectrogram, each as wide as it lasts: phones, or what the record says there is to hear."""
    if not len(sample.durations):
        return _strip([(e["name"], e["start"], e["end"]) for e in _dicts(sample, "events")])  # fmt: skip
    ends = np.cumsum(sample.durations * sample.frame_seconds)
    starts = np.concatenate([[0.0], ends])
    names = ["", *sample.phones, ""]
    return _strip(list(zip(names, starts, ends, strict=False)))


def _strip(labels: list[tuple[str, float, float]]) -> str:
    """Names from one second to another."""
    spans = [
        f'<span style="left:{start * PIXELS_PER_SECOND:.1f}px;width:{(end - start) * PIXELS_PER_SECOND:.1f}px">{html.escape(name)}</span>'
        for name, start, end in labels
    ]
    return f'<div class="phones">{"".join(spans)}</div>' if spans else ""


def _boxes(sample: Sample) -> str:
    """What the record says there is to see, round about where it is; of a sample with one picture."""
    spans = []
    for thing in _dicts(sample, "things"):
        left, top, right, bottom = (100 * float(edge) for edge in thing["box"])
        name = html.escape(f"{thing.get('colour', '')} {thing['name']}".strip())
        spans.append(f'<span style="left:{left:.1f}%;top:{top:.1f}%;width:{right - left:.1f}%;height:{bottom - top:.1f}%">{name}</span>')  # fmt: skip
    return "".join(spans)


def _dicts(sample: Sample, name: str) -> list[dict[str, Any]]:
    """A list of the worlds' records; other people's records may hold anything under that name."""
    listed = sample.record.get(name)
    fits = _is_thing if name == "things" else _is_event
    return [e for e in listed if isinstance(e, dict) and fits(e)] if isinstance(listed, list) else []  # fmt: skip


def _is_thing(e: dict[str, Any]) -> bool:
    box = e.get("box")
    return isinstance(e.get("name"), str) and isinstance(box, list) and len(box) == 4 and all(isinstance(x, (int, float)) for x in box)  # fmt: skip


def _is_event(e: dict[str, Any]) -> bool:
    return isinstance(e.get("name"), str) and all(isinstance(e.get(k), (int, float)) for k in ("start", "end"))  # fmt: skip


def token_cells(example: Example, tokenizer: Tokenizer) -> str:
    """The tokens of an example as coloured cells; what each is, and its three ids, are in its tip."""
    cells = []
    first_row = 0
    for n, token in enumerate(example.token_ids[:MAX_CELLS].tolist()):
        t, h, w = example.positions[:, n].tolist()
        text = tokenizer.decode([token], skip_special=False)
        flat = t == h == w
        # rows of a picture count from where it begins
        first_row = h if flat else first_row
        light = 85 if flat else max(40, 80 - 4 * (h - first_row))
        learned = ' class="learned"' if int(example.labels[n]) != IGNORED else ""
        style = f"background:hsl({t * 37 % 360} 70% {light}%)"
        tip = html.escape(f"{n}: {token} {text!r} time {t} row {h} column {w}", quote=True)
        shown = html.escape(text.replace("\n", "⏎")) if len(text) < 24 else "…"
        if text in ("<|AUDIO|>", "<|IMAGE|>", "<|VIDEO|>"):
            shown = text[2].lower()  # hundreds of them stand side by side
        cells.append(f'<span{learned} style="{style}" title="{tip}">{shown}</span>')
    more = example.length - MAX_CELLS
    rest = f" and {more} more" if more > 0 else ""
    learned_count = int((example.labels != IGNORED).sum())
    return f'<p>{example.length} tokens, {learned_count} learned</p><div class="tokens">{"".join(cells)}{rest}</div>'
