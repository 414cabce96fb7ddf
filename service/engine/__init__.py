"""The model, its memory, and the order of work. Runs as a process of its own.

Owns everything between token ids in and text out, and is the only importer of `llama_cpp`.
Never sees HTTP, JSON bodies, chat templates, principals or SQL.
"""

from service.engine.binding import leave_package_unread

leave_package_unread()
