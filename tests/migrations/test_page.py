"""docs/migrations.md, followed literally."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "migrations.md").read_text()


def block(language: str, containing: str) -> str:
    """Return the only code block of the page that contains ``containing``."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    (text,) = [text for text in found if containing in text]
    return str(text)


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_zero_to_the_first_migration(tmp_path: Path) -> None:
    """Each command and file is used as shown, then the application, twice; no change remains."""
    install, init = block("console", "alembic init").splitlines()
    assert install.startswith("pip install")
    run(tmp_path, "-m", *init.split())
    ini, wanted = tmp_path / "alembic.ini", block("ini", "sqlalchemy.url").strip()
    changed, count = re.subn(r"(?m)^sqlalchemy\.url = .*$", wanted, ini.read_text())
    assert count == 1
    ini.write_text(changed)
    (tmp_path / "migrations" / "env.py").write_text(block("python", "run_env(target_metadata"))
    (tmp_path / "models.py").write_text(block("python", "class Account"))
    (tmp_path / "app.py").write_text(block("python", "await upgrade(db"))

    revision, upgrade = block("console", "--autogenerate").splitlines()
    run(tmp_path, "-m", "alembic", "revision", "--autogenerate", "-m", "create accounts")
    assert revision == 'alembic revision --autogenerate -m "create accounts"'
    run(tmp_path, "-m", *upgrade.split())
    (written,) = (tmp_path / "migrations" / "versions").glob("*.py")
    assert "op.create_table('accounts'" in written.read_text()
    for _ in range(2):
        assert run(tmp_path, "app.py") == "1 head\n"
    assert "No new upgrade operations" in run(tmp_path, "-m", "alembic", "check")


def test_the_url_from_the_environment(tmp_path: Path) -> None:
    """The page's line for ``env.py`` accepts a percent sign in the name."""
    run(tmp_path, "-m", "alembic", "init", "migrations")
    line = block("python", "DATABASE_URL")
    (tmp_path / "migrations" / "env.py").write_text(
        f"import os\nos.environ['DATABASE_URL'] = 'sqlite:///a%b.db'\nfrom alembic import context\n"
        f"{line}\nfrom sa_sqlite_pool.migrations import run_env\nrun_env(target_metadata=None)\n"
    )
    run(tmp_path, "-m", "alembic", "upgrade", "head")
    assert (tmp_path / "a%b.db").exists()
