"""What the tests of training share."""

import pytest

from tests.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """A small vocabulary, trained in a moment."""
    return tiny_tokenizer()
