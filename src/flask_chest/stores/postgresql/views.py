"""Flat views in PostgreSQL."""

from __future__ import annotations

from flask_chest.stores.sql.views import ViewSyntax

POSTGRESQL_VIEW = ViewSyntax(
    time="timestamptz 'epoch' + (time_unix_nano / 1000) * interval '1 microsecond'",
    # The functions that read JSON refuse an escaped NUL, in whatever variable; it is looked for once in a record.
    source=r"""{records} AS record CROSS JOIN LATERAL (
        SELECT CASE
            WHEN strpos(record.variables::text, '\u0000') = 0 THEN record.variables
            ELSE replace(replace(record.variables::text, '\\', '\u005c'), '\u0000', '\ufffd')::json
        END AS document
    ) AS readable""",
    variable="(readable.document -> '{name}')",
    columns={
        "bool": "CASE WHEN json_typeof({variable}) = 'boolean' THEN {variable}::text = 'true' END",
        "int": (
            "CASE WHEN json_typeof({variable}) = 'number' AND {variable}::text !~ '[.eE]'"
            " AND {variable}::text::numeric BETWEEN -9223372036854775808 AND 9223372036854775807"
            " THEN {variable}::text::bigint END"
        ),
        "float": "CASE WHEN json_typeof({variable}) = 'number' THEN {variable}::text::double precision END",
        "text": "CASE WHEN json_typeof({variable}) = 'string' THEN {variable} #>> '{{}}' END",
        "json": "{variable}::text",
    },
    definition=(
        "SELECT CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) ELSE '' END FROM pg_class"
        " WHERE pg_table_is_visible(oid) AND relname = ?"
    ),
    # What reads a view keeps it from being dropped; and to replace one, PostgreSQL wants the same columns first.
    replace=("DROP VIEW IF EXISTS {view}", "CREATE VIEW {view} AS {select}"),
)
