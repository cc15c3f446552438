"""Concepts as pictures, drawn from the numbers and tokens that they are given: one a file."""

from helpers.notebook.diagrams.llama import LlamaShape, draw_llama
from helpers.notebook.diagrams.lora import draw_lora
from helpers.notebook.diagrams.medusa_heads import draw_medusa_heads
from helpers.notebook.diagrams.prefill_decode import draw_prefill_and_decode
from helpers.notebook.diagrams.roofline import draw_roofline
from helpers.notebook.diagrams.speculative_step import draw_speculative_step
from helpers.notebook.diagrams.step_bar import draw_step_bars
from helpers.notebook.diagrams.token_tree import draw_token_tree

__all__ = [
    "LlamaShape",
    "draw_llama",
    "draw_lora",
    "draw_medusa_heads",
    "draw_prefill_and_decode",
    "draw_roofline",
    "draw_speculative_step",
    "draw_step_bars",
    "draw_token_tree",
]
