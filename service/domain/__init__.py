"""The nouns, and what makes them valid.

Owns the values that every other root speaks: requests, events, sampling options, errors.
Standard library only: never does I/O, reads a clock, or imports anything of ours.
"""
