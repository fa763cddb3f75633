"""A small shop that takes orders, served by FastAPI, measured under load, its books checked."""
