"""The events that the package logs, with their fields, and the limit on repeated warnings."""
