"""Random programs of one task, run on stock and on this package, with identical outcomes."""
