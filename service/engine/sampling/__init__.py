"""How a row of logits becomes a token id.

Pure numpy on one row, so that nothing here can abort the process and every stage can be tested
without a model. The order and the definitions are llama.cpp's: bias, penalties, DRY, top-n-sigma,
top-k, typical, top-p, min-p, XTC, temperature, draw; mirostat stands in for all behind the bias.

The likeliest tokens are taken out first (`candidates`), and nearly always they are enough: every
stage knows what the others may hold together, and asks for more only where that could change its
outcome.
"""
