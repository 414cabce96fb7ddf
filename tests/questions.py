"""What Pocket is asked by the tests that compare answers given together and alone."""

from __future__ import annotations

QUESTIONS = [
    "What is the capital of France?",
    "Count from 1 to 10.",
    "What is the capital of Japan?",
    "List three fruits.",
    "Write a haiku.",
    "Tell me a story.",
    "What is RAM?",
    "Hello!",
]
