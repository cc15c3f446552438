"""What linear layers read while a model runs over calibration prompts, as sums that stream (notebooks 02 and 04).

Post-training methods look at activations, not at the weights alone: how large each input is (AWQ, SmoothQuant, Wanda),
or how inputs go together (GPTQ). The activations of 128 prompts would take gigabytes; sums of them take a vector or a
matrix for each layer, and those who go block by block keep one block's alone (Frantar et al., "GPTQ", 2022).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.precision.ranges import blocks_of

Prompts = Sequence[Sequence[int]]  # token ids of each
Arguments = tuple[tuple, dict]  # positional and by name


class InputSizes:
    """How large each input of a linear layer is, over tokens: `absmax`, `mean_abs`, `squares` (sums), all (in,)."""

    def __init__(self, in_features: int, device: torch.device | str = "cpu"):
        self.count = 0  # tokens
        self.absmax, self.total, self.squares = (torch.zeros(in_features, device=device) for _ in range(3))

    def add(self, x: Tensor) -> None:
        """Take in more inputs, (..., in)."""
        x = x.detach().reshape(-1, x.shape[-1]).float()
        if len(x) == 0:
            return
        self.count += len(x)
        self.absmax = torch.maximum(self.absmax, x.abs().amax(0))
        self.total += x.abs().sum(0)
        self.squares += x.square().sum(0)

    @property
    def mean_abs(self) -> Tensor:
        """The mean of |x| of each input (AWQ's measure)."""
        return self.total / self.count


class Hessian(InputSizes):
    """Also how inputs go together: `matrix` (in, in), the sum of x x^T, float32.

    It is half the Hessian of the layer's squared output error |(W - Q) x|^2 in a row of Q, the same for all rows.
    """

    def __init__(self, in_features: int, device: torch.device | str = "cpu"):
        super().__init__(in_features, device)
        self.matrix = torch.zeros(in_features, in_features, device=device)

    def add(self, x: Tensor) -> None:
        super().add(x)
        x = x.detach().reshape(-1, x.shape[-1]).float()
        self.matrix.addmm_(x.T, x)


Observer = TypeVar("Observer", bound=InputSizes)


def calibration_prompts(tokenizer, count: int = 128, seed: int = 0) -> list[list[int]]:
    """Token ids of `count` examples of the training split drawn by `seed`, each a prompt, its answer and the end."""
    examples = load_split("train")
    if not 1 <= count <= len(examples):
        raise CourseError(f"Calibration takes 1 to {len(examples)} prompts of the training split, not {count}.")
    drawn = random.Random(seed).sample(examples, count)
    return [[*prompt, *answer] for prompt, answer in answer_pairs(tokenizer, drawn)]


def answer_pairs(tokenizer, examples: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
    """(token ids of the prompt, those of the reference SQL and of the end) for each example."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    return [(ids(prompt_for(tokenizer, e)), [*ids(e.answer), tokenizer.eos_token_id]) for e in examples]


def observed_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the model's blocks, by name: those that calibration is for. Not the one that makes logits.

    Raises:
        CourseError: none is dense; calibrate before quantizing.
    """
    inside = {id(module) for block in blocks_of(model) for module in block.modules()}
    return _dense({name: module for name, module in model.named_modules() if id(module) in inside})


def _dense(modules: Mapping[str, nn.Module]) -> dict[str, nn.Linear]:
    linears = {name: m for name, m in modules.items() if isinstance(m, nn.Linear) and m.weight.is_floating_point()}
    if not linears:
        raise CourseError("The blocks have no dense nn.Linear to calibrate: give the model as it was loaded.")
    return linears


@torch.no_grad()
def observe(
    model: nn.Module,
    prompts: Prompts,
    make: Callable[..., Observer] = InputSizes,
    modules: Mapping[str, nn.Linear] | None = None,
) -> dict[str, Observer]:
    """What each linear layer reads over all prompts, by the layer's name; those that read one tensor (q, k, v) share an
    observer. Hessians of a whole model take (in, in) numbers a layer: `layer_by_layer` keeps one block's.

    Args:
        make: called with (in_features, device=...): `InputSizes` or `Hessian`.
        modules: the layers by name; the default is all of the model's blocks.

    Raises:
        CourseError: there is no prompt, or an empty one; a layer was never reached, or read NaN or infinity.
    """
    _check(prompts)
    linears = observed_linears(model) if modules is None else dict(modules)
    with observing(linears, make) as observers:
        for ids in prompts:
            _run(model, ids)
    return observers


@contextmanager
def observing(
    linears: Mapping[str, nn.Linear], make: Callable[..., Observer] = InputSizes
) -> Iterator[dict[str, Observer]]:
    """Observers, by name, of what the layers read inside; at the end each layer must have been reached.

    Layers that read one and the same tensor when they are first reached share an observer, which counts it once.
    """
    observers: dict[str, Observer] = {}
    counts_for: dict[str, str] = {}  # by layer, the one whose reading is counted: itself, or who reads the same before
    readers = WeakTensorKeyDictionary()  # by tensor, as long as it lives, who read it first

    def look(name: str, linear: nn.Linear, x: Tensor) -> None:
        reader = readers.setdefault(x, name)
        if name not in observers:
            counts_for[name] = counts_for.get(reader, name)
            observers[name] = observers.get(counts_for[name]) or make(linear.in_features, device=x.device)
        if counts_for[name] == name:
            observers[name].add(x)

    hooks = [
        linear.register_forward_pre_hook(lambda module, given, name=name: look(name, module, given[0]))
        for name, linear in linears.items()
    ]
    try:
        yield observers
    finally:
        for hook in hooks:
            hook.remove()
    _check_reached(linears, observers)


@torch.no_grad()
def layer_by_layer(
    model: nn.Module,
    prompts: Prompts,
    change: Callable[[nn.Module, dict[str, Observer]], None],
    make: Callable[..., Observer] = InputSizes,
) -> None:
    """Change block after block, each on what the changed ones before it give (GPTQ, Wanda).

    For each block: run it over the prompts with observers, call `change(block, observers by the name in the block)`,
    and run it again for the inputs of the next one. Memory holds the hidden states of all prompts, (tokens, hidden)
    numbers each, and one block's observers.

    Raises:
        CourseError: there is no prompt, or an empty one; a layer was never reached, or read NaN or infinity.
    """
    _check(prompts)
    states, arguments = _first_inputs(model, prompts)
    for index, block in enumerate(blocks_of(model)):

        def run(hidden: Tensor, of_prompt: list[Arguments], block=block, index=index) -> Tensor:
            args, kwargs = of_prompt[index]
            out = block(hidden, *args, **kwargs)
            return out[0] if isinstance(out, tuple) else out

        with observing(_dense(dict(block.named_modules())), make) as observers:
            for hidden, of_prompt in zip(states, arguments):
                run(hidden, of_prompt)
        change(block, observers)
        states = [run(hidden, of_prompt) for hidden, of_prompt in zip(states, arguments)]


def _first_inputs(model: nn.Module, prompts: Prompts) -> tuple[list[Tensor], list[list[Arguments]]]:
    """For each prompt what the first block reads, (1, tokens, hidden), and what each block is called with beside it:
    positions and masks, which the model makes. The blocks themselves don't run."""
    blocks, states, arguments, kind = blocks_of(model), [], [], []

    def stand_in(real: Callable) -> Callable:
        def forward(hidden: Tensor, *args, **kwargs):
            if not kind:  # blocks return hidden states, or a tuple that begins with them
                kind.append(type(real(hidden, *args, **kwargs)))
            if not arguments[-1]:
                states.append(hidden)
            arguments[-1].append((args, kwargs))
            return (hidden, None) if kind[0] is tuple else hidden

        return forward

    for block in blocks:
        block.forward = stand_in(block.forward)
    try:
        for ids in prompts:
            arguments.append([])
            _run(model, ids)
    finally:
        for block in blocks:
            del block.forward
    return states, arguments


def _run(model: nn.Module, ids: Sequence[int]) -> None:
    """All blocks over one prompt, without the logits."""
    model.base_model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)


def _check(prompts: Prompts) -> None:
    if not prompts or not all(len(ids) for ids in prompts):
        raise CourseError("Calibration needs prompts of one token at least: take calibration_prompts(tokenizer).")


def _check_reached(linears: Mapping[str, nn.Linear], observers: Mapping[str, InputSizes]) -> None:
    for name in linears:
        if name not in observers or not observers[name].count:
            raise CourseError(f"No calibration prompt reached {name}: give more prompts, or leave the layer out.")
        if not observers[name].squares.isfinite().all():
            raise CourseError(f"What {name} reads is NaN or too large: calibrate the model in float32.")
