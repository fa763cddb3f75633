"""An SQLite database, copied to PostgreSQL: checked first, in one transaction, and read back."""
