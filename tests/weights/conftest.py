"""One tiny random checkpoint for all tests of this folder, and a writable copy of it for those that damage it."""

import shutil

import pytest

from thinktalk import config as cfg
from thinktalk.weights.random import random_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A tiny checkpoint in shards; read only."""
    return random_checkpoint(cfg.tiny(), tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def damaged(tiny_checkpoint, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "damaged")
