"""The transactions of a connection: the turns and snapshots they hold, and the waits for them."""
