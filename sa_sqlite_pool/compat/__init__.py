"""Code that depends on the internals of SQLAlchemy, greenlet and asyncio."""
