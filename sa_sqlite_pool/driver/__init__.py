"""One SQLite connection. The only code that touches aiosqlite or sqlite3."""
