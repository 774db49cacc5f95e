"""The page of all commands says what they say."""

from __future__ import annotations

from commands_page import PAGE, page


def test_page_has_the_help_of_each_command() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it with: python -m tests.support.commands_page"
