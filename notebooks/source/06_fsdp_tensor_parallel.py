# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       Cut for 2 ranks each holds {parallel.memory_per_rank.tensor_parallel:.0%} of the weights, by FSDP
#       {parallel.memory_per_rank.fsdp:.0%} with what it gathers, and
#       {parallel.tensor_parallel_equals_dense.count} of {parallel.tensor_parallel_equals_dense.of} answers are the whole
#       model's. A decode step against one process with all cores: {parallel.step_speedup.tensor_parallel:.2f} times as
#       fast cut, {parallel.step_speedup.fsdp:.2f} by FSDP
# ---

# %% [markdown] tags=["card"]
# # 06 · FSDP and tensor parallelism
#
# **A model doesn't fit one device, or is too slow on it. What do several devices bring, and what does it cost that they have to talk?**
#
# | | |
# |---|---|
# | previous, next | 05 continuous batching, 07 speculative decoding |
# | the term it attacks | weight bytes / bandwidth: several memories are read at once |
# | you will be able to | cut a model over devices so that it computes the same; say what tensor parallelism and FSDP send, and how often; choose between replicas, tensor parallelism and a pipeline |
# | time | 45 minutes for you without the exercises, which take 20 more; about 5 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# Everything here runs in **real processes** that send real messages, as on several machines. Only the devices are few: the processes share this machine's cores and its memory. So memory and messages are measured, and what many GPUs would do is simulated, and called so.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. Two processes hold half of each matrix. They share the cores that one process had to itself. How many times as fast is a decode step?
# 2. FSDP keeps half of the weights in each process, too. How many times as fast is its step?
#
# Both guesses are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_TENSOR: float = 0.9  # your guess: a step cut for 2 processes, times as fast
GUESS_FSDP: float = 0.5  # your guess: a step by FSDP, times as fast

# %%
import helpers
from helpers.notebook.parallel_sizes import PARALLEL

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("06_fsdp_tensor_parallel", **options)
results, sizes = lesson.results, PARALLEL[PROFILE]
results.prediction("parallel.step_speedup.tensor_parallel", GUESS_TENSOR, "x")
results.prediction("parallel.step_speedup.fsdp", GUESS_FSDP, "x")

# %% [markdown] tags=["build"]
# ## Cut a matrix
#
# A linear layer is `y = W x`. Two devices can share it in two ways:
#
# * **by rows** of W: each makes some of the outputs, from all of x. Nothing has to be added.
# * **by columns** of W: each reads some of the inputs, and has a *part of every sum*. The parts have to be added up: an **all-reduce**.
#
# **Exercise 06.1** (5 minutes) *Why it matters: this sum is all that tensor parallelism sends.*
#
# Return for each of `ranks` devices what it adds to `W x`, if it holds some columns of `weight` (out, in) and the numbers of `x` (n, in) that they read. `split_evenly(in, ranks)` gives each one's columns.

# %%
import torch

from helpers.notebook.exercises import check, hint, solution
from helpers.parallel.heads import split_evenly


def my_partial_products(x, weight, ranks):
    return None  # your code: a list of (n, out)


# hint("06.1")  # uncomment for help; solution("06.1") shows the course's own
partial_products = check("06.1", my_partial_products)
x, weight = torch.randn(2, 6), torch.randn(4, 6)
parts = partial_products(x, weight, 3)
print([tuple(part.shape) for part in parts])
print("off by", (sum(parts) - x @ weight.T).abs().max().item())

# %% [markdown]
# **Megatron-LM** (Shoeybi et al. 2019) puts the two behind each other. In the MLP `gate` and `up` are cut by rows: each rank makes some of the 1,536 numbers between. `down` is cut by columns, and reads just those. So the numbers between are never sent, and a layer needs two all-reduces: one after attention, one after the MLP.

# %%
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

# %%
# show: helpers.parallel.tensor_parallel:column_parallel

# %%
# show: helpers.parallel.tensor_parallel:RowParallel

# %% [markdown]
# ## Cut the heads
#
# Attention is cut by **heads**: one head's softmax needs all of its numbers, and nobody else's. But this model has 9 query heads and 3 key-value heads, and three query heads each share one (00b).
#
# Three ranks share them evenly. With two or four a key-value head is needed twice. Then both ranks keep it.
#
# **Exercise 06.2** (10 minutes) *Why it matters: "shard over heads" is an option of every serving engine, and the reason why some numbers of devices are refused.*
#
# A rank computes the query heads `heads`, neighbours. `group` query heads share a key-value head. Return two lists: the key-value heads that it has to keep, in order; and for each of its heads the place of its own among these.


# %%
def my_keys_of(heads, group):
    return None  # your code: kept, places


# hint("06.2")  # solution("06.2")
keys_of = check("06.2", my_keys_of)
print(keys_of(range(5), 3), keys_of(range(5, 9), 3))

# %%
from helpers.notebook.parallel_charts import draw_heads

draw_heads(9, 3, (2, 3, 4))

# %% [markdown]
# ## Processes
#
# `on_ranks` starts processes as `torchrun` does, and they meet in a **process group**. Each has a number, its **rank**. What one of them prints is shown behind its rank.

# %%
from helpers.parallel import runs
from helpers.parallel.ranks import RankError, on_ranks

on_ranks(runs.hello, 3)

# %% [markdown]
# What if one of them dies while the others wait for it? Here rank 1 is killed. The others are ended, and you get a sentence, not a cell that hangs.

# %%
try:
    on_ranks(runs.lose_one, 2, {"rank": 1})
except RankError as error:
    print(error)

# %% [markdown]
# ## What is sent
#
# **Exercise 06.3** (5 minutes) *Why it matters: these bytes, times the tokens, have to go through the link between your devices.*
#
# How many bytes do the all-reduces of a decode step add up, for one token? Each of `layers` layers has two, and the embedding one more (each rank looks up its own part of the vocabulary). Each takes a vector of `hidden` numbers.


# %%
def my_bytes_reduced(layers, hidden, bytes_per_number):
    return None  # your code


# hint("06.3")  # solution("06.3")
bytes_reduced = check("06.3", my_bytes_reduced)
print(f"30 layers, 576 numbers of 4 bytes: {bytes_reduced(30, 576, 4):,} bytes")

# %% [markdown] tags=["library"]
# ## As libraries do it
#
# PyTorch's **DTensor** takes a plan: `q_proj` by rows, `o_proj` by columns, and so on. It cuts evenly, which would go through the middle of a head here, unless the ranks divide the heads. **vLLM** has a parameter, `tensor_parallel_size`. What do both say to 2 ranks?

# %%
from helpers.notebook.parallel_bench import ParallelBench, compare_library

bench = ParallelBench.of(lesson, sizes)
compare_library(results, bench)

# %% [markdown] tags=["measure"]
# ## The same function?
#
# The model cut by our own code, on all numbers of ranks, against the whole one in float32: the largest difference of any logit, greedy answers token for token, and the memory of the rank that holds the most.

# %%
from helpers.notebook.parallel_bench import compare_cuts

cuts = compare_cuts(results, bench)

# %% [markdown]
# ## FSDP: store a part, gather the whole
#
# **Fully sharded data parallelism** (ZeRO, Rajbhandari et al. 2020) cuts only what is *stored*. When a layer is called, all ranks send each other their parts (an **all-gather**), compute with the whole layer, and give it up again. Each rank has texts of its own.
#
# What is gathered at once has to fit, too. The largest module of this model is its embedding: a fifth of all weights. In pieces it needs less.

# %%
from helpers.notebook.parallel_bench import compare_fsdp

sharded = compare_fsdp(results, bench)

# %% [markdown]
# It is made for training: gradients are summed where they are stored (a **reduce-scatter**), and an optimizer's state is cut, too.

# %%
from helpers.notebook.parallel_bench import compare_training

compare_training(results, bench)

# %% [markdown]
# ## Bytes a token
#
# Tensor parallelism sends a few vectors for each token. FSDP sends the weights. Both are counted where they are sent, beside the formula.

# %%
from helpers.notebook.parallel_bench import compare_bytes

compare_bytes(results, bench, cuts[2], sharded["fsdp"])

# %% [markdown]
# So FSDP makes a model fit, and doesn't make a token come sooner. It pays where one gathering serves many tokens: in training, or for the prefill of large batches.
#
# ## A step's time
#
# Random weights of a larger shape, float32. One process with all cores, against two processes with half of them each.

# %%
from helpers.notebook.parallel_bench import WORDS, time_steps
from helpers.notebook.parallel_charts import draw_steps

seconds = time_steps(results, bench)
print(f"You guessed {GUESS_TENSOR:g} and {GUESS_FSDP:g}.")
draw_steps(seconds, WORDS, sizes.shape)

# %% [markdown]
# Here both processes read the same memory, so nothing can be gained: what is lost is the price of talking. On two GPUs each reads its half from its own memory.
#
# What does a message cost? A short one takes as long as the way there, a long one as long as its bytes. Two constants, fitted to all-reduces of many sizes:

# %%
from helpers.notebook.parallel_bench import explain_step, fit_messages
from helpers.notebook.parallel_charts import draw_messages

link, times = fit_messages(results, bench)
draw_messages(times, link)
explain_step(results, bench, link, seconds)

# %% [markdown]
# ## Many devices: a simulation
#
# With such constants one can ask what nobody has here: GPUs. The numbers below are a GPU maker's, typed in: 80 GB, 3.35 TB/s, 989 TFLOP/s, 8 in a node, 450 GB/s between these, and 50 GB/s between nodes. Latencies are guesses of the right size. **Nothing of this is measured.** It says which way is better, not how fast it is.
#
# * **Replicas**: each device has the whole model, and users of its own.
# * **Tensor parallelism**: all devices do each step together.
# * **Pipeline**: each device has some of the layers; groups of users follow each other.

# %%
from helpers.notebook.parallel_charts import draw_simulation, read_simulation, simulate
from helpers.parallel.layouts import Device, Served
from helpers.parallel.links import Link

inside, between = Link(1e-6, 450e9), Link(5e-6, 50e9)
gpu = Device(80e9, 3.35e12, 989e12, 8, inside, between)
model = Served(70e9, 80, 8192, 2, 327_680)  # a Llama of 70 billion weights, bfloat16
COUNTS = (1, 2, 4, 8, 16, 32, 64)
found = simulate(model, gpu, COUNTS, users_each=8, context=2000)
draw_simulation(found, "70 billion weights: a token's time")
read_simulation(found, longest=0.05)

# %%
small = Served(8e9, 32, 4096, 2, 131_072)  # 8 billion
found = simulate(small, gpu, COUNTS, users_each=8, context=2000)
draw_simulation(found, "8 billion weights: a token's time")
read_simulation(found, longest=0.02)
results.write()
results.assert_invariants()

# %% [markdown]
# ## From one machine to many
#
# Nobody writes this by hand for many machines. The engine and the launcher are the same as on one, with an address to meet at:
#
#     # vLLM: on each machine `ray start`, then on one of them
#     vllm serve MODEL --tensor-parallel-size 8 --pipeline-parallel-size 2
#
#     # training by FSDP: on each of 2 machines
#     torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 train.py

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **The model fits.** Then replicas serve more users: they don't talk at all.
# * **A slow link.** Two all-reduces a layer wait for each other. Between machines a pipeline sends less.
# * **More ranks than key-value heads.** Each of them keeps a copy, and the cache isn't cut any further.
# * **FSDP for single tokens.** All weights go through the link for each step.
#
# | you see | do |
# |---|---|
# | "heads can't be shared out among" | fewer ranks; or replicas of a group of ranks |
# | "Total number of attention heads ... must be divisible" | a number of ranks that divides the heads |
# | "Rank 1 of 2 stopped" | read that rank's error; the others only waited |
# | it hangs on several machines | the address, the firewall, and whether all call the same collectives in the same order |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** 8 billion weights in bfloat16, eight GPUs of 80 GB, many users. (a) tensor parallelism over all eight (b) eight replicas (c) FSDP
#
# <details><summary>Answer</summary>
#
# (b): it fits each of them, and replicas send nothing. (a) makes each user's tokens come sooner, at the price of tokens per second in all. (c) would send all weights for every token.
# </details>
#
# **2.** 9 heads, 3 key-value heads, 4 ranks. How many key-value heads are kept in all? (a) 3 (b) 5 (c) 12
#
# <details><summary>Answer</summary>
#
# (b): the ranks need 1, 1, 2 and 1 of them, as the figure shows. (a) would be the whole model's, each once. (c) is all of them everywhere, which is more than any rank's heads read.
# </details>
#
# **3.** A decode step by FSDP on two ranks gathers all weights. Why is it used for training all the same? (a) training has more ranks (b) one gathering serves thousands of tokens (c) gradients are smaller than weights
#
# <details><summary>Answer</summary>
#
# (b): the weights are sent once for a whole batch of texts, and computing with these takes longer than sending. (a) doesn't change what is sent for each token. (c) is wrong: there are as many of them.
# </details>
#
# **The rule:** replicas while it fits; tensor parallelism inside a node when it doesn't, or when a token must come sooner; a pipeline between nodes; FSDP for training.
#
# **What limits it now:** on several devices a step still writes one token for each user. 07 and 08 write several.
#
# References: Shoeybi et al., *Megatron-LM* (2019); Rajbhandari et al., *ZeRO* (2020); Zhao et al., *PyTorch FSDP* (2023);
# Thakur et al., *Optimization of Collective Communication Operations in MPICH* (2005).
