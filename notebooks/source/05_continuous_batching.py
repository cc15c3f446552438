# ---
# jupyter:
#   course:
#     minutes: 16
#     headline: >-
#       One trace of requests, all at once: continuous batching writes {batching.continuous_vs_static:.2f} times as many
#       tokens a second as static batches of their best size on the same step. Whole engines, ours with its step in C++:
#       {batching.vs_hf_generate_batch:.2f} times transformers' continuous batching, {batching.vs_vllm:.2f} times vLLM,
#       compiled. Blocks leave
#       {batching.kv_waste.paged:.0%} of the KV memory unused, static batches {batching.kv_waste.static:.0%}. Guesses
#       bring {batching.speculation_gain.1:.2f} times with one user, {batching.speculation_gain.16:.2f} with sixteen
# ---

# %% [markdown] tags=["card"]
# # 05 · Continuous batching
#
# **Many people ask at once. How does one model serve them all, and how much faster than one after the other?**
#
# | | |
# |---|---|
# | previous, next | 04 pruning, 07 speculative decoding (06 several devices: planned) |
# | the term it attacks | weight bytes / bandwidth, shared by everybody who reads them |
# | you will be able to | say why static batches idle, and compute by how much; write a scheduler's budget and a block table; say what chunked prefill trades; tell when speculation stops paying |
# | time | 45 minutes for you without the exercises, which take 35 more; about 16 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# A decode step reads all weights for a single token. If ten people wait for a token, the same reading can serve all ten. So one should **batch**. But answers are of unlike lengths, and people come when they like.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. Requests with answers of very unlike lengths, in batches of the best size. A batch lasts until its longest answer is done. If each slot of the batch is filled again at once instead, how many times as many tokens a second?
# 2. **Speculation** (07): something cheap proposes the next tokens, and one step of the model checks several at once. That makes a single user's answers faster. With 16 users at a time and four proposed tokens for each: how many times as many tokens a second as without?
#
# Both predictions are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_CONTINUOUS: float = 2.0  # your guess: continuous over static, tokens a second
GUESS_SPECULATION_16: float = 1.3  # your guess: with speculation over without, 16 users
BUDGET: int = 256  # tokens that a step reads at most

# %%
import helpers
from helpers.notebook.batching_sizes import BATCHING

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("05_continuous_batching", **options)
results, sizes = lesson.results, BATCHING[PROFILE]
results.prediction("batching.continuous_vs_static", GUESS_CONTINUOUS, "x")
results.prediction("batching.speculation_gain.16", GUESS_SPECULATION_16, "x")

# %% [markdown] tags=["build"]
# ## A batch is as slow as its longest answer
#
# **Static batching** is what `model.generate` does with a list of prompts: all begin together, and the batch ends when the longest answer does. Who is done earlier keeps his **slot** until then, and nobody new may come in.
#
# **Continuous batching** (Orca, Yu et al. 2022) decides anew at *each step* who is in the batch (iteration-level scheduling). An answer that ends leaves at once, and the next request takes its slot.
#
# How much that brings can be counted with no model at all. Answers of 2, 9, 1 and 4 tokens, two at a time: static batches take 9 + 4 steps.
#
# **Exercise 05.1** (10 minutes) *Why it matters: this count is the prediction that we measure below.*
#
# Return how many steps it takes to write answers of `lengths` (in order) with `batch_size` slots, if each answer begins as soon as a slot is free. Prompts cost nothing here.

# %%
from helpers.engine.steps_needed import static_steps
from helpers.notebook.exercises import check, hint, solution


def my_continuous_steps(lengths, batch_size):
    return None  # your code


# hint("05.1")  # uncomment for help; solution("05.1") shows the course's own
continuous_steps = check("05.1", my_continuous_steps)
print("static:", static_steps([2, 9, 1, 4], 2), "steps,", end=" ")
print("continuous:", continuous_steps([2, 9, 1, 4], 2))

# %% [markdown]
# ## The trace
#
# Every engine below gets the same requests: questions of the test split, and answers whose lengths have a **heavy tail**: most are short, a few are ten times as long. The end-of-sequence token is ignored, so that all engines do the same work. A few prompts are long.
#
# The trace also says when each request comes: at random, independently of the others (**Poisson** arrivals). That counts only further below. At first all requests are there at once.

# %%
from helpers.notebook.batching_bench import BatchingBench
from helpers.notebook.batching_charts import draw_trace

bench = BatchingBench.of(lesson, sizes, BUDGET)
at_once = bench.requests()
lengths = [request.num_tokens for request in at_once]
draw_trace(at_once)
promised = static_steps(lengths, sizes.seats) / continuous_steps(lengths, sizes.seats)
results.prediction("batching.continuous_vs_static.steps", promised, "x")
print(f"By counting steps alone, {sizes.seats} slots: {promised:.2f} times")

# %% [markdown]
# ## Where keys and values live
#
# If each slot's memory is set aside in one piece, it has to be as long as the text may become, and most of it stays empty. (Below we are kind: our static batch knows its longest answer beforehand. Real ones reserved the maximum.) **PagedAttention** (vLLM, Kwon et al. 2023) cuts the memory into **blocks** of 16 tokens. A sequence has a **block table**, the list of its blocks, and gets a new one only when the last is full.
#
# **Exercise 05.2** (5 minutes) *Why it matters: this is the address computation that every step does for every token.*
#
# `places` are positions in a sequence (0 is its first token). Return for each of them a pair: the block where that token lies, and its offset in the block. `blocks` is the block table.


# %%
def my_locate(places, blocks, block_size):
    return None  # your code: a list of pairs


# hint("05.2")  # solution("05.2")
locate = check("05.2", my_locate)
print(locate([0, 15, 16, 40], [7, 2, 9], 16))

# %% [markdown]
# Blocks bring a second thing. Two prompts that begin alike have the same keys and values there, so a full block can be **shared** (prefix caching). The pool finds it by the block before it and the tokens in it. A block without users stays until its memory is needed.
#
# This is how a new sequence begins with the blocks that are there already. At least the prompt's last token is always read: its logits are needed, and they are not in the cache.

# %%
from helpers.notebook.source import source_of

print(source_of("helpers.engine.paged_cache", "PagedCache.share_prefix"))

# %% [markdown]
# A tiny model with blocks of 4 tokens. The second prompt begins as the first one does:

# %%
from helpers.engine.engine import Engine
from helpers.notebook.batching_bench import tiny_model

small = Engine(tiny_model(), num_blocks=8, block_size=4)
small.add([5, 17, 60, 8, 33, 9], max_new_tokens=6)
small.step()
small.add([5, 17, 60, 8, 40], max_new_tokens=6)
small.step()
print("block tables:", list(small.cache.blocks.values()))
print("users of each block:", small.cache.pool.users)

# %% [markdown]
# The first block is in both tables, and has two users: its four tokens are stored once.

# %% [markdown]
# ## Who reads what
#
# A step mixes those who **decode** (a token each) with parts of prompts in **prefill**. It costs the reading of the weights and, from some number of tokens on, arithmetic for each token. So it has a **budget** of tokens. Those who decode go first: their users would wait between tokens otherwise. What is left is for prompts, and a long one is read in **chunks** (Sarathi-Serve, Agrawal et al. 2024).
#
# So whoever decodes gets a token in every step (unless he is preempted, below), and no step reads more than `BUDGET` tokens. The price: a long prompt's own first token comes no sooner, and each of its chunks reads the keys of the chunks before it again.
#
# And whose prompt first, of those that have a slot? (The queue for slots is first come, first served.) If the oldest takes everything, a short question waits behind a long document. If the shortest always goes first, the long one may never be read. So here half is the oldest one's, and the shortest ones share the rest.
#
# **Exercise 05.3** (20 minutes) *Why it matters: these ten lines decide how long people wait for their first token.*
#
# Return how many tokens of each prompt to read, a list like `unread`: the tokens that are left of each prompt, the oldest first. `budget` is what decoding has left for prompts.
#
# * First the oldest gets what it needs, but at most half of the budget (rounded up).
# * Then go through all prompts in the order of their `unread`, the smallest first (of equal ones the older). Each gets what it still needs, as far as the budget goes. (The oldest is among them, so nothing is wasted.)


# %%
def my_divide(unread, budget):
    return None  # your code


# hint("05.3")  # solution("05.3")
divide = check("05.3", my_divide)
print(divide([1000, 40, 90], 256))

# %% [markdown]
# That is nearly all. The scheduler also lets requests in while there is room for their prompts. And when blocks run out it **preempts**: the last that came loses its blocks, goes back to the head of the queue, and is read again later. What it had written is not lost.

# %%
print(source_of("helpers.engine.scheduler", "Scheduler._admit"))
print()
print(source_of("helpers.engine.scheduler", "Scheduler._preempt"))

# %% [markdown]
# And the engine's step. A **feed** is what a sequence reads in this step: its last token, guesses behind it, or a chunk of its prompt. `take` compares guesses with the model's answers, and `keep` leaves only the accepted ones in the cache.

# %%
print(source_of("helpers.engine.engine", "Engine.step"))

# %% [markdown] tags=["library"]
# ## The engines that people use
#
# The same model and the first requests of the trace, all there at once, with the same number of slots for everybody: transformers' `generate` on padded batches, transformers' own continuous batching, vLLM on this CPU with `torch.compile` and without ("eager"), and llama.cpp's server on 16 bits (BF16) and on 8 (Q8_0). Our own engine, on 16 bits, runs before and after each of them.
#
# They don't have the same code inside a step: ours computes it in C++ (00c), transformers in plain PyTorch. So these ratios compare whole engines, and only the next section shows what batching does. `generate` gets fewer requests, since it takes minutes for a batch: compare it with the number beside it. p50, p90, p99: half, one in ten, one in a hundred wait longer. With so few requests p99 is nearly the worst.

# %%
from helpers.notebook.batching_engines import compare_engines

engines = compare_engines(results, bench, at_once)

# %% [markdown] tags=["measure"]
# ## Static against continuous
#
# Now our engine by itself. The same step, the same requests, all there at once. Static batches of several sizes first: the best of them is the opponent.

# %%
from helpers.notebook.batching_bench import compare_batching, note_gain, show_replays
from helpers.notebook.batching_charts import draw_timeline

runs, servers = compare_batching(bench, at_once)
show_replays(results, runs)
gain = note_gain(results, "continuous_vs_static", runs["static"], runs["continuous"])
print(gain)
print(f"Counting steps promised {promised:.2f}; you guessed {GUESS_CONTINUOUS:g}.")
draw_timeline({name: server.spans for name, server in servers.items()})

# %% [markdown]
# Each bar is a request, in its slot. White is idle. In the static batch such a slot is computed all the same, for nothing. In the continuous one it costs nothing, but brings nothing either: at the end the queue is empty, and the longest answers run alone. The longer the trace, the less that counts.
#
# Why isn't the measurement what the steps promised? Our steps get shorter as slots empty, while a static batch computes all of its rows to the end: that raises the ratio. Prompts cost both the same: that lowers it. And if the best static batch isn't of the size above, the promise was about another opponent. (A static batch hands its answers out when all are done. So its first tokens come with the last ones.)
#
# And the memory? For the static batch it is counted: rows as long as its longest prompt and its longest answer. (Underneath it runs on blocks.)

# %%
from helpers.notebook.batching_bench import bytes_per_token_of, show_memory
from helpers.notebook.batching_charts import draw_memory

show_memory(results, bench, servers["static"], servers["continuous"])
steps = {name: server.occupancy for name, server in servers.items()}
draw_memory(steps, bytes_per_token_of(bench))

# %% [markdown]
# Prompts of this course begin alike: the same instruction, and one of a few schemas. What does it bring to read that only once?

# %%
from helpers.notebook.batching_bench import compare_sharing

compare_sharing(results, bench, at_once)

# %% [markdown]
# ## Insert, or compute anew?
#
# Before engines could insert a new row beside the others, some built the batch afresh whenever somebody came in, and computed everybody's keys and values again. (AWS's container for NeuronX offered both, and published a third more throughput for inserting.) Here answers are short, so somebody comes in often: that is the worst case for computing anew.

# %%
from helpers.engine.servers import Continuous, RecomputingScheduler
from helpers.notebook.batching_bench import replays

ways = {
    "computed anew": lambda: Continuous(bench.engine(scheduler=RecomputingScheduler)),
    "inserted": lambda: Continuous(bench.engine()),
}
rows, _ = replays(ways, at_once, sizes.runs)
both = rows["computed anew"], rows["inserted"]
gain = note_gain(results, "insert_vs_recompute", *both)
print("inserting rows against computing them anew:", gain)

# %% [markdown]
# ## Chunks, and how long people wait
#
# Now requests come one by one, when the trace says. Three ways: whole prompts in one step, whoever comes first; chunks, of the oldest prompt first; chunks, shared out as above. What matters is the **time to the first token** and the **time between tokens**, above all for the unlucky ones (p90, p99, and the longest pause). Tokens a second mean little here: people come slowly, and the last long answer runs alone.

# %%
from helpers.notebook.batching_bench import compare_chunks
from helpers.notebook.batching_charts import draw_waiting

waiting = compare_chunks(results, bench, runs["continuous"])
show_replays(results, waiting)
draw_waiting(waiting)

# %% [markdown]
# Compare the three. Chunks alone hardly change the time to the first token: a long prompt has to be read in any case. What shortens it for most is the sharing, by which short prompts pass long ones; and those wait longer for it. Between tokens, a whole prompt stops everybody for one long pause. In chunks the same work is spread over several steps: the longest pause gets shorter, but more of the steps are slow ones, which p99 can see.

# %% [markdown]
# ## More users, the same machine
#
# Now 1, 2, 4 users and so on, each of whom asks again as soon as the answer is there (a closed loop).

# %%
from helpers.notebook.batching_bench import by_users
from helpers.notebook.batching_charts import draw_users

concurrent = by_users(results, bench)
draw_users(concurrent)

# %% [markdown]
# So that is the answer to the question at the top: 16 at once are some times faster than one after the other, but far from 16 times. With a few users the weights are shared. Then this CPU computes, and more users mostly make everybody slower. A GPU, which computes much more for each byte that it reads, gets there with many more users.

# %% [markdown]
# ## Speculation in a batch
#
# Guesses (07, 08) are tokens that a step reads in the hope that they are right. With one user they are nearly free, because the step waits for the weights. With many users the step computes, and each guess costs. Each sequence accepts its own number of guesses. Here a guess is copied: the longest earlier place where the same last tokens stood, in the prompt, the answer or the training split's answers, and what followed there; at most four tokens, or at most two. (Unlike in the trace the end of sequence counts here: past it nobody would guess.)

# %%
from helpers.notebook.batching_charts import draw_gains
from helpers.notebook.batching_speculation import compare_guessing, read_crossing

gains = compare_guessing(results, bench)
draw_gains(gains)
read_crossing(gains, GUESS_SPECULATION_16)

# %% [markdown]
# ## The same tokens
#
# Whatever joins, leaves, is preempted, shared, guessed or cancelled: everybody must get the tokens that he gets alone. The trace in float32, and random schedules of everything on a tiny model in float64. (In bfloat16, in which the times above are measured, a near tie may fall either way.)

# %%
from helpers.notebook.batching_bench import check_identity, tiny_model

check_identity(results, bench, tiny_model())
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **One user.** There is nobody to share the reading of weights with. Then guesses are the better idea.
# * **Latency.** In a batch each step takes longer, so each user's tokens come more slowly than alone.
# * **Answers of equal length.** Static batches don't idle then, and need no scheduler.
# * **Long texts.** Keys and values are nobody else's: reading them isn't shared, and with long texts they can be more than the weights.
#
# | you see | do |
# |---|---|
# | "The request may become ... tokens long" | fewer new tokens, or more blocks |
# | "All blocks of the cache are in use" | the engine preempts by itself; in your own loop, free a sequence |
# | many preemptions | more blocks, or fewer sequences at a time |
# | tokens stutter while long prompts come in | a smaller budget |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Your users all ask for exactly 100 tokens, and come in groups of 16. What does continuous batching bring? (a) twice the tokens a second (b) next to nothing (c) it is slower
#
# <details><summary>Answer</summary>
#
# (b): no slot is idle when all end together. (a) needs answers of unlike lengths. (c) the scheduler's work is small beside a step.
# </details>
#
# **2.** A step may read 256 tokens, and 15 of 16 slots decode. A prompt of 2,000 tokens comes. How many steps until its first token? (a) 1 (b) 9 (c) 2,000
#
# <details><summary>Answer</summary>
#
# (b): 241 tokens of it fit beside the 15 others, and 2,000 / 241 is a bit more than 8. (a) would make all others wait for a long step. (c) prompts are read in parts, not token by token.
# </details>
#
# **3.** Speculation brings 1.5 times with one user, and your server has 16 at a time on a CPU. (a) keep it, it still brings 1.5 (b) measure, and take fewer guesses, or none, from some number of users on (c) it never pays in a batch
#
# <details><summary>Answer</summary>
#
# (b): with many users steps compute, and every wrong guess has its price. (a) forgets that price. (c) forgets that with few users a step still waits for the weights.
# </details>
#
# **The rule:** batch continuously, keep the cache in blocks, give steps a budget; choose the number of users by the latency that you can offer.
#
# **What limits it now:** arithmetic, which more users don't share (int8 computes faster: 02), and KV bytes for long texts (10). Several devices are 06.
#
# References: Yu et al., *Orca* (2022); Kwon et al., *Efficient Memory Management for LLM Serving with PagedAttention* (2023);
# Agrawal et al., *Sarathi-Serve* (2024).
