"""The files of a database: its location, the files beside it, and the processes that use it."""
