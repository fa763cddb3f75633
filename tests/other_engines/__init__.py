"""Other distributions of SQLite, and other programs that use the file."""
