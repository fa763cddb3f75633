"""The server before the rows: whether it takes the models, and what its refusals mean."""
