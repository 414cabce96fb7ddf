"""HTTP in and out.

Owns routes, dialects, streaming and the words for errors. Contains no rule about chat, and
holds no state between requests.
"""
