import pytest
from sample_house import write_shards


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> list[str]:
    """Three shards of ten spoken samples each; read them, do not write into them."""
    return write_shards(tmp_path_factory.mktemp("speech"), shards=3, samples=10)
