"""How a model is fitted to this machine: measured, planned, loaded, remembered."""
