"""Flat views in MySQL and MariaDB."""

from __future__ import annotations

from flask_chest.stores.sql.views import ViewSyntax

MYSQL_VIEW = ViewSyntax(
    time="TIMESTAMPADD(MICROSECOND, time_unix_nano DIV 1000, TIMESTAMP'1970-01-01 00:00:00.000000')",
    source="{records} AS record",
    variable="""JSON_EXTRACT(record.variables, '$."{name}"')""",
    columns={
        "bool": "CASE WHEN JSON_TYPE({variable}) = 'BOOLEAN' THEN JSON_UNQUOTE({variable}) = 'true' END",
        # MySQL calls any number above 32 bits UNSIGNED INTEGER, also one that no signed column holds.
        "int": (
            "CASE WHEN JSON_TYPE({variable}) = 'INTEGER' OR (JSON_TYPE({variable}) = 'UNSIGNED INTEGER'"
            " AND CAST(JSON_UNQUOTE({variable}) AS decimal(20)) <= 9223372036854775807)"
            " THEN CAST(JSON_UNQUOTE({variable}) AS signed) END"
        ),
        "float": (
            "CASE WHEN JSON_TYPE({variable}) IN ('INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL')"
            " THEN CAST(JSON_UNQUOTE({variable}) AS double) END"
        ),
        "text": "CASE WHEN JSON_TYPE({variable}) = 'STRING' THEN JSON_UNQUOTE({variable}) END",
        "json": "CAST({variable} AS char)",
    },
    definition=(
        "SELECT CASE WHEN view_definition = '' THEN NULL ELSE coalesce(view_definition, '') END"
        " FROM information_schema.tables LEFT JOIN information_schema.views USING (table_schema, table_name)"
        " WHERE table_schema = database() AND lower(table_name) = lower(?)"
    ),
    replace=("CREATE OR REPLACE VIEW {view} AS {select}",),
)
