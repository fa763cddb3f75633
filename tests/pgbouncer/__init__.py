"""PgBouncer in front of the servers."""
