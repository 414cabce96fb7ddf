"""Test doubles that behave."""
