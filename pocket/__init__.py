"""Makes Pocket, the built-in chat model, from nothing but the dialogues written here.

`python -m pocket` trains, exports and checks. Needs `pocket/requirements.txt`; the service never
imports this package, and the dialogues and their tests need only the standard library.
"""
