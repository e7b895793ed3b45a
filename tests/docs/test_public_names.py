"""Public is what __all__ lists: every module has one, every name in it exists, and a docstring opens each module."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import thinktalk
from thinktalk.cli.main import VERBS

MODULES = [
    "thinktalk",
    *(info.name for info in pkgutil.walk_packages(thinktalk.__path__, "thinktalk.")),
]

RAY = {"thinktalk.server.affinity", "thinktalk.server.replica"}
"""They import Ray, which is installed by .ci/slow only; and importing it warns of things."""
SLOW = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name in RAY else ()) for name in MODULES]
)
def test_module_says_what_is_public(name: str):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    if hasattr(module, "__path__") and name != "thinktalk":
        return  # the __init__ of a stage is a docstring: its modules hold the names
    assert hasattr(module, "__all__"), f"{name} does not say what is public"
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ lists {missing}, which it does not have"
    assert len(set(module.__all__)) == len(module.__all__)


def test_faces_are_there():
    """The names that the README and other programs rely on."""
    for name in ("load", "Omni", "Reply", "TextDelta", "AudioChunk", "Done"):
        assert name in thinktalk.__all__


def test_public_functions_say_what_they_promise():
    silent = []
    verbs = {f"thinktalk.cli.{verb}" for verb in VERBS}  # cli/main.py says what their functions do
    verbs |= {name for name in MODULES if name.startswith("thinktalk.cli.data_")}  # verbs of data
    for name in sorted(set(MODULES) - verbs - RAY):
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            thing = getattr(module, public, None)
            own = getattr(thing, "__module__", None) == name
            if own and callable(thing) and not (getattr(thing, "__doc__", None) or "").strip():
                silent.append(f"{name}.{public}")
    assert not silent, f"no docstring: {silent}"
