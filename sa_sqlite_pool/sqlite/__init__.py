"""What SQLite is and says: no event loop, no engine."""
