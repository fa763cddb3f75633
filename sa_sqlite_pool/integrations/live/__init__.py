"""A live page, to be mounted in any ASGI application: ``app.mount("/sqlite", live_page(...))``.

::

    from sa_sqlite_pool.integrations.live import live_page

    app.mount("/sqlite", live_page(db, allow=lambda request: request.user.is_admin))

It needs Starlette (``pip install sa-sqlite-pool[live]``), which FastAPI brings along.
"""

from .app import Allow, LivePage, live_page

__all__ = ["Allow", "LivePage", "live_page"]
