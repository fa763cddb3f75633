"""The environment that Alembic runs for every command."""

from models import Base

from sa_sqlite_pool.migrations import run_env

run_env(target_metadata=Base.metadata, compare_server_default=True)
