"""What an application may say about transactions of a ``ServerDatabase``, and what not."""
