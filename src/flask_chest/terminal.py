"""Foreign text as a terminal, a log and a file of data may show it: nothing in it is obeyed."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0 without tab and line ends, DEL and C1, in which a terminal's sequences begin."""


def printable(text: str) -> str:
    """Return *text* in one line, with a mark in place of whatever a terminal or a log would obey."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else REPLACEMENT for letter in text)


def without_controls(text: str) -> str:
    """Return *text* with its tabs and line ends, and a mark in place of every other control character."""
    return _CONTROLS.sub(REPLACEMENT, text)


def escaped_json(text: str) -> str:
    """Return the JSON *text* with escapes in place of whatever a terminal would obey: it means the same."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
