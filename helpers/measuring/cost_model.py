"""The equation of the course: what a decode step costs, from what it must read and compute (notebook 00).

    seconds per answer = prefill + tokens / tokens per step x step(num_tokens)
    step(num_tokens) = overhead x layers
                     + weight bytes / bandwidth
                     + 2 x num_tokens x parameters / rate
                     + KV bytes / bandwidth

Where a machine reads and computes at once, the middle terms become their maximum: the roofline (Williams, Waterman,
Patterson 2009). `fit` finds overhead, bandwidth and rate from measured steps, in either form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.errors import CourseError

FORMS = ("sum", "max")


@dataclass(frozen=True)
class Shape:
    """What a step reads: `parameters` and `weight_bytes` of the matrices (an embedding that is only looked up is not
    among them), and the KV cache's bytes for each token of context."""

    layers: int
    parameters: int
    weight_bytes: int
    kv_bytes_per_token: int

    @classmethod
    def of(cls, model) -> Shape:
        """The shape of a Hugging Face decoder."""
        config = model.config
        looked_up = model.get_input_embeddings().weight
        tied = model.get_output_embeddings().weight is looked_up
        read = [p for p in model.parameters() if tied or p is not looked_up]
        heads, size = kv_heads_of(config)
        kv = 2 * config.num_hidden_layers * heads * size * looked_up.element_size()
        return cls(config.num_hidden_layers, sum(p.numel() for p in read), sum(p.nbytes for p in read), kv)


def kv_heads_of(config) -> tuple[int, int]:
    """(KV heads, numbers in each) of a transformers configuration, whatever words it has for them."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        heads = 1  # Falcon's way to say so
    return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def least_milliseconds(weight_bytes: float, bandwidth: float) -> float:
    """The least time of a step, in ms: each weight has to come from memory once."""
    return weight_bytes / bandwidth * 1e3


def balance_tokens(bytes_per_weight: float, bandwidth: float, rate: float) -> float:
    """Tokens in a step at which arithmetic takes as long as reading: each weight of `bytes_per_weight` bytes is read
    once, and used in 2 operations for every token."""
    return rate / bandwidth * bytes_per_weight / 2


def speedup_of_part(share: float, factor: float) -> float:
    """How many times faster the whole gets when a part that takes this share of its time gets `factor` times faster
    (Amdahl 1967)."""
    return 1 / (1 - share + share / factor)


@dataclass(frozen=True)
class Measured:
    """One measured step of `name` in `dtype`: it reads `num_tokens` tokens at once, after `context` tokens."""

    name: str
    shape: Shape
    dtype: str
    num_tokens: int
    context: int
    seconds: float


@dataclass(frozen=True)
class StepTime:
    """The fitted equation: seconds of overhead a layer; bytes per second and operations per second of each dtype,
    infinite where they could not be seen."""

    form: str
    overhead: float
    bandwidth: dict[str, float]
    rate: dict[str, float]

    def terms(self, shape: Shape, dtype: str, num_tokens: int = 1, context: int = 0) -> dict[str, float]:
        """Seconds of each term of the equation, for a step that reads `num_tokens` tokens after `context` tokens."""
        return {
            "overhead": self.overhead * shape.layers,
            "weights": shape.weight_bytes / self.bandwidth[dtype],
            "arithmetic": 2 * num_tokens * shape.parameters / self.rate[dtype],
            "KV cache": context * shape.kv_bytes_per_token / self.bandwidth[dtype],
        }

    def __call__(self, shape: Shape, dtype: str, num_tokens: int = 1, context: int = 0) -> float:
        """Seconds of a step."""
        t = self.terms(shape, dtype, num_tokens, context)
        both = t["weights"], t["arithmetic"]
        return t["overhead"] + (max(both) if self.form == "max" else sum(both)) + t["KV cache"]

    def answer(
        self, shape: Shape, dtype: str, prompt: int, tokens: float, tokens_per_step: float = 1.0, num_tokens: int = 1
    ) -> float:
        """Seconds per answer of `tokens` tokens after a prompt of `prompt` tokens; a step reads `num_tokens` of them,
        and writes `tokens_per_step`."""
        steps = max(0.0, tokens - 1) / tokens_per_step  # the first token comes from the prefill
        return self(shape, dtype, prompt) + steps * self(shape, dtype, num_tokens, round(prompt + tokens / 2))


def fit(points: Sequence[Measured], form: str = "sum", rounds: int = 30) -> StepTime:
    """Least squares on relative errors, none of the terms negative.

    For the maximum, each point counts for the term that is larger under the last fit, until nothing changes.
    """
    if form not in FORMS:
        raise CourseError(f"There is no form {form!r}; there are {', '.join(FORMS)}.")
    dtypes = sorted({p.dtype for p in points})
    if len(points) < 1 + 2 * len(dtypes):
        raise CourseError(
            f"{len(points)} points don't fix {1 + 2 * len(dtypes)} unknowns: measure more shapes, or longer steps."
        )
    for dtype in dtypes:
        if len({p.num_tokens for p in points if p.dtype == dtype}) < 2:
            raise CourseError(f"All {dtype} steps read equally many tokens: reading and computing can't be told apart.")
    computes = [p.num_tokens >= 16 for p in points]
    best, least = None, np.inf
    for _ in range(rounds if form == "max" else 1):
        table = np.zeros((len(points), 1 + 2 * len(dtypes)))
        for i, p in enumerate(points):
            d = 1 + 2 * dtypes.index(p.dtype)
            table[i, 0] = p.shape.layers
            table[i, d] = p.context * p.shape.kv_bytes_per_token
            if form == "sum" or not computes[i]:
                table[i, d] += p.shape.weight_bytes
            if form == "sum" or computes[i]:
                table[i, d + 1] = 2 * p.num_tokens * p.shape.parameters
        costs = _positive_least_squares(table / np.array([[p.seconds] for p in points]), np.ones(len(points)))
        inverse = [1 / c if c > 0 else np.inf for c in costs]  # a cost that can't be seen here
        equation = StepTime(form, float(costs[0]), dict(zip(dtypes, inverse[1::2])), dict(zip(dtypes, inverse[2::2])))
        error = sum(e * e for e in errors(equation, points))
        if error < least:
            best, least = equation, error
        terms = [equation.terms(p.shape, p.dtype, p.num_tokens, p.context) for p in points]
        now = [t["arithmetic"] > t["weights"] for t in terms]
        if now == computes:
            break
        computes = now
    return best


def _positive_least_squares(table: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Least squares with no negative solution, for a handful of unknowns (Lawson and Hanson 1974): of all subsets of
    unknowns, the best one whose own solution is positive."""
    unknowns = table.shape[1]
    best, least = np.zeros(unknowns), float(goal @ goal)
    for chosen in range(1, 2**unknowns):
        columns = [c for c in range(unknowns) if chosen >> c & 1]
        solution = np.linalg.lstsq(table[:, columns], goal, rcond=None)[0]
        error = float(((table[:, columns] @ solution - goal) ** 2).sum())
        if (solution > 0).all() and error < least:
            best, least = np.zeros(unknowns), error
            best[columns] = solution
    return best


def errors(equation: StepTime, points: Sequence[Measured]) -> list[float]:
    """Relative error of each point: the equation's seconds over the measured ones, less 1."""
    return [equation(p.shape, p.dtype, p.num_tokens, p.context) / p.seconds - 1 for p in points]


def r2(equation: StepTime, points: Sequence[Measured]) -> float:
    """Share of the variance of the step times that the equation explains."""
    measured = np.array([p.seconds for p in points])
    predicted = np.array([equation(p.shape, p.dtype, p.num_tokens, p.context) for p in points])
    return float(1 - ((measured - predicted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum())
