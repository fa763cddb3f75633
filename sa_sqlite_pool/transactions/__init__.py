"""What a connection holds for its transaction, and what it waits for."""
