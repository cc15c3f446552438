"""Reading everything anew writes what a cache writes."""

import pytest

from helpers.decoding.generate import plain_greedy
from helpers.decoding.without_cache import greedy_without_cache
from tests.tiny_models import tiny


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_the_same_tokens_as_with_a_cache(kind):
    model, prompt = tiny(kind), [5, 9, 33, 2, 71]
    written = greedy_without_cache(model, prompt, 10)
    assert written == plain_greedy(model, prompt, 10) and len(written) == 10
    model.generation_config.eos_token_id = written[2]
    assert greedy_without_cache(model, prompt, 10) == written[: written.index(written[2]) + 1]
