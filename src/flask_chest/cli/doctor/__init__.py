"""``flask chest doctor``: what is wrong first, and only then what deserves a look."""

from __future__ import annotations

from flask import current_app

from flask_chest.cli._group import chest_group
from flask_chest.cli._output import say
from flask_chest.cli.doctor._examinations import EXAMINATIONS
from flask_chest.cli.doctor._hints import HINTS
from flask_chest.extension.middleware import behind


@chest_group.command("doctor")
def doctor() -> None:
    """Explain why nothing is recorded or exported, with the way out.

    \b
    Example: flask --app shop chest doctor

    Exits with 1 when something is wrong.
    """  # noqa: D301
    app = behind(current_app)
    findings = [finding for examine in EXAMINATIONS for finding in examine(app)]
    say(*(f"- {finding}" for finding in findings))
    if findings:
        raise SystemExit(1)
    hints = [hint for look in HINTS for hint in look(app)]
    say("Nothing is wrong.", *hints)
