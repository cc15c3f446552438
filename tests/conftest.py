"""Fixtures that tests of several folders use."""

import pytest

from tests.tiny_models import tiny


@pytest.fixture(scope="session")
def model():
    return tiny()
