"""The tables on PostgreSQL into which rows are copied: names, settings, sequences, revisions."""
