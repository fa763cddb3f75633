"""What the package logs: all events, with their fields, and how often each is logged."""
