"""thinktalk voices: list, add and remove the voices of a checkpoint.

Official voices stay in spk_dict.pt, which is never written; added ones live beside it in voices.safetensors.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from thinktalk.errors import InputError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # every action takes the same shared options, before or after its own words
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model", default="nano", metavar="M", help="nano (default), a directory, or a hub id"
    )
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = parser.add_subparsers(dest="action", metavar="list|add|remove", required=True)
    actions.add_parser("list", parents=[shared], help="names, and where each is stored")
    add = actions.add_parser(
        "add", parents=[shared], help="add a voice that another checkpoint or file holds"
    )
    add.add_argument("name", metavar="NAME", help="the name it gets here")
    add.add_argument(
        "file",
        metavar="FILE",
        help="a voices.safetensors or spk_dict.pt, or a directory that has them",
    )
    add.add_argument(
        "--as", dest="original", metavar="OTHER", help="its name there (default: NAME)"
    )
    add.add_argument("--replace", action="store_true", help="replace an added voice of that name")
    remove = actions.add_parser("remove", parents=[shared], help="remove an added voice")
    remove.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    from thinktalk.omni import resolve
    from thinktalk.weights.config_read import read_config
    from thinktalk.weights.voices import (
        ADDED,
        OFFICIAL,
        add_voice,
        find_voice,
        load_voices,
        read_voice_file,
        remove_voice,
    )

    directory = resolve(args.model)
    config = read_config(directory)
    added = directory / ADDED
    if args.action == "add":
        file = Path(args.file)
        if not file.exists():
            raise InputError(
                f"{file}: not there; expected a voice file or a checkpoint directory; check the path"
            )
        if file.name == OFFICIAL:
            file = file.parent
        there = load_voices(file, config) if file.is_dir() else read_voice_file(file, config)
        voice = replace(find_voice(there, args.original or args.name), name=args.name)
        add_voice(added, voice, config=config, replace=args.replace)
    elif args.action == "remove":
        remove_voice(added, args.name, config=config)
    own = read_voice_file(added, config) if added.exists() else {}
    voices = load_voices(directory, config)
    rows = {
        name: {
            "bos_token": voice.bos_token,
            "ref_mel_frames": voice.ref_mel.shape[1],
            "stored": ADDED if name in own else OFFICIAL,
        }
        for name, voice in sorted(voices.items())
    }
    if args.json:
        print(json.dumps({"voices": rows}))
    else:
        for name, row in rows.items():
            print(
                f"{name:<24}{row['ref_mel_frames']:>6} mel frames   token {row['bos_token']}   {row['stored']}"
            )
    return 0
