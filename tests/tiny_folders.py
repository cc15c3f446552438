"""Folders with tiny models, as the course loads them."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_models import spread
from tests.tiny_tokenizer import tiny_tokenizer


def target_and_draft(place):
    """`place` / "target" and "draft": tiny Llamas in float32 with one tokenizer and random weights."""
    tokenizer = tiny_tokenizer()
    for name, seed in (("target", 0), ("draft", 1)):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        spread(LlamaForCausalLM(config)).float().save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place
