"""The command ``sa-sqlite-pool``: an extra, ``pip install 'sa-sqlite-pool[cli]'``."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"typer", "rich"})
_INTERRUPTED = 130  # as in shells; equals output.ExitCode, which is not imported yet


def main() -> None:
    """Run the command, or report the package that is missing."""
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
    except KeyboardInterrupt:  # imports take long enough to notice a typo and press Ctrl-C
        raise SystemExit(_INTERRUPTED) from None
    run()
