"""The command ``sa-sqlite-pool``, as ``python -m sa_sqlite_pool``."""

from .cli import main

if __name__ == "__main__":
    main()
