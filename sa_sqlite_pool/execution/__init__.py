"""In which thread a call runs, and how long it may take there."""
