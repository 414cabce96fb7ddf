"""What stands behind `make`: the virtual environment, its locks, and the wheel to be compiled.

Owns everything between a fresh clone and a working `.venv/bin/parley`. Standard library only, as it
runs before anything is installed; it never imports `service`. System packages and the search for a
Python are the business of the shell script `prepare`, which ends by running this package.
"""
