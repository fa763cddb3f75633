"""What the PostgreSQL drivers, asyncpg and psycopg, do differently."""
