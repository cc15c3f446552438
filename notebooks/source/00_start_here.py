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
# | you will be able to | say what a model does between a question and its answer; tell a faster program from a lucky measurement; predict the time of a step from the size of a model |
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
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_EIGHT_TOKENS: float = 8.0  # your guess: a step for 8 tokens over a step for 1

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
left_ax.set(title="Length of prompts and of their SQL")
left_ax.set(xlabel="length (tokens)", ylabel="examples (count)")
left_ax.legend()
by_kind = kinds(test)
right_ax.barh(list(by_kind)[::-1], list(by_kind.values())[::-1], color=plots.COLORS[0])
right_ax.set(title="What the test questions ask for")
_ = right_ax.set(xlabel="examples (count)", ylabel="kind of query")

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
SCHEMA = "CREATE TABLE lighthouse "
SCHEMA += "(name TEXT, country TEXT, height_m INTEGER, built INTEGER)"
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

tables, reference = test[0].context, test[0].answer
print("the model:  ", extract_sql(first.text))
print("right:      ", is_correct(extract_sql(first.text), tables, reference))
for mistake in mutants(reference, tables)[:4]:
    print("a mistake:  ", mistake)
    print("counts as right:", is_correct(mistake, tables, reference))

# %% [markdown]
# ## Prefill and decode
#
# The first step reads the whole prompt at once: **prefill**. Every later step reads just the token that was written last: **decode**.
# That is enough because of the **KV cache**, which keeps what the model computed for earlier tokens.
#
# Here is all of it. Taking the best token each time is called **greedy** decoding.

# %%
import torch
from torch import Tensor  # what the functions shown below need

from helpers.decoding.forward import eos_tokens
from helpers.decoding.generate import plain_greedy
from helpers.decoding.kv_cache import KVCache

# %%
# show: helpers.decoding.generate:plain_greedy
# %%
from helpers.text_to_sql.prompts import prompt_for

texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
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
title = "The prefill, then a step for every further token"
plots.timeline_of_steps({"one answer": lane}, title=title)
plt.gcf().set_size_inches(10, 1.8)
prefill = completion.steps[0]
print(f"the prefill read {prefill.num_tokens} tokens in {prefill.seconds * 1e3:.1f} ms")

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
# Inside the model each token of a step is a vector of some hundred numbers.
#
# A step multiplies every token's vector with every weight: 2 operations for each weight. To do so it must fetch every weight from memory (unless the processor's cache holds it; we will test that).
# With one token there is almost nothing to compute for all that reading. Two numbers of your machine decide what this costs:
#
# * its **bandwidth**: bytes per second from memory,
# * its **rate**: operations per second in a large matrix product (a GFLOP/s is a billion of them).

# %%
from helpers.measuring import latency, memory, probes, timing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
bandwidth = probes.bandwidth(device=lesson.device)
rates = {d: probes.matmul_rate(DTYPES[d], device=lesson.device) for d in DTYPES}
weight_bytes = memory.weight_bytes(plain)
rate_list = ", ".join(f"{d} {rate / 1e9:.0f} GFLOP/s" for d, rate in rates.items())
print(f"bandwidth {bandwidth / 1e9:.1f} GB/s; rate {rate_list}")
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
here, on_gpu = least(weight_bytes, bandwidth), least(14e9, 3.35e12)
print(f"this model here, if nothing is in the cache: at least {here:.2f} ms a step")
print("7 billion weights of two bytes on a GPU with 3.35 TB/s: ", end="")
print(f"at least {on_gpu:.1f} ms a step")

# %% [markdown]
# **Exercise 00.3** (5 minutes) *Why it matters: well below this many tokens in a step, more of them are nearly free. Batching and speculation live on that.*
#
# Reading a weight takes `bytes_per_weight / bandwidth` seconds; using it for one token takes `2 / rate`.
# Return the number of tokens at which both take the same time: the machine's **balance**.


# %%
def my_balance_tokens(bytes_per_weight, bandwidth, rate):
    return None  # your code


cases = {
    "float32 here": (4, bandwidth, rates["float32"]),
    "bfloat16 here": (2, bandwidth, rates["bfloat16"]),
    "bfloat16 on an H100, by its data sheet": (2, 3.35e12, 990e12),
}
# hint("00.3")  # solution("00.3")
balance = check("00.3", my_balance_tokens)
for name, case in cases.items():
    print(f"{name}: computing takes as long as reading at {balance(*case):.0f} tokens")

# %% [markdown]
# ## One token is awkward
#
# The same product can be written in several **variants**, and a library runs different code for each. With few tokens the usual one is not always the fastest. Three of the others:

# %%
# show: helpers.kernels.packed_linear:swapped

# %%
# show: helpers.kernels.packed_linear:padded

# %% [markdown]
# The third keeps the formula and moves the weight. A kernel reads a matrix in small blocks. If a copy lies in memory in just that order, it streams. Engines do this once, when they load a model:

# %%
# show: helpers.kernels.packed_linear:packed

# %% [markdown]
# `packed_linear.install` measures which variant is fastest for each of the model's layers, once for each machine, and uses it from then on.

# %%
import copy

from torch import nn

from helpers.kernels import packed_linear

layers = [m for m in plain.modules() if type(m) is nn.Linear]
with torch.inference_mode():
    measured = packed_linear.measure_variants(layers, (1, 8))
out_features, in_features = layers[-1].weight.shape
print(f"one product, {in_features} numbers in and {out_features} out,", end=" ")
print("float32, microseconds:")
for num_tokens, by_shape in measured.items():
    times = by_shape[out_features, in_features]
    listed = ", ".join(f"{variant} {times[variant] * 1e6:.0f}" for variant in times)
    print(f"  {num_tokens} token{'s' * (num_tokens > 1)}: {listed}")
model = packed_linear.install(copy.deepcopy(plain))

# %% [markdown]
# ## The equation
#
# What a step costs, for a model with so many layers and weights, if it reads so many tokens:
#
#     step(num_tokens) = overhead x layers                     starting the operations
#                      + weight bytes / bandwidth              reading the weights
#                      + 2 x num_tokens x parameters / rate    computing
#                      + KV bytes / bandwidth                  reading the cache
#
# *Overhead* is Python and the library starting each operation, the same however large the weights are. *KV bytes* are what the KV cache holds.
# A whole answer costs `prefill + tokens / tokens per step × step(num_tokens)`. Most notebooks of this course attack one term of it.
#
# Does it hold here? Time steps of models of several sizes, after 128 tokens. The large ones have **random weights**: what they say means nothing, what they cost is real.
# bfloat16 is a number in two bytes; the next notebook is about it.

# %%
from statistics import median

from helpers.measuring.cost_model import Measured, Shape
from helpers.profiling.step_time import step_seconds

NUM_TOKENS = (1, 2, 4, 8, 16, 32) if PROFILE != "smoke" else (1, 8, 32)
CONTEXT = 128
plain_half, _ = models.load(MODEL_ID, dtype="bfloat16", device=lesson.device)
half = packed_linear.install(copy.deepcopy(plain_half))
shipped = {"float32": model, "bfloat16": half}
points, step_times = [], {}


def measure_steps(name, network, dtype):
    times = step_seconds(network, NUM_TOKENS, context=CONTEXT, rounds=sizes.rounds)
    step_times[name, dtype], shape = times, Shape.of(network)
    for n, seconds in times.items():
        points.append(Measured(name, shape, dtype, n, CONTEXT, median(seconds)))


for dtype, network in shipped.items():
    measure_steps("shipped", network, dtype)
    for name in sizes.shapes:
        random_weights = models.shape_only(name, dtype, device=lesson.device)
        measure_steps(name, packed_linear.install(random_weights, turns=2), dtype)
        del random_weights
print(f"{len(points)} steps timed, {sizes.rounds} times each")

# %% [markdown]
# Now fit the constants (overhead; bandwidth and rate for each dtype) to all models but one. The one left out is the test: can the equation predict a model that it never saw?
#
# Some machines read and compute at the same time. Then the larger of the two terms counts, not their sum. Both equations are fitted; the one that fits better is kept.

# %%
from helpers.measuring.cost_model import errors, fit, r2

held_out_name = sizes.shapes[len(sizes.shapes) // 2]
held_out = [p for p in points if p.name == held_out_name]
fitted = [p for p in points if p.name != held_out_name]
equations = {combined: fit(fitted, combined) for combined in ("sum", "max")}
misfit = {c: sum(e * e for e in errors(equations[c], fitted)) for c in equations}
better = min(misfit, key=misfit.get)
equation, explained = equations[better], r2(equations[better], points)
worst = max(map(abs, errors(equation, held_out)))
print(f"this machine follows the {better}; {held_out_name} was left out", end=" ")
print(f"of the fit: at most {worst:.0%} off there")
print(f"R2 over all {len(points)} steps: {explained:.4f} (1 would be perfect)")
print(f"overhead {equation.overhead * 1e3:.2f} ms a layer")
for dtype in shipped:
    reads, computes = equation.bandwidth[dtype] / 1e9, equation.rate[dtype] / 1e9
    print(f"{dtype}: reads {reads:.1f} GB/s, computes {computes:.0f} GFLOP/s", end=" ")
    print("(inf: too small to see)")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
for ax, n in zip(axes, (1, 32)):
    groups = {}
    for dtype in shipped:
        here = [p for p in points if p.dtype == dtype and p.num_tokens == n]
        megabytes = [p.shape.weight_bytes / 1e6 for p in here]
        predicted = [equation(p.shape, dtype, n, CONTEXT) * 1e3 for p in here]
        groups[dtype] = list(zip(megabytes, [p.seconds * 1e3 for p in here]))
        groups[f"the equation, {dtype}"] = list(zip(megabytes, predicted))
    title = f"Step time and weight bytes, {n} token{'s' * (n > 1)}"
    plots.step_time_vs_bytes(groups, title=title, ax=ax)

# %% [markdown]
# The other direction: the same model, more tokens in a step. While a step is bound by reading, more tokens cost little. This curve is called the **verify cost**: it decides later whether speculation pays.
# The thin lines are the balance of exercise 00.3.

# %%
groups = {}
for name in ("shipped", sizes.shapes[0], sizes.shapes[-1]):
    for dtype in shipped:
        times = {n: median(t) for n, t in step_times[name, dtype].items()}
        groups[f"{name}, {dtype}"] = [(n, times[n] / times[1]) for n in times]
marks = {name: balance(*case) for name, case in list(cases.items())[:2]}
plots.step_time_vs_tokens(groups, marks, title="What more tokens in a step cost")
plt.gcf().set_size_inches(8, 4.2)

# %% [markdown]
# How much of the shipped model's step is overhead? And do its weights come from memory at all, or do they sit in the processor's cache?
# To find out, let its steps take turns with steps before which a large array was read: that empties the cache.

# %%
flush = torch.ones(64 * 2**20, device=lesson.device)
ahead = {"warm": lambda: None, "cold": flush.sum}
options = dict(context=CONTEXT, rounds=1)
for dtype, network in shipped.items():
    times = {"warm": [], "cold": []}
    for _ in range(sizes.rounds):
        for name, prepare in ahead.items():
            times[name] += step_seconds(network, (1,), before=prepare, **options)[1]
    gap = timing.speedup(times["cold"], times["warm"], of=np.median)
    overhead = equation.terms(Shape.of(network), dtype, 1, CONTEXT)["overhead"]
    predicted = equation(Shape.of(network), dtype, 1, CONTEXT)
    print(f"{dtype}: a step takes {median(times['warm']) * 1e3:.2f} ms;", end=" ")
    print(f"the equation says {predicted * 1e3:.2f} ms,", end=" ")
    print(f"{overhead * 1e3:.2f} ms of them overhead")
    if overhead > median(times["warm"]):
        print("   that overhead alone is more than the step took:", end=" ")
        print("here the equation predicts too much of it")
    print(f"   with an empty cache {gap.ratio:.2f} times as long", end=" ")
    print(f"({gap.low:.2f} to {gap.high:.2f}):", end=" ")
    much = "part of what it reads was in the cache"
    little = "the cache makes little difference"
    print(much if gap.real and gap.ratio > 1.1 else little)
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


few, ours = prompts[: max(4, sizes.timed // 2)], ours_with(model)
alone = [timing.interleave({"it": ours}, few, warmup=0)["it"] for _ in range(2)]
naive = sum(alone[0].seconds) / sum(alone[1].seconds)
print(f"one after the other: {naive:.3f} times as fast, the second time. A speedup?")
turns = timing.interleave({"A": ours, "A again": ours}, few, rounds=2)
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
        feed = torch.tensor([ids], device=lesson.device)
        out = network.generate(feed, max_new_tokens=256, do_sample=False)
        return out[0, len(ids) :].tolist()

    return call


def arms_of(as_it_comes, with_our_linears):
    return {
        "generate": hugging_face(as_it_comes),
        "generate, our linears": hugging_face(with_our_linears),
        "ours": ours_with(with_our_linears),
    }


compared = timing.interleave(arms_of(plain, model), prompts[: sizes.answers])
answers = compared["ours"].results
same = sum(a == b for a, b in zip(compared["generate"].results, answers))
of = len(answers)
results.invariant("start.identical_to_hf_generate", same == of, same, of)
print(f"identical answers: {same} of {of}")

# %% [markdown]
# Now the times. `generate` as it comes, against our loop with the linear layers chosen above; and, beside it, the loop alone: the same layers on both sides.
#
# In bfloat16 two tokens can score exactly the same, and rounding decides. So answers may differ there; only prompts with equal answers are compared.


# %%
def note(key, gain):
    results.metric(key, gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    return gain


def against_generate(timed, chosen, dtype, suffix=""):
    def seconds_of(arm):
        return [timed[arm].seconds[i] for i in chosen]

    key = f"start.decode_vs_hf_generate{suffix}"
    whole = timing.speedup(seconds_of("generate"), seconds_of("ours"))
    print(f"{dtype}, generate as it comes:    ", note(key, whole))
    loop = timing.speedup(seconds_of("generate, our linears"), seconds_of("ours"))
    print(f"{dtype}, same layers on both sides:", note(f"{key}.same_layers", loop))


against_generate(compared, range(len(answers)), "float32")
in_half = timing.interleave(arms_of(plain_half, half), prompts[: sizes.timed])
written = list(zip(*(arm.results for arm in in_half.values())))
same = [i for i, (a, b, c) in enumerate(written) if a == b == c]
share = len(same) / len(written)
results.metric("start.identical_share.bf16", share, "share", n=len(written))
if len(same) > 1:
    against_generate(in_half, same, "bfloat16", ".bf16")

# %% [markdown] tags=["measure"]
# ## How good are the answers?
#
# Speed means nothing without this. A fifth of all names was kept out of training. So accuracy is given for the test questions, for fresh questions without such names and with them,
# and for the handwritten questions: people's words, about things that the generator knows nothing of. Those are the honest ones.

# %%
from helpers.measuring.quality import wilson
from helpers.text_to_sql.dataset import fresh_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers


def note_share(key, words, right):
    good, n = sum(right), len(right)
    share, (low, high) = good / n, wilson(good, n)
    results.metric(key, share, "share", low=low, high=high, n=n)
    print(f"{words:28} {good} of {n} right: {share:.1%} ({low:.1%} to {high:.1%})")


def judged(examples):
    asked = [prompt_for(tokenizer, example) for example in examples]
    answered = answer_in_batches(plain, tokenizer, asked)
    return answered, right_answers(examples, answered)


texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
right = right_answers(test[: len(texts)], texts)
accuracy = "start.base_execution_accuracy"
note_share(accuracy, "test questions", right)
known, unknown = (fresh_examples(sizes.generated, unseen) for unseen in (False, True))
note_share(f"{accuracy}.seen_names", "fresh, only known names", judged(known)[1])
note_share(f"{accuracy}.unseen_names", "fresh, with unknown names", judged(unknown)[1])
by_hand = handwritten[: max(8, sizes.generated)]
by_hand_texts, by_hand_right = judged(by_hand)
accuracy = "start.handwritten_execution_accuracy"
note_share(accuracy, "handwritten questions", by_hand_right)

# %% [markdown]
# Some handwritten questions that went wrong, and how:

# %%
for i in [i for i, good in enumerate(by_hand_right) if not good][:4]:
    print(f"{by_hand[i].question}\n   wanted: {by_hand[i].answer}")
    print(f"   said:   {extract_sql(by_hand_texts[i])}\n")

# %% [markdown]
# And how chatty is the model? Its answer against its SQL alone, in tokens: what notebook 03 will save.


# %%
def tokens_of(text):
    return len(tokenizer(text, add_special_tokens=False).input_ids)


queries = [extract_sql(text) for text in texts]
ratios = [len(ids) / tokens_of(sql) for ids, sql in zip(answers, queries) if sql]
if ratios:
    results.metric("start.chatty_length_ratio", median(ratios), "ratio", n=len(ratios))
    print(f"median: an answer has {median(ratios):.2f} times the tokens of its SQL")
ended = sum(ids[-1] in eos_tokens(plain) for ids in answers)
results.metric("start.ended_by_eos", ended / len(answers), "share", n=len(answers))
print(f"{ended} of {len(answers)} answers ended by themselves, within 256 tokens")
seconds = compared["ours"].seconds
for example, *answer in zip(test, seconds, map(len, answers), texts, right):
    results.prompt(example.id, "greedy", "float32", *answer)

# %% [markdown]
# ## What you predicted, and what was measured

# %%
times = step_times["shipped", "float32"]
eight = note("start.eight_tokens", timing.speedup(times[8], times[1], of=np.median))
shape = Shape.of(model)
predicted = {n: equation(shape, "float32", n, CONTEXT) for n in (1, 8)}
print(f"a step for 8 tokens: you said {GUESS_EIGHT_TOKENS:g} times as long", end=" ")
print(f"as for 1, it took {eight.ratio:.2f} times,")
print("   and the equation, fitted to other models too, says", end=" ")
print(f"{predicted[8] / predicted[1]:.2f} times")
for dtype, suffix in (("float32", ""), ("bfloat16", "bf16.")):
    for n, seconds in step_times["shipped", dtype].items():
        key, ms = f"start.step_ms.{suffix}rows_{n}", median(seconds) * 1e3
        results.metric(key, ms, "ms", n=len(seconds))
fraction = least_milliseconds(weight_bytes, bandwidth) / (median(times[1]) * 1e3)
results.metric("start.achieved_bandwidth_fraction", fraction, "share")
results.metric("start.equation_error", worst, "share", n=len(held_out))
results.metric("start.equation_r2", r2(equation, points), "R2", n=len(points))
print(f"a step of the shipped model reads its weights at {fraction:.0%}", end=" ")
print("of the memory's bandwidth")

# %% [markdown]
# Last, what a user feels: the time to the first token, and the time between tokens.

# %%
felt = latency.latency([generate(model, tokenizer, ids) for ids in few])
speed = felt.tokens_per_second
print(f"first token after {felt.ttft_ms:.1f} ms (median);", end=" ")
print(f"then one every {felt.itl_mean_ms:.2f} ms on average")
print(f"between tokens: half under {felt.itl_p50_ms:.2f} ms,", end=" ")
print(f"nine in ten under {felt.itl_p90_ms:.2f}, 99 in 100 under {felt.itl_p99_ms:.2f}")
print(f"whole answers, prefill and all: {speed:.0f} tokens per second")
for name in ("ttft_ms", "itl_mean_ms", "itl_p50_ms", "itl_p90_ms", "itl_p99_ms"):
    results.metric(f"start.{name}", getattr(felt, name), "ms", n=felt.n)
results.metric("start.answer_tokens_per_second", speed, "tokens/s", n=felt.n)
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
share = terms[largest] / sum(terms.values())
print("the largest term of this model's step, here, in float32:", end=" ")
print(f"{largest} ({share:.0%})")

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
