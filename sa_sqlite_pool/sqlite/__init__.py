"""The SQLite library and its driver: statements, authorizer, errors. No event loop, no engine."""
