"""Several event loops on the same engines and files, each in its own thread.

kinds.py    the kinds of loops
threads.py  a loop in a thread
closing.py  a database that is closed while other loops work
"""
