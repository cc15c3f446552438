"""What vLLM says to a number of ranks is told in its own words."""

from helpers.profiling.vllm_ranks import reason_of

WRAPPED = """1 validation error for VllmConfig
  Value error, Total number of attention heads (9) must be divisible by tensor parallel size (2). [type=value_error]
    For further information visit a page"""


def test_the_reason_is_taken_out_of_its_wrapping():
    assert reason_of(WRAPPED) == "Total number of attention heads (9) must be divisible by tensor parallel size (2)."
    assert reason_of("one line\nand the last") == "and the last"
