"""The server before the rows: whether it accepts the models, and what its refusals mean."""
