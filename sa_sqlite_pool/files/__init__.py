"""The files of a database: where it is, what lies beside it, which process uses it."""
