"""Where an optional library is not installed, the error of the import names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sa_sqlite_pool

MODULES = [
    ("migrations", "alembic", "alembic"),
    ("integrations.fastapi", "fastapi", "fastapi"),
    ("integrations.fastapi", "starlette", "fastapi"),
    ("integrations.live", "starlette", "live"),
    ("integrations.prometheus", "prometheus_client", "prometheus"),
    ("integrations.opentelemetry", "opentelemetry", "opentelemetry"),
]

PROGRAM = """\
import sys
from importlib import import_module

sys.modules[{library!r}] = None
try:
    import_module({module!r})
except ModuleNotFoundError as error:
    print(error.name, isinstance(error.__cause__, ModuleNotFoundError), error, sep="\\n")
"""


@pytest.mark.parametrize(("module", "library", "extra"), MODULES)
def test_the_extra_is_named(module: str, library: str, extra: str) -> None:
    """It is still a ModuleNotFoundError, with the name of the module and its cause."""
    pytest.importorskip(library)
    name = f"sa_sqlite_pool.{module}"
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(library=library, module=name)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(sa_sqlite_pool.__file__).parents[1],
    )
    missing, chained, message = told.stdout.splitlines()
    assert missing.split(".")[0] == library
    assert chained == "True"
    assert message.startswith(f"{name} needs {library}")
    assert f"pip install 'sa-sqlite-pool[{extra}]'" in message
