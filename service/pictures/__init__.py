"""What people show: pictures fetched or decoded within limits, never from an inner network.

May import settings, log, domain. Must never know a dialect, nor look further into a picture than
its size: decoding is the engine's."""
