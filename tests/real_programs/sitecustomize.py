"""Copied into an environment's site-packages: another SQLite, by a package that contains one.

``SQLITE_MODULE=pysqlite3`` makes that module replace ``sqlite3`` in this process and in those
that it starts, before the standard library's can be imported.
"""

import importlib
import os
import sys
from typing import Any

if name := os.environ.get("SQLITE_MODULE"):
    module: Any = importlib.import_module(name)
    module.dbapi2 = importlib.import_module(f"{name}.dbapi2")
    for attribute in vars(module.dbapi2):
        if not hasattr(module, attribute):
            setattr(module, attribute, getattr(module.dbapi2, attribute))
    sys.modules["sqlite3"] = module
    sys.modules["sqlite3.dbapi2"] = module.dbapi2
