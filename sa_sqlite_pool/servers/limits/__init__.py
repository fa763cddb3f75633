"""How long a statement may run and wait for locks, and the errors if it exceeds that."""
