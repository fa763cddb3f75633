"""What a copy to PostgreSQL takes: rows a second in each phase, and memory."""
