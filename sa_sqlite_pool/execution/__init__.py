"""The execution of calls: in which thread each runs, and how long it may take there."""
