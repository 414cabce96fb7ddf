"""The process that starts, watches, replaces and stops the others. Main process of the service.

Owns the listening socket, the runtime directory, the engine processes, gunicorn and the download.
Standard library only, one thread: it must be the last thing that fails. Never serves a request,
reads a model, or builds settings: what it needs comes as one JSON plan.
"""
