"""What the tests of training share."""

import pytest

from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix


@pytest.fixture(scope="session")
def tokenizer():
    """A small vocabulary, trained in a moment."""
    examples = training_mix(80)
    return build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
