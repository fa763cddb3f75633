"""SQLAlchemy's source distribution, which contains its tests."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path


def unpacked(version: str, directory: Path) -> Path:
    """Return the folder of this version's sources; pip downloads them unless they exist."""
    source = directory / f"sqlalchemy-{version}"
    if not source.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-binary", "sqlalchemy"]
        subprocess.run([*command, "--dest", f"{directory}", f"sqlalchemy=={version}"], check=True)
        _unpack(directory / f"sqlalchemy-{version}.tar.gz", directory)
    return source


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as tar:
        # Python 3.10 and 3.11 only have the filter since 3.10.12 and 3.11.4.
        if hasattr(tarfile, "data_filter"):
            tar.extractall(directory, filter="data")
        else:
            tar.extractall(directory)
