"""What the package has to know of PostgreSQL's language."""
