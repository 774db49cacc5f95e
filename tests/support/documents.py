"""The code blocks of the documents."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest


class Block(NamedTuple):
    mark: str
    """What a comment above it says: what it is for a test."""
    language: str
    code: str

    def __str__(self) -> str:
        return self.mark or self.code.split("\n", 1)[0]


class Page:
    """The blocks of one document."""

    def __init__(self, path: Path) -> None:
        self.all = [
            Block(mark or "", language, code)
            for mark, language, code in re.findall(
                r"(?:<!-- ([^>]*) -->\n)?^```(\w+)\n(.*?)^```$",
                path.read_text(encoding="utf-8"),
                re.MULTILINE | re.DOTALL,
            )
        ]

    def blocks(self, language: str, mark: str | None = None) -> list[Block]:
        """Give the blocks in *language* whose mark begins with *mark*."""
        return [b for b in self.all if b.language == language and (mark is None or b.mark.startswith(mark))]

    def programs(self) -> list[str]:
        """Give the Python blocks without a mark, each with those that continue it."""
        found: list[str] = []
        for block in self.blocks("python"):
            if block.mark == "continues":
                found[-1] += block.code
            elif not block.mark:
                found.append(block.code)
        return found


def has_opentelemetry() -> bool:
    """Tell whether the SDK is installed, with which the instrumentations come."""
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def run(program: str, folder: Path) -> str:
    """Run *program* in *folder*, but not what it does only as the main one; any warning is an error.

    Give what it printed.
    """
    needs = ("flask_chest.otel", "OTLP")
    if any(need in program for need in needs) and not has_opentelemetry():
        pytest.skip("OpenTelemetry's SDK is not installed")
    (folder / "program.py").write_text(program.replace('if __name__ == "__main__":', "if False:"))
    command = [sys.executable, "-W", "error", "program.py"]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def shape(output: str) -> set[str]:
    """Give the lines of an output without what differs from run to run: numbers, ids, widths, order."""
    for pattern, word in [
        (r"instance=[^,]+", "instance=I"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
        (r"[0-9.:]+", "N"),
        (r"-{2,}", "-"),
        (r" +", " "),
    ]:
        output = re.sub(pattern, word, output)
    return {line.strip() for line in output.splitlines()}
