"""Fixtures of the server's tests, for its notebooks' modules."""

from tests.serving.conftest import model, tokenizer  # noqa: F401
