# %% [markdown] tags=["card"]
# # 00 · Start here
#
# **Why is decoding slow, and how would I know it got faster?**
#
# | | |
# |---|---|
# | next | 01 half precision |
# | the term it attacks | none yet: it measures every term of the equation |
# | you will be able to | say what a model does between a question and an answer; tell a fast program from a lucky measurement; foretell the time of a step from the size of a model |
# | time | 40 minutes for you; the machine needs about 5 under the `cpu` profile |
# | memory | 4 GiB |
#
# One job runs through the whole course: somebody asks a question about a table, and a language model writes the SQL that answers it.
# The model is small and was trained for this course, so that everything runs on your machine, offline.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A model writes its answer token by token. Each token takes one **step**: the model reads one token and says what comes next.
#
# Now give the model *eight* tokens in one step. That is eight times the arithmetic. How many times as long will the step take?
# Write your guess into `GUESS_EIGHT_ROWS` below. It is saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or a model of the Hub as owner/name
SEED: int = 0  # of everything random
GUESS_EIGHT_ROWS: float = 8.0  # your guess: a step for 8 tokens takes this many times as long as a step for 1

# %%
import helpers

lesson = helpers.start("00_start_here", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, lesson.sizes
results.prediction("start.eight_rows", GUESS_EIGHT_ROWS, "x")

# %% [markdown] tags=["build"]
# ## The job: a question goes in, SQL comes out
#
# Each example has the tables, a question, and a query that answers it. Here are three that the model has never seen.

# %%
from helpers.text_to_sql.dataset import kinds, load_split, token_lengths

test = load_split("test")
for example in test[:3]:
    print(example.context, example.question, example.answer, sep="\n", end="\n\n")

# %% [markdown]
# Before making something fast, look at what it does: how long are the prompts, how long are the answers, and which kinds of query are there?

# %%
import matplotlib.pyplot as plt

from helpers import models, plots

model, tokenizer = models.load(MODEL_ID, dtype="float32", device=lesson.device)
prompt_tokens, sql_tokens = token_lengths(test, tokenizer)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
left.hist(prompt_tokens, bins=30, color=plots.COLORS[2], label="prompt")
left.hist(sql_tokens, bins=30, color=plots.COLORS[0], label="SQL", hatch="//")
left.set(title="Prompts are longer than their SQL", xlabel="length (tokens)", ylabel="examples (count)")
left.legend()
found = kinds(test)
right.barh(list(found)[::-1], list(found.values())[::-1], color=plots.COLORS[0])
right.set(title="What the test questions ask for", xlabel="examples (count)")

# %% [markdown]
# ## The model answers
#
# The base model is chatty, as models are: it wraps the SQL in prose. The text appears while it is written.
# Then its SQL runs in SQLite, on rows invented for the occasion.

# %%
from helpers.ask import make_ask

ask = make_ask(model, tokenizer)
completion = ask(test[0].context, test[0].question)

# %% [markdown]
# **Your turn.** Change the tables and the question to anything you like, and run the cell again.
# The model saw neither these tables nor this question. It is small: it will sometimes be wrong, and below you will see how often.

# %%
SCHEMA = "CREATE TABLE lighthouse (name TEXT, country TEXT, height_m INTEGER, built INTEGER)"
QUESTION = "Which lighthouses in Norway are taller than 30?"
mine = ask(SCHEMA, QUESTION)

# %% [markdown]
# ## An answer is right when its rows are right
#
# Two queries can look different and mean the same, so answers are not compared as text. Both queries run in SQLite, on rows chosen
# so that the usual mistakes (a dropped condition, `>` for `>=`) return something else. This is how the SQL is taken out of the prose:

# %%
import re  # what the function below needs

from helpers.text_to_sql.execution import is_correct, mutants
from helpers.text_to_sql.prompts import extract_sql

# %%
# show: helpers.text_to_sql.prompts:extract_sql

# %%
sql, context = extract_sql(completion.text), test[0].context
print("the model's SQL:", sql)
print("the reference:  ", test[0].answer)
print("same rows:      ", is_correct(sql, context, test[0].answer))
for wrong in mutants(test[0].answer, context)[:3]:
    print("a usual mistake:", wrong, "- same rows:", is_correct(wrong, context, test[0].answer))

# %% [markdown]
# ## Two phases: prefill and decode
#
# The first step reads the whole prompt at once: **prefill**. Every later step reads just the token that was written last: **decode**.
# That is enough because of the **KV cache**: what attention computed for earlier tokens is kept, not computed again.
#
# One step of our decode loop, from the package:

# %%
from collections.abc import Sequence  # what the function below needs

import torch

from helpers.decoding.generate import depths, tree_mask
from helpers.decoding.kv_cache import KVCache

# %%
# show: helpers.decoding.generate:Decoder.step

# %% [markdown]
# The loop keeps a record of every step. Here is the answer above as the clock saw it.

# %%
lane, clock = [], 0.0
for step in completion.steps:
    lane.append((clock * 1e3, step.seconds * 1e3, len(step.emitted)))
    clock += step.seconds
plots.timeline_of_steps({"greedy": lane}, title="One answer: a prefill, then a step for every token")
plt.gcf().set_size_inches(10, 1.8)
prefill, decode = completion.steps[0], completion.steps[1:]
print(f"prefill read {prefill.rows} tokens in {prefill.seconds * 1e3:.1f} ms;"
      f" {len(decode)} decode steps took {sum(s.seconds for s in decode) * 1e3:.1f} ms in all")  # fmt: skip

# %% [markdown]
# **Exercise 00.1** (3 minutes) *Why it matters: prefill and decode get faster by different means, so their times must not be mixed.*
#
# Each record in `steps` has `kind` (`"prefill"` or `"decode"`), `seconds` and `emitted` (the tokens that the step made certain).
# Return the tokens per second of the decode steps alone.

# %%
from helpers.exercises import check
from helpers.measure import decode_tokens_per_second


def my_tokens_per_second(steps):
    return None  # your code


tokens_per_second = check(my_tokens_per_second, decode_tokens_per_second, [(completion.steps,), (mine.steps,)])
print(f"{tokens_per_second(completion.steps):.0f} tokens per second")

# %% [markdown]
# ## Why decode is slow: it reads everything to do little
#
# A step multiplies each weight with each row it was given: 2 operations per weight and row. To do so it must first fetch every weight from memory.
# With one row there is almost nothing to compute for all that reading. Two numbers of your machine decide what that costs:
#
# * its **bandwidth**: bytes per second from memory,
# * its **rate**: operations per second in a large matrix product.

# %%
from helpers import measure

bandwidth = measure.bandwidth(device=lesson.device)
rates = {name: measure.matmul_rate(dtype, device=lesson.device) for name, dtype in
         (("float32", torch.float32), ("bfloat16", torch.bfloat16))}  # fmt: skip
weight_bytes = measure.weight_bytes(model)
print(f"bandwidth {bandwidth / 1e9:.1f} GB/s; rate", ", ".join(f"{n} {r / 1e9:.0f} GFLOP/s" for n, r in rates.items()))
print(f"the model's weights: {weight_bytes / 1e6:.1f} MB in float32")
results.metric("start.bandwidth_gb_s", bandwidth / 1e9, "GB/s")

# %% [markdown]
# **Exercise 00.2** (3 minutes) *Why it matters: it tells you what no program can beat.*
#
# Return the least time of a decode step in milliseconds, if each weight has to come from memory once.

# %%
from helpers.estimate import balance_rows, least_milliseconds


def my_least_milliseconds(weight_bytes, bandwidth):  # bytes, bytes per second
    return None  # your code


least = check(my_least_milliseconds, least_milliseconds, [(weight_bytes, bandwidth), (14e9, 3.35e12)])
print(f"this model, here: at least {least(weight_bytes, bandwidth):.2f} ms a step")
print(f"a 7B model in 16 bits on a GPU with 3.35 TB/s: at least {least(14e9, 3.35e12):.1f} ms a step")

# %% [markdown]
# **Exercise 00.3** (5 minutes) *Why it matters: below this many rows, more rows are nearly free. Batching and speculation live on that.*
#
# Reading a weight takes `bytes_per_weight / bandwidth` seconds; using it for one row takes `2 / rate`.
# Return the number of rows at which both take the same time.


# %%
def my_balance_rows(bytes_per_weight, bandwidth, rate):
    return None  # your code


cases = [(4, bandwidth, rates["float32"]), (2, bandwidth, rates["bfloat16"]), (2, 3.35e12, 990e12)]
balance = check(my_balance_rows, balance_rows, cases)
for name, case in zip(("float32 here", "bfloat16 here", "bfloat16 on an H100"), cases):
    print(f"{name}: computing takes as long as reading at {balance(*case):.0f} rows")

# %% [markdown]
# ## One row is awkward
#
# A matrix product with one row has a kernel of its own in most libraries, and it is not always the fast one. The package tries the library's own
# ways to compute the same product, for every shape in the model, and keeps the fastest. Both sides of each comparison in this course use what was found.

# %%
import copy
import time

from torch import nn

from helpers.decoding import few_rows
from helpers.decoding.few_rows import FORMS

# %%
# show: helpers.decoding.few_rows:measure_forms

# %%

plain = model
model = few_rows.install(copy.deepcopy(plain))
for (out, into), forms in few_rows.forms_of(model).items():
    print(f"{into:5} to {out:5}: ", ", ".join(f"{n} rows {form}" for n, form in zip(few_rows.ROWS, forms)))

# %% [markdown]
# ## The equation
#
# What a step costs, for a model with this many layers, weights and rows:
#
# $$\text{step(rows)} = \underbrace{\text{overhead}\times\text{layers}}_{\text{launching}} + \underbrace{\frac{\text{weight bytes}}{\text{bandwidth}}}_{\text{reading}} + \underbrace{\frac{2\times\text{rows}\times\text{parameters}}{\text{rate}}}_{\text{computing}} + \frac{\text{KV bytes}}{\text{bandwidth}}$$
#
# and an answer costs `prefill + tokens / tokens per step × step(rows)`. Every notebook of this course attacks one term of it.
#
# Does it hold here? Measure steps of models of different sizes. The large ones have **random weights**: what they say means nothing, what they cost is real.

# %%
from helpers.decoding.step_time import step_seconds
from helpers.estimate import Measured, Shape

ROWS = (1, 2, 4, 8, 16, 32) if PROFILE != "smoke" else (1, 8, 32)
CONTEXT = 128
DTYPES = ("float32", "bfloat16")
points, rounds_of = [], {}


def measure_steps(name, candidate, dtype):
    found = step_seconds(candidate, ROWS, context=CONTEXT, rounds=sizes.rounds)
    rounds_of[name, dtype] = found
    for rows, seconds in found.items():
        median = sorted(seconds)[len(seconds) // 2]
        points.append(Measured(name, Shape.of(candidate), dtype, rows, CONTEXT, median))


for dtype in DTYPES:
    half = model if dtype == "float32" else few_rows.install(copy.deepcopy(plain).to(torch.bfloat16))
    measure_steps("shipped", half, dtype)
    for name in sizes.shapes:
        candidate = few_rows.install(models.shape_only(name, dtype, device=lesson.device))
        measure_steps(name, candidate, dtype)
        del candidate
print(f"{len(points)} step times measured")

# %% [markdown]
# Fit the equation's constants (overhead, and bandwidth and rate for each dtype) to all shapes but one. The one left out is the test: can the equation foretell a model that it never saw?
#
# Some machines read and compute at the same time. Then the two middle terms become their maximum. Both forms are fitted; the one with the smaller error over the fitted shapes is kept.

# %%
from helpers.estimate import errors, fit, r2

held_out_name = sizes.shapes[len(sizes.shapes) // 2]
held_out = [p for p in points if p.name == held_out_name]
fitted = [p for p in points if p.name != held_out_name]
equations = {form: fit(fitted, form) for form in ("sum", "max")}
spread = {form: sum(e * e for e in errors(equation, fitted)) for form, equation in equations.items()}
form = min(spread, key=spread.get)
equation = equations[form]
worst = max(map(abs, errors(equation, held_out)))
for name, one in equations.items():
    print(
        f"{name}: worst error on {held_out_name} {max(map(abs, errors(one, held_out))):.0%}, R2 {r2(one, points):.3f}"
    )
print(f"kept: {form}; overhead {equation.overhead * 1e3:.2f} ms a layer")
for dtype in DTYPES:
    told = f"reads {equation.bandwidth[dtype] / 1e9:.1f} GB/s, computes {equation.rate[dtype] / 1e9:.0f} GFLOP/s"
    print(f"{dtype}: {told}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
for ax, rows in zip(axes, (1, 32)):
    groups = {d: [(p.shape.weight_bytes / 1e6, p.seconds * 1e3) for p in points if p.dtype == d and p.rows == rows]
              for d in DTYPES}  # fmt: skip
    plots.step_time_vs_bytes(groups, title=f"Step time follows the weights' bytes, {rows} row{'s' * (rows > 1)}", ax=ax)
    for dtype, style in zip(DTYPES, ("--", ":")):
        mine_ = sorted((p for p in points if p.dtype == dtype and p.rows == rows), key=lambda p: p.shape.weight_bytes)
        told = [equation(p.shape, dtype, rows, CONTEXT) * 1e3 for p in mine_]
        ax.plot([p.shape.weight_bytes / 1e6 for p in mine_], told, style, color="#555555", marker="",
                label=f"the equation, {dtype}")  # fmt: skip
    ax.legend(fontsize=8)

# %% [markdown]
# The other direction: the same model, more rows. While a step is bound by reading, more rows cost little. This curve is the **verify cost**: it decides later whether speculation pays.

# %%
fig, ax = plt.subplots(figsize=(7, 3.6))
for place, name in enumerate(("shipped", *sizes.shapes[::2])):
    for dtype, style in zip(DTYPES, ("-", "--")):
        mine_ = [p for p in points if p.name == name and p.dtype == dtype]
        ax.plot([p.rows for p in mine_], [p.seconds / mine_[0].seconds for p in mine_], style, label=f"{name}, {dtype}",
                color=plots.COLORS[place], marker=plots.MARKERS[place])  # fmt: skip
ax.plot(ROWS, ROWS, ":", color="#555555", marker="", label="if rows cost in full")
ax.set(title="A step with more rows costs less than its share", xlabel="rows in a step (tokens)",
       ylabel="time, of the step with 1 row (ratio)", ylim=(0, 16))  # fmt: skip
ax.legend(fontsize=8, ncols=2)

# %% [markdown]
# How much of the shipped model's step is overhead? And do its weights come from memory at all, or do they simply sit in the processor's cache?
# To find out, time its steps after a large array was read, which empties the cache.

# %%
flush = torch.ones(64 * 2**20, device=lesson.device)
for dtype, one in (("float32", model), ("bfloat16", half)):
    terms = equation.terms(Shape.of(one), dtype, 1, CONTEXT)
    warm = rounds_of["shipped", dtype][1]
    cold = step_seconds(one, (1,), context=CONTEXT, rounds=sizes.rounds, before=flush.sum)[1]
    gap = measure.speedup(cold, warm)
    print(f"{dtype}: measured {sorted(warm)[len(warm) // 2] * 1e3:.2f} ms; the equation says",
          ", ".join(f"{term} {seconds * 1e3:.2f}" for term, seconds in terms.items()))  # fmt: skip
    verdict = "its weights were in the cache" if gap.real and gap.ratio > 1.1 else "the cache makes little difference"
    print(f"   with the cache emptied first: {gap} - {verdict}")
results.metric("start.overhead_ms", equation.overhead * Shape.of(model).layers * 1e3, "ms")

# %% [markdown]
# ## How to measure without fooling yourself
#
# Here is a trap. The cell below times *the same program twice*, as most people would: first one, then the other. Then it measures the way this course does:
# warmed up, taking turns, with an interval over the prompts.

# %%
from helpers.decoding.generate import steps
from helpers.text_to_sql.prompts import prompt_for

prompts = [tokenizer(prompt_for(tokenizer, e), add_special_tokens=False).input_ids for e in test]
few = prompts[: max(4, sizes.timed // 4)]  # enough to see noise


def ours(ids):
    return [token for step in steps(model, ids) for token in step.emitted]


naive = {}
for name in ("first", "second"):
    naive[name] = measure.interleave({name: ours}, few, warmup=0)[name].seconds
turns = measure.interleave({"A": ours, "also A": ours}, few, rounds=2)
print(f'one after the other, once: {sum(naive["first"]) / sum(naive["second"]):.3f} times - a "speedup" of nothing?')
print(f"in turns, with an interval: {measure.speedup(turns['A'].seconds, turns['also A'].seconds)}")

# %% [markdown]
# The rules from here on:
#
# 1. **Warm up.** The first call pays for things that later ones don't.
# 2. **Take turns.** Noise drifts; programs that take turns share it.
# 3. **Give an interval.** When it holds 1, there is no difference to speak of.
# 4. **Same work on both sides.** Same model, dtype, threads, stopping; and the same answers, token by token.

# %% [markdown] tags=["library"]
# ## The library people use
#
# Hugging Face's `model.generate` does the same job. Are the answers identical, token by token? And is our loop, which you can read on one screen, any slower?


# %%
def hugging_face(network):
    def generate(ids):
        out = network.generate(torch.tensor([ids], device=lesson.device), max_new_tokens=256, do_sample=False)
        return out[0, len(ids) :].tolist()

    return generate


def ours_with(network):
    return lambda ids: [token for step in steps(network, ids) for token in step.emitted]


asked = prompts[: sizes.answers]
compared = measure.interleave({"generate": hugging_face(plain), "ours": ours}, asked)
answers = compared["ours"].results
identical = sum(a == b for a, b in zip(compared["generate"].results, answers))
results.invariant("start.identical_to_hf_generate", identical == len(asked), identical, len(asked))
print(f"identical answers: {identical} of {len(asked)}")


# %%
def note(key, comparison):
    results.metric(key, comparison.ratio, "x", low=comparison.low, high=comparison.high, n=comparison.n)


note("start.decode_vs_hf_generate", measure.speedup(compared["generate"].seconds, compared["ours"].seconds))
same_kernels = measure.interleave({"generate": hugging_face(plain), "ours": ours_with(plain)}, prompts[: sizes.timed])
loop_alone = measure.speedup(same_kernels["generate"].seconds, same_kernels["ours"].seconds)
note("start.decode_vs_hf_generate.loop_alone", loop_alone)
plain_half = copy.deepcopy(plain).to(torch.bfloat16)
in_half = measure.interleave({"generate": hugging_face(plain_half), "ours": ours_with(half)}, prompts[: sizes.timed])
note("start.decode_vs_hf_generate.bf16", measure.speedup(in_half["generate"].seconds, in_half["ours"].seconds))
print("ours against generate, float32: ", measure.speedup(compared["generate"].seconds, compared["ours"].seconds))
print("   the same linear layers in both:", loop_alone)
print("ours against generate, bfloat16:", measure.speedup(in_half["generate"].seconds, in_half["ours"].seconds))

# %% [markdown] tags=["measure"]
# ## How good are the answers?
#
# Speed means nothing without this. The test questions come in two sorts of words: those that training showed, and a fifth of all names that it never did.

# %%
from helpers.quality import wilson
from helpers.text_to_sql.dataset import fresh_examples
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers


def share(key, right):
    low, high = wilson(sum(right), len(right))
    results.metric(key, sum(right) / len(right), "share", low=low, high=high, n=len(right))
    print(f"{key}: {sum(right)} of {len(right)} right ({sum(right) / len(right):.1%}, {low:.1%} to {high:.1%})")


texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
right = right_answers(test[: len(texts)], texts)
share("start.base_execution_accuracy", right)
batch = {"seen_names": fresh_examples(sizes.generated, False), "unseen_names": fresh_examples(sizes.generated, True)}
for name, examples in batch.items():
    said = answer_in_batches(plain, tokenizer, [prompt_for(tokenizer, e) for e in examples])
    share(f"start.base_execution_accuracy.{name}", right_answers(examples, said))
handwritten = load_split("handwritten")[: max(8, sizes.generated)]
said = answer_in_batches(plain, tokenizer, [prompt_for(tokenizer, e) for e in handwritten])
by_hand = right_answers(handwritten, said)
share("start.handwritten_execution_accuracy", by_hand)

# %% [markdown]
# Those 60 handwritten questions are the honest ones: people's words, about things that the generator knows nothing of. Look at a few that went wrong.

# %%
wrong = [(example, answer) for example, answer, good in zip(handwritten, said, by_hand) if not good]
for example, answer in wrong[:4]:
    print(f"{example.question}\n   wanted: {example.answer}\n   said:   {extract_sql(answer)}\n")

# %% [markdown]
# And how chatty is the model? Its answer against its SQL alone, in tokens: what notebook 03 will save.


# %%
def tokens_of(text):
    return len(tokenizer(text, add_special_tokens=False).input_ids)


ratios = sorted(len(ids) / tokens_of(sql) for ids, text in zip(answers, texts) if (sql := extract_sql(text)))
chatty = ratios[len(ratios) // 2] if ratios else float("nan")
if ratios:
    results.metric("start.chatty_length_ratio", chatty, "ratio", n=len(ratios))
ended = sum(ids[-1] in (tokenizer.eos_token_id,) for ids in answers)
results.metric("start.ended_by_eos", ended / len(answers), "share", n=len(answers))
for example, ids, text, good, seconds in zip(test, answers, texts, right, compared["ours"].seconds):
    results.prompt(example.id, "greedy", "float32", seconds, len(ids), text, good)
print(f"median: the answer has {chatty:.2f} times the tokens of its SQL; {ended} of {len(answers)} ended by themselves")

# %% [markdown]
# ## What you predicted, and what was measured

# %%
from dataclasses import asdict

eight = measure.speedup(rounds_of["shipped", "float32"][8], rounds_of["shipped", "float32"][1])
note("start.eight_rows", eight)
print(f"8 rows for 1: you said {GUESS_EIGHT_ROWS:g} times as long, measured {eight.ratio:.2f} times")
for rows, seconds in rounds_of["shipped", "float32"].items():
    results.metric(f"start.step_ms.rows_{rows}", sorted(seconds)[len(seconds) // 2] * 1e3, "ms")
one_row = results.metrics["start.step_ms.rows_1"]["value"]
fraction = least_milliseconds(weight_bytes, bandwidth) / one_row
results.metric("start.achieved_bandwidth_fraction", fraction, "share")
results.metric("start.equation_error", worst, "share", n=len(held_out))
results.metric("start.equation_r2", r2(equation, points), "R2", n=len(points))
print(f"a step of the shipped model: {one_row:.2f} ms, {fraction:.0%} of the machine's bandwidth")
print(f"the equation on a model it never saw: at most {worst:.0%} off")

# %%
from helpers.decoding.generate import generate

felt = measure.latency([generate(model, tokenizer, ids) for ids in few])
for name, value in asdict(felt).items():
    print(f"{name:20} {value:8.2f}")
for name in ("ttft_ms", "itl_mean_ms", "itl_p50_ms", "itl_p90_ms", "itl_p99_ms"):
    results.metric(f"start.{name}", getattr(felt, name), "ms", n=felt.n)
results.metric("start.tokens_per_second", felt.tokens_per_second, "tokens/s", n=felt.n)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **Small models live in the cache.** Then reading is cheaper than the memory's bandwidth says, and overhead is most of the step. What holds for the large shapes above holds for real models.
# * **Busy machine.** Another program on the same cores can slow a step tenfold. `python -m helpers check` says whether yours is calm.
# * **A time alone says nothing.** Ask which model, dtype, threads and prompts, against what, and with which interval.
#
# | you see | do |
# |---|---|
# | "There is no model ..." | take one of the names in the message |
# | "The profile gpu needs a CUDA device" | `PROFILE = "cpu"` |
# | an answer without SQL | the model met something too far from what it knows; that is counted as wrong |

# %% [markdown] tags=["decide"]
# ## Decide
#
# <details><summary>1. A model of 14 GB on a GPU with 2 TB/s: what is the least time of a decode step?</summary>
#
# - *1 ms*: no, 2 GB would take that.
# - ***7 ms***: yes, 14 GB over 2,000 GB/s.
# - *It depends on the prompt*: the prompt adds the KV cache's bytes, small beside the weights until contexts are long.
# </details>
#
# <details><summary>2. A blog says: "our decoder took 10.2 s, the new one 9.8 s". What do you ask first?</summary>
#
# - *Which programming language?* No.
# - ***How often, in turns, and with which interval?*** Yes: 4 % is within the noise of most machines.
# - *Whether the outputs are the same* is the second question, and as good.
# </details>
#
# <details><summary>3. Decode is bound by reading weights. Which of these helps at one user?</summary>
#
# - *Twice the arithmetic units*: no, they wait already.
# - ***Half the bytes per weight***: yes (notebooks 01 and 02).
# - ***More tokens certain per step***: yes (notebooks 07 and 08).
# </details>
#
# **The rule:** before you make something faster, find the term that it is made of, and say beforehand what you expect.
#
# **What limits it now:** every weight takes four bytes. The next notebook halves them.
#
# References: Williams, Waterman, Patterson, *Roofline* (2009); Pope et al., *Efficiently Scaling Transformer Inference* (2022);
# Efron, *Bootstrap Methods* (1979); Zhong, Yu, Klein, *Test Suite Accuracy for Text-to-SQL* (2020).
