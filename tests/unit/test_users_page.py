"""The apps of the page about logged-in users record who is there."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from documents import Page

PAGE = Page(Path(__file__).parents[2] / "docs" / "users.md")
ASK = """
import json
from {module} import app, chest

client = app.test_client()
client.get("/cart")
client.post("/login/7")
client.get("/cart")
print(json.dumps([record.variables for record in chest.query()]))
"""


STRANGERS_CART: dict[str, dict[str, object]] = {
    "shop.py": {},
    "with_flask_login.py": {"user_id": None, "plan": None},
}
LOGIN: dict[str, dict[str, object]] = {"shop.py": {}, "with_flask_login.py": {"user_id": "7", "plan": "pro"}}
USERS_CART: dict[str, dict[str, object]] = {
    "shop.py": {"user_id": 7, "plan": "pro"},
    "with_flask_login.py": {"user_id": "7", "plan": "pro"},
}
SHOWN = ("7", "7", '"pro"')
"""What the answer of each command of the page holds."""


@pytest.mark.slow
@pytest.mark.parametrize("name", USERS_CART)
def test_user_of_each_request_is_recorded(name: str, tmp_path: Path) -> None:
    (block,) = PAGE.blocks("python", f"file: {name}")
    (tmp_path / name).write_text(block.code)
    command = [sys.executable, "-c", ASK.format(module=name.removesuffix(".py"))]
    result = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert json.loads(result.stdout) == [USERS_CART[name], LOGIN[name], STRANGERS_CART[name]]
    if name == "shop.py":
        (block,) = PAGE.blocks("console", "commands")
        for line, expected in zip(block.code.splitlines(), SHOWN, strict=True):
            words = shlex.split(line.removeprefix("$ flask "))
            asked = [sys.executable, "-m", "flask", "--app", "shop", *words]
            shown = subprocess.run(asked, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
            assert expected in shown
