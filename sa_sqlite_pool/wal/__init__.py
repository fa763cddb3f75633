"""The write-ahead log: its size, and the checkpoints that move it into the database."""
