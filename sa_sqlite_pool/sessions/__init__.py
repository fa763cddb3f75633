"""Sessions: which engine a statement goes to."""
