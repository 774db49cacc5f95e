"""Flat views in SQLite."""

from __future__ import annotations

from flask_chest.stores.sql.views import ViewSyntax

SQLITE_VIEW = ViewSyntax(
    time=(
        "strftime('%Y-%m-%dT%H:%M:%S', time_unix_nano / 1000000000, 'unixepoch')"
        " || printf('.%03dZ', time_unix_nano / 1000000 % 1000)"
    ),
    source="{records} AS record",
    variable="""record.variables, '$."{name}"'""",
    columns={
        "bool": "CASE json_type({variable}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
        "int": "CASE json_type({variable}) WHEN 'integer' THEN json_extract({variable}) END",
        "float": (
            "CASE WHEN json_type({variable}) IN ('integer', 'real')"
            " THEN CAST(json_extract({variable}) AS REAL) END"
        ),
        "text": "CASE json_type({variable}) WHEN 'text' THEN json_extract({variable}) END",
        "json": (
            "CASE WHEN json_type({variable}) IN ('true', 'false', 'null') THEN json_type({variable})"
            " WHEN json_type({variable}) IS NOT NULL THEN json_quote(json_extract({variable})) END"
        ),
    },
    definition=(
        "SELECT CASE type WHEN 'view' THEN sql ELSE '' END FROM sqlite_master WHERE lower(name) = lower(?)"
    ),
    replace=("DROP VIEW IF EXISTS {view}", "CREATE VIEW {view} AS {select}"),
)
