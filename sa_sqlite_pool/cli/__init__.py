"""The command ``sa-sqlite-pool``: an extra, ``pip install 'sa-sqlite-pool[cli]'``."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"typer", "rich"})
_INTERRUPTED = 130  # as shells have it: output.ExitCode, which is not there yet


def main() -> None:
    """Run the command, or say what is missing for it."""
    try:
        from .app import run  # noqa: PLC0415 - it needs what may not be installed
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"sa-sqlite-pool: {missing} is not installed, which the command needs: "
            "pip install 'sa-sqlite-pool[cli]'\n"
        )
        raise SystemExit(3) from None
    except KeyboardInterrupt:  # imports take as long as it takes to see that one has mistyped
        raise SystemExit(_INTERRUPTED) from None
    run()
