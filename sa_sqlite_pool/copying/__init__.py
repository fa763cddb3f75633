"""Copy an SQLite database to PostgreSQL: checked first, in one transaction, and read back."""
