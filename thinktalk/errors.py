"""The errors a user can cause. Each message is one line: what came, what was expected, what to do."""

from __future__ import annotations

__all__ = ["ConfigError", "InputError", "ThinktalkError", "WeightsError"]


class ThinktalkError(Exception):
    """Base of every error that the command line prints as one line with exit status 2."""


class InputError(ThinktalkError):
    """A message, a media file or a prompt that cannot be used."""


class ConfigError(ThinktalkError):
    """A configuration or an option whose values do not fit together."""


class WeightsError(ThinktalkError):
    """A checkpoint that is missing something, is damaged, or is of another model."""
