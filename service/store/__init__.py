"""Rows and transactions. Keeps and returns; never decides."""
