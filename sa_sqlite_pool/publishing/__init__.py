"""Statistics for other processes: a socket beside the database, and its clients."""
