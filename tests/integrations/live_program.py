"""An application with the live page, for uvicorn in a separate process."""

from __future__ import annotations

import os

from fastapi import FastAPI

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan
from sa_sqlite_pool.integrations.live import live_page

db = SQLiteDatabase(os.environ["LIVE_DATABASE"])
app = FastAPI(lifespan=lifespan(db))
app.mount("/sqlite", live_page(db, allow=lambda _request: True))
