"""A live page to mount in any ASGI application: ``app.mount("/sqlite", live_page(...))``.

::

    from sa_sqlite_pool.integrations.live import live_page

    app.mount("/sqlite", live_page(db, allow=lambda request: request.user.is_admin))

It requires Starlette (``pip install sa-sqlite-pool[live]``), which FastAPI installs anyway.
"""

from ...extras import imports_of_extra

with imports_of_extra("live", __name__):
    import starlette as _starlette  # noqa: F401

from .app import Allow, LivePage, live_page

__all__ = ["Allow", "LivePage", "live_page"]
