"""Prompts instead of matrices, and several adapters on one base (notebook 03b)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from helpers.decoding.support import support_of
from helpers.measuring.quality import paired
from helpers.measuring.timing import speedup
from helpers.models.sharing import sharing_copy
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.lora_parts import logit_differences
from helpers.notebook.results import Results
from helpers.profiling.step_time import batch_step_seconds, steps_in_turns
from helpers.text_to_sql.evaluate import answer_in_batches
from helpers.weights.adapters import llama_adapter, lora

NO_ADAPTER = "__base__"  # PEFT's name for it


def compare_prompts_with_peft(results: Results, base: nn.Module, texts: Sequence[torch.Tensor], count: int) -> None:
    """With shut gates the logits are exactly the base's; with open ones they are PEFT's, given the same prompts; writes
    both invariants."""
    from peft import AdaptionPromptConfig, get_peft_model

    ours = llama_adapter.install(sharing_copy(base), count)
    with torch.no_grad():
        equal = sum(torch.equal(ours(input_ids=t).logits, base(input_ids=t).logits) for t in texts)
    results.invariant("llama_adapter.begins_as_the_base", equal == len(texts), equal, len(texts))
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=count)
    config.adapter_layers = base.config.num_hidden_layers
    theirs = get_peft_model(sharing_copy(base), config)
    adapted = [module for module in theirs.modules() if hasattr(module, "adaption_prompt")]
    for one, other in zip(llama_adapter.adapted_layers(ours), adapted, strict=True):
        one.gate.data.fill_(0.5)
        other.adaption_gate.data.fill_(0.5)
        other.adaption_prompt.data.copy_(one.prompts.data)
    pairs = logit_differences(ours, theirs, texts)
    same = sum(difference <= 1e-4 * largest for difference, largest in pairs)
    results.invariant("llama_adapter.equals_peft", same == len(texts), same, len(texts))
    print(f"Gates shut: the logits are the base's, to the bit, on {equal} of {len(texts)} texts.", end=" ")
    print(f"Open: they are PEFT's on {same}.")


def draw_gates(results: Results, model: nn.Module) -> None:
    """How far each layer's gate has opened; writes the mean."""
    opened = [attention.gates().abs().mean().item() for attention in llama_adapter.adapted_layers(model)]
    results.metric("llama_adapter.gate", float(np.mean(opened)), "gate", n=len(opened))
    first = model.config.num_hidden_layers - len(opened) + 1
    _, ax = plt.subplots(figsize=(8, 2.6))
    ax.bar(range(first, first + len(opened)), opened, color=plots.COLORS[0])
    ax.set(title="How far the gates have opened", xlabel="layer (number, from below)", ylabel="gate (absolute value)")
    widest = int(np.argmax(opened))
    print(f"All gates began at 0. They are open by {np.mean(opened):.3f} on average,", end=" ")
    print(f"the widest is layer {first + widest}'s ({opened[widest]:.3f}).")


def show_prompted_answers(results: Results, base: Judged, prompted: Judged) -> None:
    """Right answers before and after, question by question, and whether that is a difference; writes the metrics."""
    n, (low, high) = len(prompted.right), prompted.interval
    change = paired(base.right[:n], prompted.right)
    ends = {"low": min(low, prompted.share), "high": max(high, prompted.share)}
    results.metric("llama_adapter.execution_accuracy", prompted.share, "share", **ends, n=n)
    results.metric("llama_adapter.fixed", change.fixed, "answers", n=n)
    print(f"base            {sum(base.right[:n]):3} of {n} right")
    print(f"LLaMA-Adapter   {sum(prompted.right):3} of {n} right ({low:.0%} to {high:.0%}): {change}")
    if low > base.interval[1]:
        print("It works: the two intervals lie apart.")
    else:
        print("It does not work yet: so few questions, or so few steps, show no difference. LoRA had learned the")
        print("form after as many steps; prompts begin behind a shut gate, and learn while it opens.")


def show_prompted_step(results: Results, base: nn.Module, prompted: nn.Module, rounds: int, guess: float) -> None:
    """What a step costs that also asks the prompts, against the base's; writes the ratio."""
    steps = steps_in_turns({"base": base, "prompted": prompted}, (1,), rounds=rounds)
    gain = speedup(steps["base"][1], steps["prompted"][1], of=np.median)
    results.metric("llama_adapter.step_speedup", gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    print(f"A step with prompts, against the base's: {gain}.")
    print(f"It takes {1 / gain.ratio:.2f} times as long; you guessed {guess:g}. Nothing can be merged:", end=" ")
    print("keys and values of the prompts\nare made anew in each step, and a second attention asks them.")


def show_mixed_batch(
    results: Results, model: nn.Module, tokenizer, prompts: Sequence[str], names: Sequence[str | None], longest: int
) -> None:
    """One batch whose requests take turns between the adapters: each answer has to be the one that it gets alone;
    writes the invariant."""
    count, alone = len(prompts), {}
    for name in names:
        network = lora.use(model, name)
        alone[name] = answer_in_batches(network, tokenizer, prompts, batch_size=count, max_new_tokens=longest)
    wanted = [names[place % len(names)] for place in range(count)]
    network = lora.use(model, wanted)
    mixed = answer_in_batches(network, tokenizer, prompts, batch_size=count, max_new_tokens=longest)
    same = sum(alone[name][place] == answer for place, (name, answer) in enumerate(zip(wanted, mixed)))
    results.invariant("lora.two_adapters_in_one_batch", same == count, same, count)
    print(f"In one batch: {same} of {count} answers are those that the request gets by itself (float32).")


def show_peft_batch(
    base: nn.Module, folders: dict[str, Path], model: nn.Module, tokenizer, prompts: Sequence[str], longest: int
) -> None:
    """The same batch by PEFT's `adapter_names`, and how many answers are ours."""
    from peft import PeftModel

    (first, folder), *others = folders.items()
    theirs = PeftModel.from_pretrained(sharing_copy(base), folder, adapter_name=first).eval()
    for name, other in others:
        theirs.load_adapter(other, adapter_name=name)
    names = [*folders, None]
    wanted = [names[place % len(names)] for place in range(len(prompts))]
    inputs = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        chosen = [name or NO_ADAPTER for name in wanted]
        inputs = inputs.to(base.device)
        out = theirs.generate(**inputs, adapter_names=chosen, max_new_tokens=longest, do_sample=False)
    answers = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    network = lora.use(model, wanted)
    ours = answer_in_batches(network, tokenizer, prompts, batch_size=len(prompts), max_new_tokens=longest)
    same = sum(a == b for a, b in zip(answers, ours, strict=True))
    print(f"PEFT's answers are ours in {same} of {len(prompts)} requests.")


def show_batch_costs(
    results: Results, base: nn.Module, model: nn.Module, names: Sequence[str | None], batch_size: int, rounds: int
) -> None:
    """A step of a batch by the base, with one adapter for all, and with one for each; memory beside merged models."""
    mix = [names[place % len(names)] for place in range(batch_size)]
    arms = {"the base alone": base}
    arms["one adapter for all"] = lora.use(sharing_copy(model), next(name for name in names if name))
    mixed = lora.use(sharing_copy(model), None)
    support_of(mixed)  # what it can do is tried once, on batches of another size
    arms["one for each sequence"] = lora.use(mixed, mix)
    seconds = batch_step_seconds(arms, batch_size, rounds=rounds)
    for words, key in (("one adapter for all", "one"), ("one for each sequence", "mixed")):
        gain = speedup(seconds["the base alone"], seconds[words], of=np.median)
        interval = {"low": gain.low, "high": gain.high, "n": gain.n}
        results.metric(f"lora.adapters_step_speedup.{key}.batch_{batch_size}", gain.ratio, "x", **interval)
        print(f"a step of {batch_size} sequences, {words}, against the base alone: {gain}")
    one, count = sum(p.nbytes for p in base.parameters()), sum(name is not None for name in names)
    held = sum(p.nbytes for p in model.parameters())
    results.metric("lora.two_adapters_memory_ratio", held / (count * one), "ratio")
    print(f"memory: {held / 1e6:.0f} MB with {count} adapters, {count * one / 1e6:.0f} MB as {count} merged models")
