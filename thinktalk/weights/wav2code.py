"""The speech tokenizer of a checkpoint: tensors `wav2code.*` in a file of their own, sizes in config.json's wav2code_config.

    save_tokenizer(tokenizer, directory)     wav2code.safetensors, config.json, and an index that names all files
    load_tokenizer(directory)                the tokenizer in eval mode; nothing else of the checkpoint is read

Official checkpoints have none; one that was trained for them (training/c1_inverse.py) is put beside their files, which stay
as they are. Readers of the official layout meet the extra tensors in the index and leave them alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from thinktalk.errors import WeightsError
from thinktalk.layers.quant import dequantize
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights.assign import SCALE
from thinktalk.weights.config_read import read_config
from thinktalk.weights.config_write import config_to_json
from thinktalk.weights.files import INDEX, SINGLE, TensorFiles, read_header, read_json
from thinktalk.weights.store import Planned, atomic_write, write_file

__all__ = ["FILE", "PREFIX", "load_tokenizer", "save_tokenizer"]

PREFIX = "wav2code."
FILE = "wav2code.safetensors"


def load_tokenizer(
    directory: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> SpeechTokenizer:
    """The speech tokenizer of a checkpoint, without gradients; `dtype` None keeps what is stored.

    WeightsError when the checkpoint has none, or lists every missing, unexpected and mis-shaped tensor.
    """
    directory = Path(directory)
    config = read_config(directory).wav2code
    if config is None:
        raise WeightsError(f"{directory}: has no speech tokenizer (no wav2code_config), expected one; train it with c1, or take a checkpoint that has one")  # fmt: skip
    files = TensorFiles(directory, lambda name: name.startswith(PREFIX))
    with torch.device("meta"):
        tokenizer = SpeechTokenizer(config)
    wanted = {PREFIX + name: tuple(t.shape) for name, t in tokenizer.state_dict().items()}
    faults = [f"{name} is missing" for name in wanted if name not in files]
    faults += [f"{name} is not known" for name in files if name.removesuffix(SCALE) not in wanted]
    faults += [f"{name} has shape {tuple(files[name].shape)}, expected {shape}" for name, shape in wanted.items() if name in files and tuple(files[name].shape) != shape]  # fmt: skip
    if faults:
        raise WeightsError(f"{directory}: wav2code tensors and config.json disagree: {'; '.join(faults)}; copy both again")  # fmt: skip
    weights = {name.removeprefix(PREFIX): _read(files, name).to(device, dtype) for name in wanted}
    tokenizer.load_state_dict(weights, assign=True)
    return tokenizer.eval().requires_grad_(False)


def _read(files: TensorFiles, name: str) -> Tensor:
    """A tensor as floats, int8 or not in the file."""
    tensor = files.read(name)
    if name + SCALE not in files:
        return tensor
    return dequantize(tensor.flatten(1), files.read(name + SCALE)).reshape(tensor.shape)


def save_tokenizer(tokenizer: SpeechTokenizer, directory: str | Path) -> None:
    """Put the tokenizer into a checkpoint that is there, in place of one it may have.

    The index is replaced last: what is killed on the way leaves the rest of the checkpoint whole. ConfigError
    when its codes are not those that the checkpoint's decoder takes.
    """
    directory = Path(directory)
    config = replace(read_config(directory), wav2code=tokenizer.config)
    names = _names(directory)
    planned = [
        Planned(PREFIX + name, t.dtype, tuple(t.shape), lambda t=t: t)
        for name, t in tokenizer.state_dict().items()
    ]
    fresh = directory / f".{FILE}.{os.getpid()}"
    try:
        write_file(fresh, planned)
        os.replace(fresh, directory / FILE)
    finally:
        fresh.unlink(missing_ok=True)
    section = config_to_json(config)["config.json"]["wav2code_config"]
    values = {**read_json(directory / "config.json"), "wav2code_config": section}
    atomic_write(directory / "config.json", _text(values))
    names = {name: file for name, file in names.items() if not name.startswith(PREFIX)}
    names |= {tensor.name: FILE for tensor in planned}
    headers = {file: read_header(directory / file) for file in set(names.values()) if (directory / file).exists()}  # fmt: skip
    total = sum(headers[file][name].nbytes for name, file in names.items() if file in headers)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    atomic_write(directory / INDEX, _text(index))


def _names(directory: Path) -> dict[str, str]:
    """File of every tensor that the checkpoint has."""
    if (directory / INDEX).exists():
        return dict(read_json(directory / INDEX).get("weight_map") or {})
    return dict.fromkeys(TensorFiles(directory), SINGLE)


def _text(values: dict) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
