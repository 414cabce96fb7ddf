"""Proof, scope and allowance. Stores nothing itself, and does not know HTTP."""
