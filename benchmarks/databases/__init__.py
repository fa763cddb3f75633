"""The files that contenders work on.

files.py  filled once, copied for each run
items.py  a table of things to read, whose every row is known
"""
