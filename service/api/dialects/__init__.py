"""One folder per published HTTP vocabulary; strangers to one another.

Each has `schemas.py` (the wire, tolerant where the vendor is), `translate.py` (pure, to and from
`domain`) and `routes.py` (thin handlers).
"""
