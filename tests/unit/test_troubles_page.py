"""The page about what can go wrong quotes what the package really says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flask_chest

PAGE = Path(__file__).parents[2] / "docs" / "troubles.md"
LEAST_CHARACTERS = 16
"""What is quoted must be longer than that, or it would be found anywhere."""


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted() -> list[str]:
    return [quote for row in rows() for quote in re.findall(r"“([^”]+)”", row[1])]


@cache
def said() -> str:
    """What the package may print: all its literals, with a mark where a value stands."""
    trees = (ast.parse(path.read_text()) for path in Path(flask_chest.__file__).parent.rglob("*.py"))
    return "\n".join(literal for tree in trees for literal in literals(tree))


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("quote", quoted())
def test_sentence_that_the_page_quotes_is_one_that_the_package_says(quote: str) -> None:
    parts = [re.escape(part) for part in quote.split("…") if part]
    assert sum(map(len, quote.split("…"))) >= LEAST_CHARACTERS
    assert re.search(r"[^\n]*?".join(parts), said()), quote


def test_every_trouble_has_a_sign_and_a_way_out() -> None:
    assert len(rows()) > 30
    assert all(len(row) == 3 and all(row) for row in rows())
