"""The options of an exporter: their defaults, and where the values come from.

That is its constructor, else ``app.config``, else the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from flask_chest.errors import ConfigurationError
from flask_chest.extension.settings import found

ACCEPTED = range(200, 300)
"""Status codes by which an endpoint says that it has taken a batch."""
REJECTING = (400, 413, 422)
"""Status codes by which an endpoint says that it will never take a batch."""
TIMEOUT = 10.0
"""Seconds for one delivery as a whole."""


class Default(str):
    """A default of a signature, told apart from the same text as it is given."""

    __slots__ = ()


class OptionMissing(ConfigurationError):
    """An option is given nowhere, as far as was looked."""


class ExporterOptions:
    """The options of the exporter *name*.

    They are in *config* with *prefix* and that name before them, as ``CHEST_HTTP_URL``, and in *environ* with
    ``FLASK_`` before that.
    """

    def __init__(
        self, *, prefix: str, name: str, config: Mapping[str, object], environ: Mapping[str, str]
    ) -> None:
        self._lead = f"{prefix}_{re.sub('[^0-9A-Za-z]', '_', name).upper()}_"
        self._config = config
        self._environ = environ
        self._origins: dict[str, str] = {}

    @property
    def origins(self) -> str:
        """Names of the settings that the values were found under, in words that follow a message."""
        return "".join(f"; {option} comes from {key}" for option, key in self._origins.items())

    def text(self, option: str, given: str | None) -> str | None:
        """Return *given*, unless it is a `Default` or ``None`` and the settings have a value."""
        if given is not None and not isinstance(given, Default):
            return given
        value = self._find(option)
        if value is None:
            return given
        if not isinstance(value, str):
            raise ConfigurationError(f"{option} must be a text, got a value of type {type(value).__name__}")
        return value

    def needed_text(self, option: str, given: str | None) -> str:
        """Return the option as text; raise `OptionMissing` if it is neither given nor set."""
        text = self.text(option, given)
        if text is None:
            key = self._key(option)
            raise OptionMissing(
                f"{option} is not given; pass it, or set {key} in app.config or FLASK_{key} in the environment"
            )
        return text

    def texts(self, option: str, given: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return *given*, or else the mapping that is set; the environment holds it as JSON."""
        if given is not None:
            return given
        value = self._find(option)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(
                f"{option} must be a mapping of texts, as JSON in the environment; "
                f"got a value of type {type(value).__name__}"
            )
        return cast("Mapping[str, str] | None", value)

    def _key(self, option: str) -> str:
        return f"{self._lead}{option.upper()}"

    def _find(self, option: str) -> object:
        value, key = found(self._key(option), config=self._config, environ=self._environ, as_text=True)
        if value is not None:
            self._origins[option] = key
        return value
