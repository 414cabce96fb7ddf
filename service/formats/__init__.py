"""The text a model expects, and the meaning of the text it wrote.

Owns chat templates, tool-call and reasoning syntax. Never awaits, logs contents, or knows a
dialect.
"""
