"""Settings: the command line, the environment and the defaults; what makes no sense is refused in one line."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from pathlib import Path

import pytest

from thinktalk.errors import ConfigError
from thinktalk.server.settings import Settings, add_arguments, is_loopback


def read(*words: str, **environ: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return Settings.read(vars(parser.parse_args(words)), environ)


def test_every_field_is_an_option_with_help():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = parser.format_help()
    for item in fields(Settings):
        assert "--" + item.name.replace("_", "-") in told, item.name
    assert read() == Settings()


def test_the_command_line_wins_over_the_environment():
    environ = {"THINKTALK_MAX_SESSIONS": "7", "THINKTALK_PORT": "81", "THINKTALK_ALLOW_URLS": "yes"}
    settings = read("--max-sessions", "3", "--api-keys", "a, b", "--no-log-content", **environ)
    assert (settings.max_sessions, settings.port, settings.allow_urls) == (3, 81, True)
    assert settings.api_keys == ("a", "b") and not settings.log_content
    assert read(THINKTALK_DTYPE="int8", THINKTALK_QUEUE_SECONDS="0.5").queue_seconds == 0.5


def test_json_brings_all_of_it_to_a_worker():
    settings = Settings(api_keys=("x",), max_load=None, placement="talker=cpu")
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.parts_placement == {"talker": "cpu"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(port=70000), "--port 70000: expected 0 to 65535"),
        (dict(workers=0), "--workers 0: expected 1 or more"),
        (dict(queue_seconds=-1.0), "--queue-seconds -1.0: expected more than 0"),
        (dict(max_load=float("nan")), "--max-load nan: expected more than 0"),
        (dict(tls_cert="a.pem"), "both --tls-cert and --tls-key"),
        (dict(flow_method="guess"), "expected rk4, midpoint or euler"),
    ],
)
def test_nonsense_is_refused(given: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        Settings(**given)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MAX_SESSIONS", "many", "THINKTALK_MAX_SESSIONS=many: expected a whole number"),
        ("INSECURE", "maybe", "expected true or false"),
        ("RATE", "1,5", "expected a number"),
    ],
)
def test_nonsense_in_the_environment_is_refused(name: str, text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        Settings.read({}, {f"THINKTALK_{name}": text})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.0.0.1.example.org"])  # fmt: skip
def test_other_addresses_need_keys(host: str):
    with pytest.raises(ConfigError, match="no key is set"):
        Settings(host=host).check_address()
    Settings(host=host, api_keys=("k",)).check_address()
    Settings(host=host, insecure=True).check_address()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_none(host: str):
    assert is_loopback(host)
    Settings(host=host).check_address()


def test_the_page_about_the_server_names_every_option_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    named = set(re.findall(r"`--([a-z-]+)`", page))
    assert named == {item.name.replace("_", "-") for item in fields(Settings)}
