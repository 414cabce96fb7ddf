"""Holds an answer to a grammar: what a constraint says becomes a matcher over token ids.

`sources` reads constraints, `grammars` compiles them and keeps what is compiled, `trial` finds out
in a process of its own whether compiling ends, `compiler` is the thread that does all this, and
`matcher` runs beside the sampler. Only these modules know llguidance.
"""
