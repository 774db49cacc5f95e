"""The matrix: Pythons, and the oldest and newest of what a chest stands on.

    nox --session tests-3.13 'flask(oldest)' lowest

Each session makes an environment of its own. What follows ``--`` goes to pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
OLDEST_FLASK = ["flask==3.0.*", "werkzeug==3.0.*"]
NEWEST_FLASK = "https://github.com/pallets/flask/archive/refs/heads/main.zip"
OLDEST_OPENTELEMETRY = [
    *(f"opentelemetry-{part}==1.39.1" for part in ("api", "sdk", "proto")),
    *(f"opentelemetry-instrumentation-{part}==0.60b1" for part in ("flask", "sqlite3", "urllib3")),
]
EXTRAS = "influxdb,postgresql,mysql,mongodb,clickhouse,http,plot,arrow"

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "flask", "opentelemetry", "lowest", "clickhouse", "package"]
project = nox.project.load_toml("pyproject.toml")


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(project, *names))


def unit(session: nox.Session, *options: str) -> None:
    session.run("pytest", "-q", "-n", "auto", "--dist", "loadfile", *options, *session.posargs, "tests/unit")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests, those of servers where there are any."""
    session.install("--editable", f".[{EXTRAS},otel,otlp]", *groups("test", "types"))
    folders = ["tests/integration", "tests/processes", "tests/unit"]  # what takes longest comes first
    options = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    session.run("pytest", "-q", *options, *session.posargs, *folders)


@nox.session
@nox.parametrize("release", ["oldest", "newest"], ids=["oldest", "newest"])
def flask(session: nox.Session, release: str) -> None:
    """Run the unit tests with the oldest Flask that is promised, and its main branch, or what FLASK names."""
    packages = OLDEST_FLASK if release == "oldest" else [os.environ.get("FLASK", NEWEST_FLASK)]
    session.install("--editable", f".[{EXTRAS},otel,otlp]", *groups("test", "types"))
    session.install(*packages)
    # Of OpenTelemetry's instrumentation, which asks for what Flask will not have for long.
    unit(session, "-W", "ignore:'request_ctx' has merged:DeprecationWarning")


@nox.session
@nox.parametrize("there", ["oldest", "api", "none"], ids=["oldest", "api", "none"])
def opentelemetry(session: nox.Session, there: str) -> None:
    """Run the unit tests and mypy with the oldest OpenTelemetry, with its API alone, and with none of it."""
    extras = {"oldest": f"{EXTRAS},otel,otlp", "api": f"{EXTRAS},otel", "none": EXTRAS}[there]
    session.install("--editable", f".[{extras}]", *groups("test-core", "types"))
    if there == "oldest":
        session.install(*OLDEST_OPENTELEMETRY)
    unit(session)
    # What is not there can be anything to mypy.
    absent = ["--disable-error-code=import-not-found", "--disable-error-code=no-any-return"]
    session.run("mypy", *([] if there == "oldest" else [*absent, "--no-warn-unused-ignores"]), "src")


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the unit tests with the lowest version of each dependency that pyproject.toml allows."""
    package = f".[{EXTRAS},otel,otlp]"
    session.install("--resolution", "lowest-direct", "--editable", package)
    held = session.run("uv", "pip", "freeze", "--quiet", "--exclude-editable", silent=True, stderr=None)
    constraints = Path(session.cache_dir) / "constraints.txt"
    constraints.write_text(str(held))
    session.install("--constraint", str(constraints), *groups("test", "types"))
    unit(session)


@nox.session
def clickhouse(session: nox.Session) -> None:
    """Run the tests of ClickHouse on its engine, chDB, which takes nearly a gigabyte."""
    session.install("--editable", ".[clickhouse,postgresql]", *groups("test-clickhouse"))
    session.run("pytest", "-q", "-n", "auto", *session.posargs, "tests/clickhouse")


@nox.session
def api(session: nox.Session) -> None:
    """Tell what of the public API has changed since the last release so that code of users breaks."""
    tag = session.run(
        "git", "describe", "--tags", "--abbrev=0", external=True, silent=True, success_codes=(0, 128)
    )
    if not tag or "fatal" in str(tag):
        session.skip("there is no release to compare with")
    session.install("griffe")
    session.run("griffe", "check", "flask_chest", "--search", "src", "--against", str(tag).strip())


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist into dist/, and run the unit tests against the wheel, and those of the sdist.

    The tests run in the folder of the unpacked sdist without its ``src``: what they import is what was installed.
    """
    shutil.rmtree("dist", ignore_errors=True)
    session.install("build", "twine", *groups("test", "types"))
    session.run("python", "-m", "build", "--outdir", "dist")
    (wheel,), (sdist,) = Path("dist").glob("*.whl"), Path("dist").glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    with zipfile.ZipFile(wheel) as archive:
        strange = [name for name in archive.namelist() if not re.match(r"flask_chest/|[^/]+\.dist-info/", name)]
    if strange:
        session.error(f"the wheel holds what is not the package: {', '.join(strange)}")
    session.install(f"{wheel}[{EXTRAS},otel,otlp]")
    folder = Path(session.cache_dir).resolve() / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    (unpacked / "src").rename(folder / "src-out-of-reach")
    session.chdir(unpacked)
    unit(session, "--ignore", "tests/unit/test_layers.py", "--ignore", "tests/unit/test_typing.py")
