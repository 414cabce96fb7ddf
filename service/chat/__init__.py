"""The use cases, in order: what it means to answer a message.

Never knows a wire format, nor touches a socket or a cursor directly.
"""
