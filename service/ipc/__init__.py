"""The sockets between processes: message types, framing, both ends.

Owns two protocols: msgpack frames between API workers and an engine (`messages`, `framing`,
`server`, `client`), and JSON lines from the supervisor to the workers (`status`).
Never knows what a prompt means, or who sent it.
"""
