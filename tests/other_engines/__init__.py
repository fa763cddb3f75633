"""Other distributions of SQLite, and programs beside it."""
