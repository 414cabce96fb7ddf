"""Whose turn it is, and for how much: decisions only, from measured costs and fair shares."""
