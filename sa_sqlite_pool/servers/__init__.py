"""PostgreSQL: a primary and its replicas, behind the interface of ``SQLiteDatabase``."""
