"""thinktalk voices: list, add and remove voices; one is added from a clip of somebody speaking, or from another voice file.

Official voices stay in spk_dict.pt, which is never written; added ones live beside it in voices.safetensors. With --voices-dir
they are those of a server (`thinktalk serve --voices-dir`), which sees at once what changes there.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinktalk.errors import InputError

__all__ = ["add_arguments", "run"]

FILES = (".safetensors", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # every action takes the same shared options, before or after its own words
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model", default="nano", metavar="M", help="nano (default), a directory, or a hub id"
    )
    shared.add_argument(
        "--voices-dir", metavar="D", help="the voices enrolled there, not those of the checkpoint"
    )
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = parser.add_subparsers(dest="action", metavar="list|add|remove", required=True)
    actions.add_parser("list", parents=[shared], help="names, and where each is stored")
    add = actions.add_parser(
        "add", parents=[shared], help="add a voice: from a clip, or one that another file holds"
    )
    add.add_argument("name", metavar="NAME", help="the name it gets here")
    add.add_argument(
        "file",
        metavar="CLIP|FILE",
        help="3 to 60 s of one person speaking; or a voices.safetensors or spk_dict.pt, or a directory that has them",
    )
    add.add_argument(
        "--as", dest="original", metavar="OTHER", help="its name in the FILE (default: NAME)"
    )
    add.add_argument("--replace", action="store_true", help="replace an added voice of that name")
    add.add_argument(
        "--fit", action=argparse.BooleanOptionalAction, default=None,
        help="fit to the CLIP what the model cannot hear of a voice (default: where it lacks something; experimental)",
    )  # fmt: skip
    add.add_argument(
        "--fit-steps", type=int, default=200, metavar="N", help="how long (default 200)"
    )
    add.add_argument("--device", default="cpu", metavar="DEV", help="where it is fitted")
    remove = actions.add_parser("remove", parents=[shared], help="remove an added voice")
    remove.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    from thinktalk.omni import resolve
    from thinktalk.weights.config_read import read_config
    from thinktalk.weights.enrolled import VoiceStore
    from thinktalk.weights.voices import ADDED, add_voice, find_voice, load_voices, remove_voice

    directory = resolve(args.model)
    config = read_config(directory)
    store = None if args.voices_dir is None else VoiceStore(args.voices_dir, config)
    made: dict[str, Any] = {}
    if args.action == "add":
        file = Path(args.file)
        if file.is_dir() or file.suffix in FILES:
            voice = replace(find_voice(_voices_of(file, config), args.original or args.name), name=args.name)  # fmt: skip
        else:
            voice, made = _enrolled(args, directory, load_voices(directory, config))
        if store is None:
            add_voice(directory / ADDED, voice, config=config, replace=args.replace)
        else:
            _keep(store, voice, bool(made.get("experimental")), replaces=args.replace)
    elif args.action == "remove":
        if store is None:
            remove_voice(directory / ADDED, args.name, config=config)
        else:
            store.remove(args.name)
    rows = _rows(directory, config, store)
    if args.json:
        print(json.dumps({"voices": rows} | ({"made": made} if made else {})))
        return 0
    for name, row in rows.items():
        print(f"{name:<24}{row['ref_mel_frames']:>6} mel frames   token {row['bos_token']}   {row['stored']}")  # fmt: skip
    return 0


def _voices_of(file: Path, config: Any) -> Any:
    """The voices of a checkpoint or a voice file."""
    from thinktalk.weights.voices import OFFICIAL, load_voices, read_voice_file

    if not file.exists():
        raise InputError(f"{file}: not there; expected a clip, a voice file or a checkpoint directory; check the path")  # fmt: skip
    if file.name == OFFICIAL:
        file = file.parent
    return load_voices(file, config) if file.is_dir() else read_voice_file(file, config)


def _enrolled(args: argparse.Namespace, directory: Path, known: Any) -> tuple[Any, dict[str, Any]]:
    """A voice made of a clip, and how it was made."""
    from thinktalk.enrolment import enrol
    from thinktalk.omni import check_device
    from thinktalk.weights.hf import load

    if args.name.casefold() in {name.casefold() for name in known} and not args.replace:
        raise InputError(f"voice {args.name!r} is there already; choose another name or remove it first")  # fmt: skip
    if args.fit_steps < 1:
        raise InputError(f"--fit-steps {args.fit_steps}: expected 1 or more; or say --no-fit")
    check_device(args.device)
    model = load(directory, parts=("code2wav",), device=args.device)
    shown = args.fit_steps // 10 or 1

    def on_step(step: int) -> None:
        if sys.stderr.isatty() and (step % shown == 0 or step == args.fit_steps):
            print(f"\rfitted {step} of {args.fit_steps} steps", end="", file=sys.stderr, flush=True)

    one = enrol(
        model, args.name, args.file, directory=directory, voices=known, fit=args.fit, steps=args.fit_steps, on_step=on_step
    )  # fmt: skip
    made: dict[str, Any] = {"near": one.near, "experimental": one.experimental, "coded": one.coded}
    said = f"{args.name}: speaks with the token of {one.near}"
    if one.fit is not None:
        made |= {"flow_loss_before": one.fit.before, "flow_loss_after": one.fit.after, "steps": one.fit.steps}  # fmt: skip
        said += f"; fitted: flow loss of held-out frames {one.fit.before:.4f} -> {one.fit.after:.4f}"  # fmt: skip
    print(("\r" if sys.stderr.isatty() else "") + said + (" (experimental)" if one.experimental else ""), file=sys.stderr)  # fmt: skip
    return one.voice, made


def _keep(store: Any, voice: Any, experimental: bool, *, replaces: bool) -> None:
    """Into a server's directory."""
    from thinktalk.weights.enrolled import Enrolled

    if replaces and store.path(voice.name).exists():
        store.remove(voice.name)
    store.add(Enrolled(voice, experimental=experimental))


def _rows(directory: Path, config: Any, store: Any) -> dict[str, dict[str, Any]]:
    """Every voice, and where it is stored."""
    from thinktalk.weights.voices import ADDED, OFFICIAL, load_voices, read_voice_file

    if store is not None:
        voices = {name: one.voice for name, one in store.read().items()}
        stored = dict.fromkeys(voices, str(store.directory))
    else:
        added = directory / ADDED
        own = read_voice_file(added, config) if added.exists() else {}
        voices = load_voices(directory, config)
        stored = {name: ADDED if name in own else OFFICIAL for name in voices}
    return {
        name: {"bos_token": voice.bos_token, "ref_mel_frames": voice.ref_mel.shape[1], "stored": stored[name]}
        for name, voice in sorted(voices.items())
    }  # fmt: skip
