"""thinktalk: an omni model system. Text, images, audio and video in; text and speech out.

    wav, mp4, png, text                                                        24 kHz speech
          |                                                                          ^
        media  ->  encoders  ->  THINKER  -- text tokens, hidden states -->  TALKER  ->  code2wav
       (bytes to   (audio, vision  (multimodal LM,                          (codec LM)  (DiT: codes to mel,
        tensors,    to embeddings)  text out)                                            BigVGAN: mel to wave)
        timeline)

>>> omni = thinktalk.load("path/to/Qwen2.5-Omni-7B")
>>> reply = omni.chat([{"role": "user", "content": [{"type": "audio", "audio": "question.wav"}]}])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads that spin cost 10 to 28 times on a machine with other work (docs/performance.md). The library reads this
# once, when torch is loaded: so it stands before the first import, and does nothing where torch is loaded already.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from thinktalk.errors import ConfigError, InputError, ThinktalkError, WeightsError
from thinktalk.events import AudioChunk, Done, Event, Reply, TextDelta

if TYPE_CHECKING:
    from thinktalk.omni import Omni, load

__version__ = "0.1.0"
__all__ = [
    "AudioChunk", "ConfigError", "Done", "Event", "InputError", "Omni", "Reply", "TextDelta", "ThinktalkError",
    "WeightsError", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`load` and `Omni` bring torch with them: they are imported when first used, so `thinktalk --help` is instant."""
    if name in ("Omni", "load"):
        from thinktalk import omni

        return getattr(omni, name)
    raise AttributeError(f"module 'thinktalk' has no attribute {name!r}")
