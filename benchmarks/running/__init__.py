"""The turns of contenders."""
