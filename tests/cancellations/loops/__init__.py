"""Several event loops on the same engines and files, each in a thread of its own.

kinds.py    which loops there are
threads.py  a loop in a thread
closing.py  a database that is closed while other loops work
"""
