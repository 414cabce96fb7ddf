"""The operator's hand. Does nothing that an endpoint or another root does not."""
