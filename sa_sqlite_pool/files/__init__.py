"""The files of a database: its location, the files beside it, the processes that use it."""
