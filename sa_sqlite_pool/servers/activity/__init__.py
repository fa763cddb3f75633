"""Whether anything was done on a connection: what was written by whichever way is seen later."""
