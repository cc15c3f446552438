"""Every diagram, drawn as a notebook would."""

from types import SimpleNamespace

from helpers.notebook import diagrams

SMOLLM2 = SimpleNamespace(
    hidden_size=576,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
    vocab_size=49152,
    tie_word_embeddings=True,
)
TERMS = {
    "transformers": {"overhead": 0.0321, "weights": 0.0077, "arithmetic": 0.0009, "KV cache": 0.0002},
    "fused": {"overhead": 0.0131, "weights": 0.0077, "arithmetic": 0.0009, "KV cache": 0.0002},
}
STEPS = {
    "transformers": [(1, 0.041), (2, 0.043), (4, 0.047), (8, 0.051), (16, 0.061), (32, 0.074)],
    "fused": [(1, 0.022), (2, 0.025), (4, 0.023), (8, 0.026), (16, 0.033), (32, 0.051)],
}
MACHINE = {"parameters": 134.5e6, "bytes_per_weight": 2, "bandwidth": 35e9, "rate": 400e9}
TREE = ["name", "COUNT", "*", "FROM", "(", "ship"], [-1, -1, -1, 0, 1, 3]

EXAMPLES = {
    "prefill_and_decode": lambda: diagrams.draw_prefill_and_decode(
        ["How", " many", " ships", "?"], ["SELECT", " COUNT", "(*)", " FROM", " ship"]
    ),
    "step_bars": lambda: diagrams.draw_step_bars(TERMS, {"transformers": 0.0405, "fused": 0.0223}),
    "roofline": lambda: diagrams.draw_roofline(STEPS, **MACHINE),
    "llama": lambda: diagrams.draw_llama(diagrams.LlamaShape.of(SMOLLM2), num_tokens=5, context=0),
    "lora": lambda: diagrams.draw_lora(576, 1536, 16, 32),
    "speculative_step": lambda: diagrams.draw_speculative_step(
        "SELECT", [" name", " FROM", " ships", " WHERE"], [" name", " FROM", " ship", " AND", " city"]
    ),
    "medusa_heads": lambda: diagrams.draw_medusa_heads(
        ["How", " many", " ships", "?"], "SELECT", [" COUNT", "(", "*", ")", " FROM"], 576
    ),
    "token_tree": lambda: diagrams.draw_token_tree("SELECT", *TREE),
}
