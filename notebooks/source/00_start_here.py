# ---
# jupyter:
#   course:
#     minutes: 10
#     headline: >-
#       {start.identical_to_hf_generate.count} of {start.identical_to_hf_generate.of} answers identical to
#       `generate`, {start.decode_vs_hf_generate:.2f} times as fast
#       ({start.decode_vs_hf_generate.same_layers:.2f} with the same linear layers); SQL right for
#       {start.base_execution_accuracy:.1%}
# ---

# %% [markdown] tags=["card"]
# # 00 · Start here
#
# **Why is decoding slow, and how would I know it got faster?**
#
# | | |
# |---|---|
# | next | 01 half precision |
# | the term it attacks | none yet: it measures every term of the equation |
# | you will be able to | say what a model does between a question and its answer; tell a faster program from a lucky measurement; foretell the time of a step from the size of a model |
# | time | 40 minutes for you; about 5 for the machine under the profile `cpu` |
# | memory | 6 GiB |
#
# One job runs through the whole course: somebody asks a question about a table, and a language model writes the SQL that answers it.
# The model is small and was trained for this course, so that everything runs on your machine, offline.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A language model writes **tokens**: words, or pieces of them. Writing one takes one **step**: the model reads the last token and says what comes next.
#
# A step can also read *several* tokens at once: those of eight users, say, or eight guesses that are to be checked. Later notebooks do both.
# Eight tokens are eight times the arithmetic of one. How many times as long will the step take?
#
# Write your guess into `GUESS_EIGHT_TOKENS` below. It is saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or a model of the Hub as owner/name
SEED: int = 0  # of everything random
GUESS_EIGHT_TOKENS: float = 8.0  # your guess: a step for 8 tokens takes this many times as long as a step for 1

# %%
import helpers

lesson = helpers.start("00_start_here", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, lesson.sizes
results.prediction("start.eight_tokens", GUESS_EIGHT_TOKENS, "x")

# %% [markdown] tags=["build"]
# ## The job: a question goes in, SQL comes out
#
# Each example has tables, a question, and a query that answers it. The first two were written by hand.
# The third was generated, as all of the training was: its names are random, or invented outright, so that the model must learn to *copy* names, not to remember them.

# %%
from helpers.text_to_sql.dataset import kinds, load_split, token_lengths

test, handwritten = load_split("test"), load_split("handwritten")
for example in (handwritten[0], handwritten[30], test[2]):
    print(example.context, example.question, example.answer, sep="\n", end="\n\n")

# %% [markdown]
# Before making something fast, look at what it does. How long are the prompts (tables and question), how long are the queries, and of which kinds?

# %%
import matplotlib.pyplot as plt
import numpy as np

from helpers import models
from helpers.notebook import plots

plain, tokenizer = models.load(MODEL_ID, dtype="float32", device=lesson.device)
prompt_tokens, sql_tokens = token_lengths(test, tokenizer)
fig, (left_ax, right_ax) = plt.subplots(1, 2, figsize=(10, 3.6))
left_ax.hist(prompt_tokens, bins=30, color=plots.COLORS[2], label="prompt")
left_ax.hist(sql_tokens, bins=30, color=plots.COLORS[0], label="SQL", hatch="//")
left_ax.set(title="Length of prompts and of their SQL", xlabel="length (tokens)", ylabel="examples (count)")
left_ax.legend()
by_kind = kinds(test)
right_ax.barh(list(by_kind)[::-1], list(by_kind.values())[::-1], color=plots.COLORS[0])
_ = right_ax.set(title="What the test questions ask for", xlabel="examples (count)", ylabel="kind of query")

# %% [markdown]
# ## The model answers
#
# The base model is chatty, as models are: it wraps the SQL in prose. The text appears while it is written.
# Then its SQL runs in SQLite, on rows invented for the occasion.

# %%
from helpers.notebook.ask import make_ask

ask = make_ask(plain, tokenizer)
first = ask(test[0].context, test[0].question)

# %% [markdown]
# **Your turn.** Change the tables and the question to anything you like, and run the cell again.
# The model saw neither. It is small, so it will sometimes be wrong; below you will see how often.

# %%
SCHEMA = "CREATE TABLE lighthouse (name TEXT, country TEXT, height_m INTEGER, built INTEGER)"
QUESTION = "Which lighthouses in Norway are taller than 30?"
mine = ask(SCHEMA, QUESTION)

# %% [markdown]
# ## An answer is right when it returns the right thing
#
# Two queries can look different and mean the same, so answers are not compared as text. The SQL is taken out of the prose, both queries run in SQLite, and what they return is compared.
# The tables are filled so that the usual mistakes return something else. Here are some of them, made from a reference:

# %%
from helpers.text_to_sql.evaluate import is_correct
from helpers.text_to_sql.mutants import mutants
from helpers.text_to_sql.prompts import extract_sql

asked_first = test[0]
print("the model:  ", extract_sql(first.text))
print("right:      ", is_correct(extract_sql(first.text), asked_first.context, asked_first.answer))
for mistake in mutants(asked_first.answer, asked_first.context)[:4]:
    print("a mistake:  ", mistake)
    print("counts as right:", is_correct(mistake, asked_first.context, asked_first.answer))

# %% [markdown]
# ## Prefill and decode
#
# The first step reads the whole prompt at once: **prefill**. Every later step reads just the token that was written last: **decode**.
# That is enough because of the **KV cache**, which keeps what the model computed for earlier tokens.
#
# Here is all of it. Taking the best token each time is called **greedy** decoding.

# %%
from collections.abc import Sequence  # what the function below needs

import torch

from helpers.decoding.forward import eos_tokens
from helpers.decoding.generate import plain_greedy
from helpers.decoding.kv_cache import KVCache

# %%
# show: helpers.decoding.generate:plain_greedy
# %%
from helpers.text_to_sql.prompts import prompt_for

prompts = [tokenizer(prompt_for(tokenizer, e), add_special_tokens=False).input_ids for e in test]
print(tokenizer.decode(plain_greedy(plain, prompts[0])))

# %% [markdown]
# The package's own loop does the same and keeps a record of every step. Here is one answer as the clock saw it.

# %%
from helpers.decoding.generate import generate

completion = generate(plain, tokenizer, prompts[0])
lane, clock = [], 0.0
for step in completion.steps:
    lane.append((clock * 1e3, step.seconds * 1e3, len(step.emitted)))
    clock += step.seconds
plots.timeline_of_steps({"one answer": lane}, title="The prefill, then a step for every further token")
plt.gcf().set_size_inches(10, 1.8)
prefill = completion.steps[0]
print(f"the prefill read {prefill.rows} tokens in {prefill.seconds * 1e3:.1f} ms")

# %% [markdown]
# **Exercise 00.1** (3 minutes) *Why it matters: prefill and decode get faster by different means, so their speeds must not be mixed.*
#
# Each record in `steps` has `kind` (`"prefill"` or `"decode"`), `seconds`, and `emitted`, a tuple of the tokens that it wrote.
# Return the tokens per second of the decode steps alone; 0 where there are none.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_tokens_per_second(steps):
    return None  # your code


# hint("00.1")  # uncomment for help; solution("00.1") shows the course's own
tokens_per_second = check("00.1", my_tokens_per_second)
print(f"decode: {tokens_per_second(completion.steps):.0f} tokens per second")

# %% [markdown]
# ## Why decode is slow: it reads everything to do little
#
# Inside the model each token of a step is one **row** of a matrix: a list of some hundred numbers. From here on, *row* means a token in a step.
#
# A step multiplies every row with every weight: 2 operations for each. To do so it must fetch every weight from memory (unless the processor's cache holds it; we will test that).
# With one row there is almost nothing to compute for all that reading. Two numbers of your machine decide what this costs:
#
# * its **bandwidth**: bytes per second from memory,
# * its **rate**: operations per second in a large matrix product (a GFLOP/s is a billion of them).

# %%
from helpers.measuring import latency, memory, probes, timing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
bandwidth = probes.bandwidth(device=lesson.device)
rates = {name: probes.matmul_rate(dtype, device=lesson.device) for name, dtype in DTYPES.items()}
weight_bytes = memory.weight_bytes(plain)
print(f"bandwidth {bandwidth / 1e9:.1f} GB/s; rate", ", ".join(f"{n} {r / 1e9:.0f} GFLOP/s" for n, r in rates.items()))
print(f"the model's weights: {weight_bytes / 1e6:.1f} MB in float32, four bytes each")
results.metric("start.bandwidth_gb_s", bandwidth / 1e9, "GB/s")

# %% [markdown]
# **Exercise 00.2** (3 minutes) *Why it matters: whatever is read from memory can't be read faster than this.*
#
# Return the least time of a decode step in milliseconds, if each weight comes from memory once.

# %%
from helpers.measuring.cost_model import least_milliseconds


def my_least_milliseconds(weight_bytes, bandwidth):  # bytes, bytes per second
    return None  # your code


# hint("00.2")  # solution("00.2")
least = check("00.2", my_least_milliseconds)
print(f"this model here, if nothing is in the cache: at least {least(weight_bytes, bandwidth):.2f} ms a step")
print(f"7 billion weights of two bytes on a GPU with 3.35 TB/s: at least {least(14e9, 3.35e12):.1f} ms a step")

# %% [markdown]
# **Exercise 00.3** (5 minutes) *Why it matters: well below this many rows, more rows are nearly free. Batching and speculation live on that.*
#
# Reading a weight takes `bytes_per_weight / bandwidth` seconds; using it for one row takes `2 / rate`.
# Return the number of rows at which both take the same time: the machine's **balance**.


# %%
def my_balance_rows(bytes_per_weight, bandwidth, rate):
    return None  # your code


cases = {"float32 here": (4, bandwidth, rates["float32"]), "bfloat16 here": (2, bandwidth, rates["bfloat16"]),
         "bfloat16 on an H100, by its data sheet": (2, 3.35e12, 990e12)}  # fmt: skip
# hint("00.3")  # solution("00.3")
balance = check("00.3", my_balance_rows)
for name, case in cases.items():
    print(f"{name}: computing takes as long as reading at {balance(*case):.0f} rows")

# %% [markdown]
# ## One row is awkward
#
# The same product can be written in several ways, and a library runs different code for each. With few rows the usual way is not always the fast one. Three of the others:

# %%
# show: helpers.kernels.packed_linear:swapped

# %%
# show: helpers.kernels.packed_linear:padded

# %% [markdown]
# The third keeps the formula and moves the weight. A kernel reads a matrix in small blocks. If a copy lies in memory in just that order, it streams. Engines do this once, when they load a model:

# %%
# show: helpers.kernels.packed_linear:packed

# %% [markdown]
# `few_rows.install` measures which way is fastest for each of the model's layers, once for each machine, and uses it from then on.

# %%
import copy

from torch import nn

from helpers.kernels import packed_linear

layers = [m for m in plain.modules() if type(m) is nn.Linear]
with torch.inference_mode():
    tables = packed_linear.measure_forms(layers, (1, 8))
out, into = layers[-1].weight.shape
print(f"one product, {into} numbers in and {out} out, float32, microseconds:")
for rows, table in tables.items():
    print(f"  {rows} rows:", ", ".join(f"{form} {seconds * 1e6:.0f}" for form, seconds in table[out, into].items()))
model = packed_linear.install(copy.deepcopy(plain))

# %% [markdown]
# ## The equation
#
# What a step costs, for a model with so many layers, weights and rows:
#
#     step(rows) = overhead x layers               starting the operations
#                + weight bytes / bandwidth        reading the weights
#                + 2 x rows x parameters / rate    computing
#                + KV bytes / bandwidth            reading the cache
#
# *Overhead* is Python and the library starting each operation, the same however large the weights are. *KV bytes* are what the KV cache holds.
# A whole answer costs `prefill + tokens / tokens per step × step(rows)`. Most notebooks of this course attack one term of it.
#
# Does it hold here? Time steps of models of several sizes, after 128 tokens. The large ones have **random weights**: what they say means nothing, what they cost is real.
# bfloat16 is a number in two bytes; the next notebook is about it.

# %%
from statistics import median

from helpers.measuring.cost_model import Measured, Shape
from helpers.profiling.step_time import step_seconds

ROWS = (1, 2, 4, 8, 16, 32) if PROFILE != "smoke" else (1, 8, 32)
CONTEXT = 128
plain_half, _ = models.load(MODEL_ID, dtype="bfloat16", device=lesson.device)
half = packed_linear.install(copy.deepcopy(plain_half))
shipped = {"float32": model, "bfloat16": half}
points, rounds_of = [], {}


def measure_steps(name, network, dtype):
    rounds_of[name, dtype] = step_seconds(network, ROWS, context=CONTEXT, rounds=sizes.rounds)
    for rows, seconds in rounds_of[name, dtype].items():
        points.append(Measured(name, Shape.of(network), dtype, rows, CONTEXT, median(seconds)))


for dtype, network in shipped.items():
    measure_steps("shipped", network, dtype)
    for name in sizes.shapes:
        random_weights = models.shape_only(name, dtype, device=lesson.device)
        measure_steps(name, packed_linear.install(random_weights, turns=2), dtype)
        del random_weights
print(f"{len(points)} steps timed, {sizes.rounds} times each")

# %% [markdown]
# Now fit the constants (overhead; bandwidth and rate for each dtype) to all models but one. The one left out is the test: can the equation foretell a model that it never saw?
#
# Some machines read and compute at the same time. Then the larger of the two terms counts, not their sum. Both forms are fitted; the one that fits better is kept.

# %%
from helpers.measuring.cost_model import errors, fit, r2

held_out_name = sizes.shapes[len(sizes.shapes) // 2]
held_out = [p for p in points if p.name == held_out_name]
fitted = [p for p in points if p.name != held_out_name]
equations = {form: fit(fitted, form) for form in ("sum", "max")}
misfit = {form: sum(e * e for e in errors(equation, fitted)) for form, equation in equations.items()}
form = min(misfit, key=misfit.get)
equation, worst = equations[form], max(map(abs, errors(equations[form], held_out)))
print(f"this machine follows the {form}; {held_out_name} was left out of the fit: at most {worst:.0%} off there")
print(f"R2 over all {len(points)} steps: {r2(equation, points):.4f} (1 would be perfect)")
print(f"overhead {equation.overhead * 1e3:.2f} ms a layer")
for dtype in shipped:
    reads, computes = equation.bandwidth[dtype] / 1e9, equation.rate[dtype] / 1e9
    print(f"{dtype}: reads {reads:.1f} GB/s, computes {computes:.0f} GFLOP/s (inf: too small to see)")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
for ax, rows in zip(axes, (1, 32)):
    groups = {}
    for dtype in shipped:
        here = [p for p in points if p.dtype == dtype and p.num_tokens == rows]
        groups[dtype] = [(p.shape.weight_bytes / 1e6, p.seconds * 1e3) for p in here]
        told = [equation(p.shape, dtype, rows, CONTEXT) * 1e3 for p in here]
        groups[f"the equation, {dtype}"] = [(p.shape.weight_bytes / 1e6, ms) for p, ms in zip(here, told)]
    plots.step_time_vs_bytes(groups, title=f"Step time and weight bytes, {rows} row{'s' * (rows > 1)}", ax=ax)

# %% [markdown]
# The other direction: the same model, more rows. While a step is bound by reading, more rows cost little. This curve is called the **verify cost**: it decides later whether speculation pays.
# The thin lines are the balance of exercise 00.3.

# %%
groups = {}
for name in ("shipped", sizes.shapes[0], sizes.shapes[-1]):
    for dtype in shipped:
        times = {rows: median(seconds) for rows, seconds in rounds_of[name, dtype].items()}
        groups[f"{name}, {dtype}"] = [(rows, seconds / times[1]) for rows, seconds in times.items()]
marks = {name: balance(*case) for name, case in list(cases.items())[:2]}
plots.step_time_vs_tokens(groups, marks, title="What more rows in a step cost")
plt.gcf().set_size_inches(8, 4.2)

# %% [markdown]
# How much of the shipped model's step is overhead? And do its weights come from memory at all, or do they sit in the processor's cache?
# To find out, let its steps take turns with steps before which a large array was read: that empties the cache.

# %%
flush = torch.ones(64 * 2**20, device=lesson.device)
ahead = {"warm": lambda: None, "cold": flush.sum}
for dtype, network in shipped.items():
    taken = {"warm": [], "cold": []}
    for _ in range(sizes.rounds):
        for name, prepare in ahead.items():
            taken[name] += step_seconds(network, (1,), context=CONTEXT, rounds=1, before=prepare)[1]
    gap = timing.speedup(taken["cold"], taken["warm"], of=np.median)
    terms = equation.terms(Shape.of(network), dtype, 1, CONTEXT)
    step_now = median(taken["warm"])
    predicted = equation(Shape.of(network), dtype, 1, CONTEXT)
    print(f"{dtype}: a step takes {step_now * 1e3:.2f} ms; the equation says {predicted * 1e3:.2f} ms,"
          f" {terms['overhead'] * 1e3:.2f} ms of them overhead")  # fmt: skip
    if terms["overhead"] > step_now:
        print("   that overhead alone is more than the step took: here the equation predicts too much of it")
    cached = gap.real and gap.ratio > 1.1
    print(f"   with an empty cache {gap.ratio:.2f} times as long ({gap.low:.2f} to {gap.high:.2f}):",
          "part of what it reads was in the cache" if cached else "the cache makes little difference")  # fmt: skip
overhead_ms = equation.overhead * Shape.of(model).layers * 1e3
results.metric("start.overhead_ms", overhead_ms, "ms")

# %% [markdown]
# ## How to measure without fooling yourself
#
# Here is a trap: the cell below times *the same program twice*. First as most people would, one after the other, once. Then as this course does: in turns, with an **interval**.
#
# The interval comes from a bootstrap: draw as many prompts from those measured, with repetition, compute the ratio, and do so 2,000 times. 95 % of these ratios lie in the interval.
# Where it holds 1, no difference was shown. (One interval in twenty misses the truth, more when there are few prompts.)

# %%
from helpers.decoding.generate import steps


def ours_with(network):
    return lambda ids: [token for step in steps(network, ids) for token in step.emitted]


few = prompts[: max(4, sizes.timed // 2)]
naive = [timing.interleave({"it": ours_with(model)}, few, warmup=0)["it"].seconds for _ in range(2)]
turns = timing.interleave({"A": ours_with(model), "A again": ours_with(model)}, few, rounds=2)
print(f"one after the other: {sum(naive[0]) / sum(naive[1]):.3f} times as fast, the second time. A speedup?")
print("in turns:", timing.speedup(turns["A"].seconds, turns["A again"].seconds))

# %% [markdown]
# The rules from here on:
#
# 1. **Warm up.** The first call pays for things that later ones don't.
# 2. **Take turns.** Noise drifts; programs that take turns share it.
# 3. **Give an interval.** When it holds 1, there is no difference to speak of.
# 4. **Change one thing.** Same model, dtype, threads and stopping on both sides; and the same answers, token by token.

# %% [markdown] tags=["library"]
# ## The library that people use
#
# Hugging Face's `model.generate` does the same job. Are the answers identical, token by token? And is our loop any slower?


# %%
def hugging_face(network):
    def call(ids):
        out = network.generate(torch.tensor([ids], device=lesson.device), max_new_tokens=256, do_sample=False)
        return out[0, len(ids) :].tolist()

    return call


arms = {"generate": hugging_face(plain), "generate, our linears": hugging_face(model), "ours": ours_with(model)}
compared = timing.interleave(arms, prompts[: sizes.answers])
answers = compared["ours"].results
identical = sum(a == b for a, b in zip(compared["generate"].results, answers))
results.invariant("start.identical_to_hf_generate", identical == len(answers), identical, len(answers))
print(f"identical answers: {identical} of {len(answers)}")

# %% [markdown]
# Now the times. `generate` as it comes, against our loop with the linear layers chosen above; and, beside it, the loop alone: the same layers on both sides.
#
# In bfloat16 two tokens can score exactly the same, and rounding decides. So answers may differ there; only prompts with equal answers are compared.


# %%
def note(key, comparison):
    results.metric(key, comparison.ratio, "x", low=comparison.low, high=comparison.high, n=comparison.n)
    return comparison


def two(timed, base, fast, keep):
    return timing.speedup(*([s for s, k in zip(timed[arm].seconds, keep) if k] for arm in (base, fast)))


everyone = [True] * len(answers)
same_layers = two(compared, "generate, our linears", "ours", everyone)
whole = two(compared, "generate", "ours", everyone)
half_arms = {"generate": hugging_face(plain_half), "generate, our linears": hugging_face(half), "ours": ours_with(half)}
in_half = timing.interleave(half_arms, prompts[: sizes.timed])
same = [a == b == c for a, b, c in zip(*(arm.results for arm in in_half.values()))]
results.metric("start.identical_share.bf16", sum(same) / len(same), "share", n=len(same))
print("float32, generate as it comes:    ", note("start.decode_vs_hf_generate", whole))
print("float32, same layers on both sides:", note("start.decode_vs_hf_generate.same_layers", same_layers))
if sum(same) > 1:
    half_whole = two(in_half, "generate", "ours", same)
    half_loop = two(in_half, "generate, our linears", "ours", same)
    print("bfloat16, generate as it comes:    ", note("start.decode_vs_hf_generate.bf16", half_whole))
    print("bfloat16, same layers on both sides:", note("start.decode_vs_hf_generate.bf16.same_layers", half_loop))

# %% [markdown] tags=["measure"]
# ## How good are the answers?
#
# Speed means nothing without this. A fifth of all names was kept out of training. So accuracy is given for the test questions, for fresh questions without such names and with them,
# and for the handwritten questions: people's words, about things that the generator knows nothing of. Those are the honest ones.

# %%
from helpers.measuring.quality import wilson
from helpers.text_to_sql.dataset import fresh_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers


def share(key, words, right):
    low, high = wilson(sum(right), len(right))
    results.metric(key, sum(right) / len(right), "share", low=low, high=high, n=len(right))
    print(f"{words:28} {sum(right)} of {len(right)} right: {sum(right) / len(right):.1%} ({low:.1%} to {high:.1%})")


def judged(examples):
    said = answer_in_batches(plain, tokenizer, [prompt_for(tokenizer, e) for e in examples])
    return said, right_answers(examples, said)


texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
right = right_answers(test[: len(texts)], texts)
accuracy = "start.base_execution_accuracy"
share(accuracy, "test questions", right)
share(f"{accuracy}.seen_names", "fresh, only known names", judged(fresh_examples(sizes.generated, False))[1])
share(f"{accuracy}.unseen_names", "fresh, with unknown names", judged(fresh_examples(sizes.generated, True))[1])
by_hand = handwritten[: max(8, sizes.generated)]
said, by_hand_right = judged(by_hand)
share("start.handwritten_execution_accuracy", "handwritten questions", by_hand_right)

# %% [markdown]
# Some handwritten questions that went wrong, and how:

# %%
failed = [(example, answer) for example, answer, good in zip(by_hand, said, by_hand_right) if not good]
for example, answer in failed[:4]:
    print(f"{example.question}\n   wanted: {example.answer}\n   said:   {extract_sql(answer)}\n")

# %% [markdown]
# And how chatty is the model? Its answer against its SQL alone, in tokens: what notebook 03 will save.


# %%
def tokens_of(text):
    return len(tokenizer(text, add_special_tokens=False).input_ids)


ratios = [len(ids) / tokens_of(found) for ids, found in zip(answers, map(extract_sql, texts)) if found]
if ratios:
    results.metric("start.chatty_length_ratio", median(ratios), "ratio", n=len(ratios))
    print(f"median: an answer has {median(ratios):.2f} times the tokens of its SQL")
ended = sum(ids[-1] in eos_tokens(plain) for ids in answers)
results.metric("start.ended_by_eos", ended / len(answers), "share", n=len(answers))
print(f"{ended} of {len(answers)} answers ended by themselves, within 256 tokens")
for example, ids, text, good, seconds in zip(test, answers, texts, right, compared["ours"].seconds):
    results.prompt(example.id, "greedy", "float32", seconds, len(ids), text, good)

# %% [markdown]
# ## What you predicted, and what was measured

# %%
rounds = rounds_of["shipped", "float32"]
eight = note("start.eight_tokens", timing.speedup(rounds[8], rounds[1], of=np.median))
shape = Shape.of(model)
told = equation(shape, "float32", 8, CONTEXT) / equation(shape, "float32", 1, CONTEXT)
print(f"a step for 8 tokens: you said {GUESS_EIGHT_TOKENS:g} times as long as for 1, it took {eight.ratio:.2f} times,")
print(f"   and the equation, fitted to other models too, says {told:.2f} times")
for dtype, suffix in (("float32", ""), ("bfloat16", "bf16.")):
    for rows, times in rounds_of["shipped", dtype].items():
        results.metric(f"start.step_ms.{suffix}rows_{rows}", median(times) * 1e3, "ms", n=len(times))
fraction = least_milliseconds(weight_bytes, bandwidth) / (median(rounds[1]) * 1e3)
results.metric("start.achieved_bandwidth_fraction", fraction, "share")
results.metric("start.equation_error", worst, "share", n=len(held_out))
results.metric("start.equation_r2", r2(equation, points), "R2", n=len(points))
print(f"a step of the shipped model reads its weights at {fraction:.0%} of the memory's bandwidth")

# %% [markdown]
# Last, what a user feels: the time to the first token, and the time between tokens.

# %%
felt = latency.latency([generate(model, tokenizer, ids) for ids in few])
print(f"first token after {felt.ttft_ms:.1f} ms (median); then one every {felt.itl_mean_ms:.2f} ms on average")
print(f"between tokens: half under {felt.itl_p50_ms:.2f} ms, nine in ten under {felt.itl_p90_ms:.2f}, "
      f"99 in 100 under {felt.itl_p99_ms:.2f}")  # fmt: skip
print(f"whole answers, prefill and all: {felt.tokens_per_second:.0f} tokens per second")
for name in ("ttft_ms", "itl_mean_ms", "itl_p50_ms", "itl_p90_ms", "itl_p99_ms"):
    results.metric(f"start.{name}", getattr(felt, name), "ms", n=felt.n)
results.metric("start.answer_tokens_per_second", felt.tokens_per_second, "tokens/s", n=felt.n)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **Small models may live in the cache.** Then reading costs less than the memory's bandwidth says, and overhead counts for more. Trust the large shapes above when you think of large models.
# * **A busy machine lies.** `python -m helpers check` says whether yours is calm.
# * **A time alone says nothing.** Ask which model, dtype, threads and prompts, against what, and with which interval.
#
# | you see | do |
# |---|---|
# | "There is no model ..." | take one of the names in the message |
# | "The profile gpu needs a CUDA device" | `PROFILE = "cpu"` |
# | an answer without SQL | the question was too far from what the model knows; it counts as wrong |

# %%
terms = equation.terms(shape, "float32", 1, CONTEXT)
largest = max(terms, key=terms.get)
print(
    f"the largest term of this model's step, here, in float32: {largest} ({terms[largest] / sum(terms.values()):.0%})"
)

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A model of 14 GB on a GPU with 2 TB/s: what is the least time of a decode step? (a) 1 ms (b) 7 ms (c) it depends on the prompt
#
# <details><summary>Answer</summary>
#
# (b): 14 GB at 2,000 GB/s. (a) would read 2 GB. (c) the prompt adds the KV cache's bytes, small beside the weights until contexts are long.
# </details>
#
# **2.** A blog says: "our decoder took 10.2 s, the new one 9.8 s". What do you ask first? (a) in which language it is written (b) how often, in turns, and with which interval (c) how many lines it has
#
# <details><summary>Answer</summary>
#
# (b): you saw above what the same program does when it is timed twice. (a) and (c) don't make the difference real.
# </details>
#
# **3.** Decode is bound by reading weights. Which of these does *not* help one user? (a) twice the arithmetic units (b) half the bytes per weight (c) more than one certain token per step
#
# <details><summary>Answer</summary>
#
# (a): they wait already. (b) is what notebooks 01 and 02 do, (c) what 07 and 08 do.
# </details>
#
# **The rule:** before you make something faster, find the term that it is made of, and say beforehand what you expect.
#
# **What limits it now:** every weight takes four bytes, and every one of them is read for every token. The next notebook halves them.
#
# References: Williams, Waterman, Patterson, *Roofline* (2009); Pope et al., *Efficiently Scaling Transformer Inference* (2022);
# Efron, *Bootstrap Methods* (1979); Zhong, Yu, Klein, *Semantic Evaluation for Text-to-SQL with Distilled Test Suites* (2020).
