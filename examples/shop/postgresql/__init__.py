"""The same shop on a PostgreSQL primary with a replica that lags, beside SQLite."""
