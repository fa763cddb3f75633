"""The write-ahead log: how large it is, when it is moved into the database, and by what."""
