"""The viewer's own templates, which no setting, global or template of the app reaches."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

import flask_chest
from flask_chest.errors import printable
from flask_chest.viewer import _format, _shown

_STALE = "<!-- stale -->"
"""Where a page says that it was made before; texts of others are escaped, so that none contains it."""

_environment = Environment(
    loader=PackageLoader("flask_chest.viewer"),
    autoescape=True,
    auto_reload=False,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    duration=_format.duration,
    span=_format.span,
    number=_format.number,
    percent=_format.percent,
    size=_format.size,
    time_text=_format.time_text,
    minute_text=_format.minute_text,
    iso=_format.iso,
    relative=_format.relative,
    json_text=_format.json_text,
    json_block=_format.json_block,
    value_text=_format.value_text,
    shortened=_format.shortened,
    in_seconds=_shown.seconds,
    as_rate=_shown.rate,
    plain=printable,
)


def render(template: str, /, **context: object) -> str:
    """Return the HTML of *template*."""
    # The version is read now: flask_chest sets it after it has imported what is below.
    return _environment.get_template(template).render(**context, stale=_STALE, version=flask_chest.__version__)


def with_notice(body: bytes, age: float) -> bytes:
    """Return a page that says how old it is."""
    notice = f'<p class="notice">As it was {age:.0f} s ago: many ask, and one question is answered at a time.</p>'
    return body.replace(_STALE.encode(), notice.encode(), 1)
