"""What was done on connections: later reads see every write, by whatever means it was made."""
