"""Integrations, one file or folder for each library; no other part of the package imports them."""


def without_library(error: ModuleNotFoundError, integration: str) -> ModuleNotFoundError:
    """Return the error for an integration whose library is missing; its extra has the same name."""
    return ModuleNotFoundError(
        f"sa_sqlite_pool.integrations.{integration} needs {error.name}: "
        f"pip install 'sa-sqlite-pool[{integration}]'",
        name=error.name,
    )
