"""The cost of a copy to PostgreSQL: rows per second in each phase, and memory."""
