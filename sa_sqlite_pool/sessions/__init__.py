"""Sessions, and the engine that each of their statements is routed to."""
