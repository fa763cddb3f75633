"""One file a neighbour; nothing in the package imports them."""
