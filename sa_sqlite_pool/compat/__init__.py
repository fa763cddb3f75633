"""Code that leans on how SQLAlchemy, greenlet and asyncio are built inside."""
