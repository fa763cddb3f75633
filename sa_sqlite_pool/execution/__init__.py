"""The execution of calls: the thread in which each runs, and how long it may take there."""
