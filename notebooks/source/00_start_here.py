# ---
# jupyter:
#   course:
#     minutes: 10
#     headline: >-
#       SmolLM2-135M, fine-tuned. float32: {start.identical_to_hf_generate.count} of
#       {start.identical_to_hf_generate.of} answers token for token those of `generate`. bfloat16: plain greedy on the
#       fused step {start.decode_vs_hf_generate.bf16:.2f} times as fast as `generate` as it comes
#       ({start.decode_vs_hf_generate.bf16.same_layers:.2f} as `generate` with packed linears,
#       {start.decode_vs_hf_generate.bf16.n} prompts). SQL right for {start.fine_tuned_execution_accuracy:.0%} of
#       {start.fine_tuned_execution_accuracy.n} test questions (base: {start.base_execution_accuracy:.0%}) and
#       {start.handwritten_execution_accuracy:.0%} of {start.handwritten_execution_accuracy.n} that people wrote
# ---

# %% [markdown] tags=["card"]
# # 00 · Start here
#
# **Why is decoding slow, and how would I know it got faster?**
#
# | | |
# |---|---|
# | next | 01 half precision; extras: 00b the KV cache, 00c kernels |
# | you will be able to | say what a language model does between a question and its answer; write the loop that does it; predict the time of a step from the size of a model; tell a faster program from a lucky measurement |
# | time | 60 minutes for you, 20 of them for one exercise; about 5 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# One job runs through the whole course: somebody asks a question about a table, and a language model writes the SQL that answers it.
# The model is SmolLM2-135M-Instruct. It is real, it chats, and it is small enough for a laptop. Everything runs on your machine, offline.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A language model writes **tokens**: words, or pieces of them. Writing one takes one **step**: the model reads the last token and says what comes next.
#
# A step can also read several tokens at once: those of eight users, say, or eight guesses that are to be checked. Eight tokens are eight times the arithmetic of one.
#
# 1. How many times as long does a step take that reads eight tokens instead of one?
# 2. The model was fine-tuned for this job. What share of the questions that people wrote does it answer rightly?
#
# Write both guesses below. They are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_EIGHT_TOKENS: float = 8.0  # your guess: a step for 8 tokens over a step for 1
GUESS_RIGHT: float = 0.9  # your guess: share of people's questions answered rightly

# %%
import helpers
from helpers.notebook.profiles import START

lesson = helpers.start("00_start_here", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, start = lesson.results, lesson.sizes, START[PROFILE]
results.prediction("start.eight_tokens", GUESS_EIGHT_TOKENS, "x")
results.prediction("start.handwritten_execution_accuracy", GUESS_RIGHT, "share")

# %% [markdown] tags=["build"]
# ## The job: a question goes in, SQL comes out
#
# Each example has tables, a question, and a query that answers it. People wrote the first two. The third was generated, as all of the training was, over a schema that a person designed.
# No schema of the test stands in the training.

# %%
from helpers.notebook.answers import show_examples
from helpers.text_to_sql.dataset import load_split, token_lengths

test, handwritten = load_split("test"), load_split("handwritten")
show_examples([handwritten[0], handwritten[16], test[26]])

# %% [markdown]
# ## What a model is, on one page
#
# You need Python, and an idea of what a matrix product is. What else you need is here.
#
# Text is cut into tokens, and each token has a number, its **id**. The model turns an id into a **vector**, a row of numbers. The vector passes through **layers**, all built alike. In each of them
#
# * **attention** lets a token take in something of the tokens before it, by comparing its **query** with their **keys** and mixing their **values**;
# * the **MLP** computes on each token alone.
#
# What comes out is multiplied with one last matrix. That gives a score for every token of the vocabulary: the **logits**. **Softmax** turns logits into probabilities: $p_i = e^{z_i} / \sum_j e^{z_j}$. The token with the largest logit is also the most probable one.
#
# All the matrices hold the model's **weights**. A weight's **dtype** says how it is stored: `float32` in four bytes, `bfloat16` in two (notebook 01 is about that).

# %%
import torch

from helpers import models
from helpers.notebook.start_models import base_and_fine_tuned, show_model

base, tuned, tokenizer, tuned_name = base_and_fine_tuned(lesson)
show_model(tuned.config)

# %% [markdown]
# ## The same question, twice
#
# The base model was trained to chat. The second model is the same one, **fine-tuned** for this job: a small addition to its weights was trained on questions and their SQL. Notebook 03 does that.

# %%
from helpers.notebook.answers import read_side_by_side, side_by_side

pair, hives = {"base": base, "fine-tuned": tuned}, handwritten[2]
read_side_by_side(side_by_side(hives, pair, tokenizer, start.longest_prose))

# %% [markdown]
# **Your turn.** Change the tables and the question to anything you like, and run the cell again. The text appears while the fine-tuned model writes it. Then its SQL runs in SQLite, on rows invented for the occasion.

# %%
from helpers.notebook.ask import make_ask

COLUMNS = "bridge TEXT, river TEXT, length_m INTEGER, opened INTEGER"
SCHEMA = f"CREATE TABLE bridges ({COLUMNS})"
QUESTION = "Which bridges over the Danube are longer than 300?"
mine = make_ask(tuned, tokenizer, start.longest)(SCHEMA, QUESTION)

# %% [markdown]
# ## An answer is right when it returns the right thing
#
# Two queries can look different and mean the same, so answers are not compared as text. Both queries run, and what they return is compared.
# The tables are filled so that likely mistakes return something else. Here are some mistakes, made from a reference by a program:

# %%
from helpers.notebook.answers import show_mistakes

show_mistakes(handwritten[0])

# %% [markdown]
# ## Prefill and decode
#
# The first step reads the whole prompt: **prefill**. Every later step writes one more token: **decode**.
#
# Keys and values of earlier tokens never change. The **KV cache** keeps them, so a decode step computes only its own token.

# %%
from helpers.decoding.forward import eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.without_cache import greedy_without_cache
from helpers.notebook.diagrams import draw_prefill_and_decode

question, answer = ["How", " many", " ships", "?"], ["SELECT", " COUNT", "(*)", " FROM"]
picture = draw_prefill_and_decode(question, answer)

# %% [markdown]
# Taking the most probable token each time is called **greedy** decoding. Without a cache the loop is this short. It reads the whole text anew for every token:

# %%
# show: helpers.decoding.without_cache:greedy_without_cache
# %% [markdown]
# **Exercise 00.1** (20 minutes) *Why it matters: this loop, with a cache, is the heart of every inference engine. All later notebooks change it.*
#
# Write the loop with a cache: the same tokens, but no token is read twice.
#
# * `KVCache.for_model(model, capacity)` makes an empty cache with room for `capacity` tokens.
# * `model(input_ids=ids, past_key_values=cache)` reads `ids`, of shape `(1, tokens)`, after all that the cache holds, and adds them to it. Its `.logits` are `(1, tokens, vocabulary)`.
# * The answer ends after `max_new_tokens`, or with the first token that is in `eos_tokens(model)`. That token belongs to the answer.
#
# The cell after it shows one answer as the clock saw it: the package's own loop does the same and keeps a record of every step. (00b measures what the cache is worth.)
# %%
from helpers.notebook.exercises import check, hint, solution


@torch.inference_mode()
def my_greedy(model, tokens, max_new_tokens):
    return None  # your code: the ids of the tokens written, a list


# hint("00.1")  # uncomment for help; solution("00.1") shows the course's own
greedy = check("00.1", my_greedy)

# %%
from helpers.decoding.generate import generate
from helpers.notebook.step_times import show_clock
from helpers.text_to_sql.prompts import prompt_for

texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
by_your_loop = greedy(tuned, prompts[0], start.longest)
recorded = generate(tuned, tokenizer, prompts[0], max_new_tokens=start.longest)
print(recorded.text)
print("the same tokens from your loop:", by_your_loop == recorded.token_ids)
show_clock(recorded)

# %% [markdown]
# ## Why decode is slow: it reads everything to do little
#
# A step multiplies every token's vector with every weight: 2 operations for each weight. To do so it must fetch every weight from memory.
# With one token there is almost nothing to compute for all that reading. Two numbers of your machine decide what this costs:
#
# * its **bandwidth**: bytes per second from memory,
# * its **rate**: operations per second in a large matrix product (a GFLOP/s is a billion of them).

# %%
from helpers.measuring import probes
from helpers.measuring.cost_model import Shape
from helpers.notebook.step_times import show_machine

DTYPES = ("float32", "bfloat16")
device = lesson.device
bandwidth = probes.bandwidth(device=device)
rates = {d: probes.matmul_rate(models.dtype_of(d), device=device) for d in DTYPES}
half = models.load(tuned_name, dtype="bfloat16", device=device)[0]
shapes = {"float32": Shape.of(tuned), "bfloat16": Shape.of(half)}
show_machine(results, bandwidth, rates, shapes)

# %% [markdown]
# **Exercise 00.2** (3 minutes) *Why it matters: whatever comes from memory can't come faster than this. It is the floor under every later result.*
#
# Return the least time of a decode step in milliseconds, if each weight comes from memory once.


# %%
def my_least_milliseconds(weight_bytes, bandwidth):  # bytes, bytes per second
    return None  # your code


# hint("00.2")  # solution("00.2")
least = check("00.2", my_least_milliseconds)
for d in DTYPES:
    here = least(shapes[d].weight_bytes, bandwidth)
    print(f"{d}: at least {here:.1f} ms a step here")
on_gpu = least(14e9, 3.35e12)
print("7 billion weights in bfloat16 on a GPU with 3.35 TB/s:", end=" ")
print(f"at least {on_gpu:.1f} ms")

# %% [markdown]
# ## The equation of this course
#
# What a step costs that reads `num_tokens` tokens:
#
#     step(num_tokens) = overhead x layers                     starting the operations
#                      + weight bytes / bandwidth              reading the weights
#                      + 2 x num_tokens x parameters / rate    computing
#                      + KV bytes / bandwidth                  reading the cache
#
# A whole answer costs `prefill + tokens / tokens per step x step`. **Each later notebook attacks one term.**
#
# Does it hold here? We time this model, and models of other sizes with **random weights**: what they answer means nothing, what they cost is real.
# All run by the **fused step**, the fastest that the course has: the whole step as one function in C++, or in fewer operations of PyTorch where there is no compiler. The extra 00c takes it apart. The library's step of this model is timed beside it.

# %%
from helpers.notebook.start_models import fused_steps
from helpers.profiling.model_steps import time_random_shapes, time_steps

fused = fused_steps(dict(zip(DTYPES, (tuned, half))), start.turns)
timing_options = dict(context=128, rounds=sizes.rounds)
steps, memory = {}, probes.Memory(device=device)
for d, library in zip(DTYPES, (tuned, half)):
    arms = {"transformers": library, "fused": fused[d]}
    options = dict(timing_options, before=memory.read)
    steps[d] = time_steps(arms, shapes[d], start.num_tokens, **options)
options = dict(timing_options, device=device, turns=min(start.turns, 2))
others = time_random_shapes(sizes.shapes, DTYPES, start.num_tokens, **options)
points = [p for each in (steps[d]["fused"] for d in DTYPES) for p in each.points()]
points += [p for each in others for p in each.points()]
print(f"{len(points)} kinds of step timed, {sizes.rounds} times each, after 128 tokens")

# %% [markdown]
# The constants (overhead; bandwidth and rate for each dtype) are fitted to all models but one. The one left out is the test: can the equation predict a model that it never saw?
#
# Some machines read and compute at the same time. Then only the larger of the two terms counts. Both forms are fitted, and the better one is kept, **for all later notebooks**.
#
# Bandwidth and rate are fitted to whole steps here, and measured on one large array and one large product above. The two need not be equal: what no term of the formula holds ends up in its constants.
# The last line predicts, before anything of the kind is measured, how long an answer takes.

# %%
from helpers.measuring.fitted_equation import fit_better_form
from helpers.notebook.equation import draw_fit, record_equation, show_fit

fitted = fit_better_form(points, sizes.shapes[len(sizes.shapes) // 2])
equation = fitted.equation
show_fit(fitted, bandwidth, rates)
record_equation(results, fitted)
draw_fit(fitted, points)
counts = token_lengths(test[: start.half], tokenizer)
prompt_length, sql_length = (sum(each) / len(each) for each in counts)
prompt_length = round(prompt_length)
length = min(sql_length + 1, start.longest)  # and the end of the text
predicted = equation.answer(shapes["bfloat16"], "bfloat16", prompt_length, length)
results.prediction("start.answer_seconds.bf16", predicted, "s")
print(f"{prompt_length} tokens in, {length:.0f} out, bfloat16:", end=" ")
print(f"{predicted:.2f} s predicted")

# %% [markdown]
# ## More tokens in a step
#
# While a step is bound by reading, or by overhead, more tokens cost little. This curve is called the **verify cost**. It decides later whether guessing ahead pays.

# %%
from helpers.notebook.step_times import note_steps, show_verify_cost

lines = {f"{way}, {d}": steps[d][way] for d in DTYPES for way in steps[d]}
show_verify_cost(lines)
for d in DTYPES:
    note_steps(results, steps[d], memory.bandwidth)

# %% [markdown]
# ## The roofline
#
# What can this machine compute in a second, with so many tokens in a step? On the left the slanted roof is the bandwidth: each weight that is read serves few tokens. On the right the flat roof is the arithmetic. They meet at the **balance**, where computing takes as long as reading. Well below it more tokens in a step could be nearly free: batching and speculation live on that.

# %%
from helpers.notebook.step_times import show_roofline

show_roofline(steps["bfloat16"], memory.bandwidth, rates["bfloat16"])

# %% [markdown]
# ## A step's time as a bar
#
# Which terms is a step of one token made of? Here is the bfloat16 step, by the library and fused.

# %%
from helpers.notebook.step_times import read_bars, show_bars

read_bars(show_bars(equation, steps["bfloat16"]))

# %% [markdown]
# ## How to measure without fooling yourself
#
# Here is a trap. The cell below times *the same program twice*: first as most people would, one after the other, once; then in turns, with an **interval**.
#
# The interval comes from a bootstrap: draw as many prompts from those measured, with repetition, compute the ratio, and do so 2,000 times. 95 % of these ratios lie in it.
# Where it holds 1, no difference was shown.

# %%
from helpers.measuring import timing
from helpers.notebook.generate_comparison import show_same_twice
from helpers.profiling.against_generate import our_greedy

few, ours = prompts[: start.twice], our_greedy(fused["bfloat16"], start.longest)
alone = [timing.interleave({"it": ours}, few, warmup=0)["it"] for _ in range(2)]
in_turns = timing.interleave({"it": ours, "it again": ours}, few, rounds=2, warmup=0)
show_same_twice(alone, in_turns)

# %% [markdown] tags=["library"]
# ## The library that people use
#
# The rules from here on: **warm up** (the first call pays for things that later ones don't); **take turns** (noise drifts, and programs that take turns share it); **give an interval**; **change one thing**, and get the same answers.
#
# Hugging Face's `model.generate` does the same job. Three programs answer in turns: `generate` with the model as it comes; `generate` with **packed linears** (the weights stored as the kernel reads them, see 00c); our loop with the fused step, which stores weights as it reads them, too.
#
# First in float32: are the answers the same, and in what time? Then in bfloat16. There two tokens can score exactly the same, and rounding decides: answers may differ, and only prompts with equal answers are timed.

# %%
from helpers.kernels.fastest_step import packed_copy
from helpers.notebook.generate_comparison import show_identity, show_speed
from helpers.profiling.against_generate import against_generate

options = dict(max_new_tokens=start.longest, warmup=start.warmup)
packed, asked = packed_copy(tuned, start.turns), prompts[: start.identity]
in_full = against_generate(tuned, packed, fused["float32"], asked, **options)
show_identity(results, in_full)
show_speed(results, in_full, "float32")
del packed

# %%
packed, asked = packed_copy(half, start.turns), prompts[: start.half]
in_half = against_generate(half, packed, fused["bfloat16"], asked, **options)
show_speed(results, in_half, "bfloat16")
del packed

# %% [markdown] tags=["measure"]
# ## How good are the answers?
#
# Speed means nothing without this. The base answers **zero-shot**: nobody showed it an example. The fine-tuned model answers the test questions, whose schemas it never saw, and the handwritten ones, which people made up in other fields and other words.

# %%
from helpers.kernels.fastest_step import fastest_step
from helpers.notebook.answers import Judged, read_accuracy, show_accuracy

by_ours = in_full["ours, fused step"]
written = tokenizer.batch_decode(by_ours.results, skip_special_tokens=True)
of_tuned = Judged.of(test[: start.identity], written)
people, first = handwritten[: start.handwritten], test[: start.base]
of_people = Judged.by(fused["float32"], tokenizer, people, start.longest)
fused_base = fastest_step(base, start.turns)
of_base = Judged.by(fused_base, tokenizer, first, start.longest_prose)
on_people = "fine-tuned, people's questions"
accuracies = {
    ("start.base_execution_accuracy", "base, test questions"): of_base,
    ("start.fine_tuned_execution_accuracy", "fine-tuned, test questions"): of_tuned,
    ("start.handwritten_execution_accuracy", on_people): of_people,
}
show_accuracy(results, accuracies)
read_accuracy(of_base, of_tuned, of_people)

# %% [markdown]
# ## What it gets wrong
#
# How often the base writes a query at all; some of the fine-tuned model's wrong answers to people's questions; and how often it is right, by four families of queries.

# %%
from helpers.notebook.answers import show_families, show_length, show_wrong

show_length(results, of_base, tokenizer)
print()
show_wrong(of_people)
show_families(of_people, "People's questions, answered by the fine-tuned model")

# %% [markdown]
# ## What you predicted, what was measured, and what a user feels
#
# A user feels two things: the time to the first token, and the time between tokens.

# %%
from helpers.notebook.step_times import show_answer_time, show_eight_tokens

fused_by_dtype = {d: steps[d]["fused"] for d in DTYPES}
show_eight_tokens(results, fused_by_dtype, equation, GUESS_EIGHT_TOKENS)
print(f"people's questions right: your guess {GUESS_RIGHT:.0%},", end=" ")
print(f"it was {of_people.share:.0%}")
show_answer_time(results, predicted, in_half["ours, fused step"].seconds)

# %%
from helpers.notebook.generate_comparison import record_answers
from helpers.notebook.step_times import record_latency

record_latency(results, fused["bfloat16"], tokenizer, few, start.longest)
ids = [example.id for example in test[: start.identity]]
record_answers(results, ids, by_ours, written, of_tuned.right, "float32")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **Random weights cost what real ones cost**, and nothing else of them is real.
# * **A busy machine lies.** `python -m helpers check` says whether yours is calm.
# * **A time alone says nothing.** Ask which model, dtype, threads and prompts, against what, and with which interval.
#
# | you see | do |
# |---|---|
# | "There is no model ..." | take one of the names in the message |
# | "The profile gpu needs a CUDA device" | `PROFILE = "cpu"` |
# | an answer without SQL | the question was too far from what the model knows; it counts as wrong |

# %%
from helpers.notebook.step_times import show_limit

print("What limits it now:")
for d in DTYPES:
    show_limit(equation, steps[d]["fused"])

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
# (a): they wait already. (b) is what notebook 01 does, (c) what 07 and 08 do.
# </details>
#
# **The rule:** before you make something faster, find the term that it is made of, and say beforehand what you expect.
#
# **What limits it now** stands under the cell above, made from what was measured. Notebook 01 goes on with the bytes of a weight, the extra 00c with the overhead.
#
# References: Williams, Waterman, Patterson, *Roofline* (2009); Pope et al., *Efficiently Scaling Transformer Inference* (2022);
# Efron, *Bootstrap Methods* (1979); Zhong, Yu, Klein, *Semantic Evaluation for Text-to-SQL with Distilled Test Suites* (2020); Ben Allal et al., *SmolLM2* (2025).
