"""Who may see the viewer: nobody, unless what the app gave as *allow* returns ``True``.

It is asked in every request, before anything else. Whatever else it returns, also what is true to Python (a proxy
of a user, a coroutine, a function that was not called), and whatever it raises, keeps the viewer closed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from types import CoroutineType
from typing import TypeAlias

from flask import request

from flask_chest._process import pass_interruption
from flask_chest.errors import ConfigurationError

Allow: TypeAlias = Callable[[], object]
"""Is called without arguments in each request; ``True`` itself opens the viewer."""

logger = logging.getLogger("flask_chest.viewer")


class Gate:
    """Asks *allow*, and logs once for each type why it stays closed."""

    def __init__(self, allow: Allow) -> None:
        """Raise `ConfigurationError` if *allow* cannot be called."""
        if not callable(allow):
            raise ConfigurationError(
                "allow must be a function that returns True for those who may see the viewer, as in "
                f"allow=lambda: current_user.is_admin, got a {type(allow).__name__}"
            )
        self._allow = allow
        self._told: set[type] = set()

    @property
    def challenge(self) -> str | None:
        """Value of ``WWW-Authenticate`` by which a browser asks for a password, or ``None``."""
        return self._allow.challenge if isinstance(self._allow, BasicAuth) else None

    def opens(self) -> bool:
        """Return whether the current request may see the viewer."""
        try:
            said = self._allow()
        except BaseException as exc:  # noqa: BLE001 - of the app; an abort() is one too
            pass_interruption(exc)
            self._tell(type(exc), "raised")
            return False
        if said is True:
            return True
        # By its own type: isinstance would ask a proxy for its class, and thus the app again, which may raise.
        if type(said) is CoroutineType:
            said.close()  # else Python warns that nobody awaited it
        if said is not False:
            self._tell(type(said), "returned")
        return False

    def _tell(self, kind: type, how: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(
                "the viewer is closed: allow %s a %s.%s, and only True opens it",
                how,
                kind.__module__,
                kind.__qualname__,
            )


class BasicAuth:
    """Lets in whoever sends the password that an environment variable holds, under any user name."""

    challenge = 'Basic realm="chest", charset="UTF-8"'

    def __init__(self, variable: str) -> None:
        """Read the password from the environment's *variable*, in each request."""
        self._variable = variable

    def __call__(self) -> bool:
        """Return whether the current request brings the password; none does while there is none."""
        wanted = os.environ.get(self._variable, "")
        sent = request.authorization
        given = sent.password if sent is not None and sent.type == "basic" else None
        return are_same(given or "", wanted) and wanted != ""


def basic_auth(variable: str) -> Allow:
    """Return an *allow* that asks for the password which the environment *variable* holds; any user name will do.

    An unset or empty variable lets nobody in. The browser sends the password with each request: use HTTPS.
    """
    if not variable:
        raise ConfigurationError(
            'basic_auth takes the name of an environment variable, as in basic_auth("CHEST_VIEWER_PASSWORD")'
        )
    return BasicAuth(variable)


def are_same(given: str, secret: str) -> bool:
    """Return whether *given* is the *secret*, in a time that tells nothing of it."""
    # Digests are of one length, whatever the length of what was given.
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)
