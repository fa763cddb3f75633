"""The driver connection that SQLAlchemy sees: adapter, cursors, and the execution of statements."""
