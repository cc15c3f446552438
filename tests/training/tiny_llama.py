"""A tiny Llama in a folder, with a tiny tokenizer: training scripts read models from folders."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_tokenizer import tiny_tokenizer


def save_tiny_llama(folder, layers=2, seed=0):
    """The folder as a string."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    shape = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
