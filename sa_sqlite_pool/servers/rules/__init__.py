"""What an application may and may not specify about transactions of a ``ServerDatabase``."""
