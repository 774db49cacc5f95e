"""Functions for ``computed=`` that many apps need."""

from __future__ import annotations

import re

from flask import request

from flask_chest.capture.redaction import MASK, NOTHING_HIDDEN, Redaction

__all__ = ["requested_path"]

_MAX_CHARACTERS = 1024
_RUNS = re.compile(r"\w{20,}")
_BUILT_IN = Redaction()


def requested_path() -> str:
    """Return the path that the current request asked for, without its query string.

    A record has the route, which is the same for all users; a request that matched no route has only its path.
    A path may contain a secret, so a segment is masked that follows one with a secret-looking name, as in
    ``/reset/token/…``, or that looks like a token or an email address. What a pattern of the chest finds is
    hidden as in any variable. A path of more than 1,024 characters is cut.
    """
    shown: list[str] = []
    names_secret = False
    for segment in request.path[:_MAX_CHARACTERS].split("/"):
        named = _BUILT_IN.verdict(segment) is not NOTHING_HIDDEN
        hidden = names_secret or (named and "=" in segment) or _looks_secret(segment)
        shown.append(MASK if hidden and segment else segment)
        names_secret = named and not hidden
    return "/".join(shown)


def _looks_secret(segment: str) -> bool:
    # Digits and letters in a run without a hyphen: no slug of an article and no UUID has that.
    runs = _RUNS.findall(segment)
    return "@" in segment or any(re.search("[0-9]", run) and re.search("[A-Za-z]", run) for run in runs)
