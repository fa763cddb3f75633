"""Statistics for other processes: a socket beside the database, and what asks at it."""
