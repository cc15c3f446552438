"""What the keys of results are called in words, for the report and the README.

A key is a name and qualifiers: "precision.decode_speedup.fp16.rows_8" is `precision.decode_speedup`, in float16, with
8 tokens in a step. The longest beginning that has an entry is the name, the rest are qualifiers. A key without an entry
is read as it stands; a test asks for an entry for each key of the reference results.
"""

from __future__ import annotations

import re

OPPONENTS = {
    "fused": "our fused step",
    "all_guessers": "our tree of all guessers",
    "torch_compile": "torch.compile",
    "llama_cpp_bf16": "llama.cpp on 16 bits",
    "llama_cpp_q8_0": "llama.cpp on 8 bits",
    "llama_cpp_q4_1": "llama.cpp on 4 bits",
    "vllm": "vLLM",
    "vllm_heads": "vLLM with heads",
}
OF_AN_OPPONENT = {
    "tokens_per_second": "tokens a second over whole requests: {}",
    "share_of_floor": "speed as a share of bandwidth over weight bytes: {}",
    "ours_faster": "speed of a request with all guessers, over that of {}",
    "identical_share": "answers identical to those of our fused step: {}",
    "execution_accuracy": "test questions answered rightly: {}",
}
NAMES = {
    "start": {
        "eight_tokens": "time of a step for 8 tokens, over that for 1",
        "bandwidth_gb_s": "bandwidth from memory",
        "matmul_gflops": "speed of a large matrix product",
        "overhead_ms": "overhead of a step",
        "identical_share": "answers identical to those of `generate`",
        "decode_vs_hf_generate": "speed of decoding, over that of `generate`",
        "base_execution_accuracy": "test questions that the base model answers rightly",
        "fine_tuned_execution_accuracy": "test questions that the fine-tuned model answers rightly",
        "handwritten_execution_accuracy": "handwritten questions answered rightly",
        "chatty_length_ratio": "tokens of an answer, over those of its SQL",
        "ended_by_eos": "answers that end by themselves",
        "step_ms": "time of a decode step",
        "achieved_bandwidth_fraction": "share of the bandwidth at which a step reads its weights",
        "bandwidth_share": "share of the read bandwidth at which a step reads its weights",
        "equation_error": "error of the equation for a shape that it was not fitted to",
        "equation_r2": "share of the variance of step times that the equation explains",
        "equation.overhead_us": "overhead of a layer, as fitted",
        "equation.bandwidth": "bandwidth at which steps read, as fitted",
        "equation.rate": "speed at which steps compute, as fitted",
        "answer_seconds": "time of a whole answer, mean",
        "ttft_ms": "time to the first token, median",
        "itl_mean_ms": "time between tokens, mean",
        "itl_p50_ms": "time between tokens: half are below",
        "itl_p90_ms": "time between tokens: nine in ten are below",
        "itl_p99_ms": "time between tokens: 99 in 100 are below",
        "answer_tokens_per_second": "speed of whole answers, prefill included",
        "identical_to_hf_generate": "answers identical to those of `generate`, token by token",
    },
    "kernels": {
        "step_speedup": "speed of a step of one token, over that of transformers",
        "step_ms": "time of a decode step",
        "bandwidth_share": "share of the read bandwidth at which a step reads its weights",
        "eight_tokens": "time of the fastest step for 8 tokens, over that for 1",
        "operations": "operations that a step starts",
        "identical_tokens": "answers identical by every way to compute a step",
        "same_bits": "readings of a text with the same bits as one token a step, by the step in C++",
    },
    "kv_cache": {
        "without_cache": "time of decoding without a cache, over that with one",
        "attention_speedup": "speed of a decode step with grouped attention, over that with repeated heads",
        "bytes_per_token": "bytes that the cache holds for a token",
        "same_tokens_without_cache": "answers identical with and without a cache",
        "equals_recomputation": "random sequences of cache operations equal to recomputation",
    },
    "precision": {
        "decode_speedup": "speed of a decode step, over that in float32",
        "prefill_speedup": "speed of a prefill, over that in float32",
        "converted_speedup": "speed of a step with converted weights, over that in float32",
        "autocast_speedup": "speed of a step under autocast, over that in float32",
        "answer_speedup": "speed of whole answers, over that in float32",
        "weight_bytes_ratio": "bytes of the weights, over those in float32",
        "training_loss": "training loss at the end",
        "gradients_lost": "gradients of weights that were 0",
        "worst_logit_error": "largest change of a logit",
        "perplexity": "perplexity of the reference answers",
        "answers_fixed": "answers that the change put right",
        "answers_broken": "answers that the change put wrong",
        "half_the_bytes": "16-bit formats that take half the bytes of float32",
        "rounding_equals_torch": "numbers rounded as torch rounds them",
        "loss_scaler_equals_torch": "steps after which the loss scale is torch's",
    },
    "fp8": {
        "broken_per_hundred": "right answers that 8-bit weights put wrong, in a hundred",
        "weight_bytes_ratio": "bytes of the weights, over those in float32",
        "answers_fixed": "answers that 8-bit weights put right",
        "answers_broken": "answers that 8-bit weights put wrong",
        "worst_logit_error": "largest change of a logit",
        "step_speedup": "speed of a step, over that in float32",
        "step_speedup.native": "speed of a step on units for 8-bit floats, over that in float32",
        "bytes_equal_torchao": "matrices with the same bytes as torchao's",
    },
    "lora": {
        "latency_speedup": "speed of a request to the fine-tuned model, over the base model's",
        "trainable_share": "share of the parameters that LoRA trains",
        "peak_memory_ratio": "peak memory of training with LoRA, over that of full fine-tuning",
        "seconds_per_step": "time of a training step with LoRA",
        "training_gb": "memory for training with LoRA",
        "two_adapters_memory_ratio": "memory of one base with two adapters, over that of two merged models",
        "execution_accuracy": "test questions that the fine-tuned model answers rightly",
        "execution_accuracy.base": "test questions that the base model answers rightly",
        "handwritten_execution_accuracy": "handwritten questions answered rightly",
        "bare_sql_rate": "answers that are SQL and nothing else",
        "tokens_per_answer_ratio": "tokens of an answer, over those of the base model's",
        "normalized_match": "test questions answered in the reference's own words, case and spaces aside",
        "exact_match": "test questions that the fine-tuned model answers exactly as the reference",
        "training_speedup": "speed of a training step with all savings, over plain PyTorch's",
        "training_tokens_per_second": "tokens of examples that a training step learns from, in a second",
        "merged_identical_answers": "answers of the merged model identical to those with the adapter beside it",
        "unmerged_step_speedup": "speed of a step with the adapter beside the weights, over the merged model's",
        "equals_peft": "texts with the same loss and gradients as PEFT's",
        "merged_equals_adapter": "texts on which merged and unmerged logits agree",
        "adapters_step_speedup": "speed of a step with adapters beside the weights, over the base's",
        "two_adapters_in_one_batch": "answers of two adapters in one batch that are as by themselves",
    },
    "qlora": {
        "linear_weight_bytes_ratio": "bytes of the linear layers in NF4, over those in float16",
        "perplexity": "perplexity of reference answers, by an adapter trained on the four-bit base",
        "peak_memory_ratio": "peak memory of training with QLoRA, over that of full fine-tuning",
        "seconds_per_step": "time of a training step with QLoRA",
        "training_gb": "memory for training with QLoRA",
    },
    "full": {"training_gb": "memory for full fine-tuning"},
    "llama_adapter": {
        "equals_peft": "texts on which the logits are PEFT's",
        "begins_as_the_base": "texts on which the logits are the base's while the gates are shut",
        "execution_accuracy": "test questions that the LLaMA-Adapter answers rightly",
        "fixed": "answers that the LLaMA-Adapter put right",
        "gate": "how far a gate of the LLaMA-Adapter is open, mean",
        "trainable_share": "share of the parameters that the LLaMA-Adapter trains",
        "step_speedup": "speed of a step with the LLaMA-Adapter, over the base's",
    },
    "speculative": {
        "speedup": "speed of a request with guesses, over plain greedy decoding's",
        "predicted_speedup": "speed of a request with the guesser that validation chose, over plain greedy decoding's",
        "decode_speedup": "speed of decoding with this draft",
        "speedup_over_strongest_greedy": "speed of a request, over the fastest plain greedy decoding here",
        "accepted_per_step": "tokens that a step brings",
        "identical_share": "answers identical to those of plain greedy decoding",
        "vs_hf_assisted": "speed of a request, over assisted generation in transformers",
        "vs_hf_prompt_lookup": "speed of a request, over prompt lookup in transformers",
        "sampling_matches_target": "draws in a sample that fits the model's own distribution",
        "sampling_test_rejects_a_wrong_residual": "wrong residuals that the test of sampling rejects",
        "identical_outputs": "answers identical to those of plain greedy decoding",
        "all_arms_identical": "prompts that every way of guessing answers as plain greedy decoding does",
    },
    "prompt_lookup": {"identical_outputs": "answers with prompt lookup identical to those of plain greedy decoding"},
    "medusa": {
        "speedup": "speed of a request with Medusa heads, over plain greedy decoding's",
        "speedup.prompt_lookup": "speed of a request with prompt lookup alone, over plain greedy decoding's",
        "speedup.bigram": "speed of a request with the bigram table alone, over plain greedy decoding's",
        "speedup.with_lookup": "speed of a request with all guessers in one tree, over plain greedy decoding's",
        "speedup.draft_model": "speed of a request with the draft model, over plain greedy decoding's",
        "p90_speedup": "speed of the slowest tenth of requests with Medusa heads, over plain greedy decoding's",
        "step_speedup": "speed of a request with guesses, over plain greedy decoding's by the same kind of step",
        "floor_ms": "time that memory takes to bring a step's weights",
        "token_ms": "time of a token, the prefill left out",
        "execution_accuracy": "test questions answered rightly with guesses",
        "handwritten_execution_accuracy": "handwritten questions answered rightly with guesses",
        "decode_speedup": "speed of decoding with these heads",
        "speedup_over_draft_model": "speed of a request with Medusa heads, over that with the draft model",
        "speedup_over_strongest_greedy": "speed of a request, over the fastest plain greedy decoding here",
        "vs_llama_cpp_q4": "speed of a request, over llama.cpp's on its 4-bit file",
        "train_seconds": "time to train the heads",
        "head_accuracy": "positions at which a head's first guess is right",
        "overhead_ms_per_step": "time of a step outside of model and heads",
        "step_ms": "time of a step",
        "request_ms": "time of a request, median",
        "identical_share": "answers identical to those of plain greedy decoding",
        "accepted_per_step": "tokens that a step brings",
        "accepted_needed_for_1_8x": "tokens that a step must bring for a speedup of 1.8",
        "loads_in_vllm": "places at which vLLM accepts as many guesses with these heads",
        "identical_outputs": "answers identical to those of plain greedy decoding",
        "with_lookup_identical_outputs": "answers with lookup identical to those of plain greedy decoding",
        "lean_identical_outputs": "answers of the lean step identical to those of plain greedy decoding",
    },
    "opponents": {
        "bandwidth": "bandwidth from memory",
        "same_function": "answers of llama.cpp in float32 that are ours or part at a near tie",
    }
    | {f"{name}.{key}": words.format(who) for name, who in OPPONENTS.items() for key, words in OF_AN_OPPONENT.items()},
}
QUALIFIERS = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp16_unscaled": "float16 without loss scaling",
    "fp16_scaled": "float16 with loss scaling",
    "a_scale_a_channel": "one scale for each channel",
    "own": "trained here",
    "seen_names": "fresh questions, known names only",
    "unseen_names": "fresh questions with unknown names",
    "same_layers": "packed linears in `generate`, too",
    "same_step": "our step in its loop",
    "recycling": "Token Recycling",
    "combined": "two guessers combined",
    "shipped": "the course's model",
    "large": "a larger shape",
    "chatty": "the chatty base model",
    "handwritten": "handwritten questions",
    "with_lookup": "all guessers in one tree",
    "all_guessers": "all guessers in one tree",
    "no_mask": "without a mask",
    "packed": "packed linears",
    "fused": "the fused step",
    "native": "the step in C++",
    "fastest": "the fastest way",
    "llama_300m": "the shape of a Llama of 300 million",
    "llama_7b": "the shape of a Llama of 7 billion",
    "7b": "a model of 7 billion",
    "long": "a long prompt",
}
COUNTED = {  # "rows_8": a word and a number
    "tokens": "{} token{s} in a step",
    "rows": "{} token{s} in a step",
    "batch": "{} sequence{s}",
    "head": "head {}",
    "tree": "a tree of {} guess{es}",
}
FLAT = {f"{topic}.{name}": words for topic, names in NAMES.items() for name, words in names.items()}


def words_of(key: str) -> str:
    """A metric's or an invariant's key in words, its qualifiers in parentheses."""
    parts = key.split(".")
    for end in range(len(parts), 1, -1):
        if (name := FLAT.get(".".join(parts[:end]))) is not None:
            qualifiers = [_qualifier(part) for part in parts[end:]]
            return f"{name} ({', '.join(qualifiers)})" if qualifiers else name
    return ", ".join(part.replace("_", " ") for part in parts)


def is_known(key: str) -> bool:
    """Whether the key's name has an entry."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in FLAT for end in range(2, len(parts) + 1))


def _qualifier(part: str) -> str:
    if part in QUALIFIERS:
        return QUALIFIERS[part]
    counted = re.fullmatch(r"([a-z]+)_(\d+)", part)
    if counted and counted[1] in COUNTED:
        many = counted[2] != "1"
        return COUNTED[counted[1]].format(counted[2], s="s" * many, es="es" * many)
    return part.replace("_", " ")
