"""Applications that use the package."""
