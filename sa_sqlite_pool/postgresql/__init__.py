"""What the package has to know about PostgreSQL's SQL."""
