"""Engines that turn texts into vectors, or into scores."""
