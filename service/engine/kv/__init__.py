"""The key-value cache: what the slots hold, what waits in memory and on disk, for whom."""
