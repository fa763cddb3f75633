"""What the drivers of PostgreSQL, asyncpg and psycopg, do each in their own way."""
