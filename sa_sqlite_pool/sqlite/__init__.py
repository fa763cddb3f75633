"""SQLite and its driver: statements, authorizer, errors. Uses no event loop and no engine."""
