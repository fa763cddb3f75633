"""Random programs of one task, run on stock and on this package: the same comes of them."""
