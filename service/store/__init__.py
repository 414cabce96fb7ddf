"""Rows and transactions. Keeps and returns; never decides.

One sqlite file, shared by all workers. Calls run in threads of its own pool, but for admissions
where nobody else writes just now: a thread takes longer to wake than they take.
"""
