"""Rows and transactions. Keeps and returns; never decides.

One sqlite file, shared by all workers; every call runs in a thread of its own pool.
"""
