"""A live page to mount in any ASGI application: ``app.mount("/sqlite", live_page(...))``.

::

    from sa_sqlite_pool.integrations.live import live_page

    app.mount("/sqlite", live_page(db, allow=lambda request: request.user.is_admin))

It requires Starlette (``pip install sa-sqlite-pool[live]``), which FastAPI installs anyway.
"""

from .. import without_library

try:
    import starlette as _starlette  # noqa: F401
except ModuleNotFoundError as _error:
    raise without_library(_error, "live") from _error

from .app import Allow, LivePage, live_page

__all__ = ["Allow", "LivePage", "live_page"]
