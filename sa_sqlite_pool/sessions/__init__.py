"""Sessions, and the routing of their statements to a writer or a reader engine."""
