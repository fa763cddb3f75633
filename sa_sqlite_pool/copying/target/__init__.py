"""The tables on PostgreSQL that the rows go into: names, settings, sequences, revisions."""
