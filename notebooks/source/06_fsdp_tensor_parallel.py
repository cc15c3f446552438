# ---
# jupyter:
#   course:
#     minutes: 9
#     headline: >-
#       Cut for 2 ranks each holds {parallel.memory_per_rank.tensor_parallel:.0%} of the weights, by FSDP
#       {parallel.memory_per_rank.fsdp:.0%} with what it gathers (the vocabulary in pieces), and
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
# | previous, next | 05 continuous batching, 07 speculative decoding; 06b takes collectives apart |
# | the term it attacks | weight bytes / bandwidth: several memories are read at once |
# | you will be able to | cut a model over devices so that it computes the same; say what tensor parallelism and FSDP send, and how often; choose between replicas, tensor parallelism and a pipeline |
# | time | 45 minutes for you without the exercises, which take 25 more; about 9 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# Everything here runs in **real processes** that send real messages, here over the loopback interface. Only the devices are few: the processes share this machine's cores and its memory. So memory and messages are measured, and what many GPUs would do is simulated, and called so.
#
# A process that computes its part is called a **rank**. (Not LoRA's rank of 03.) **Tensor parallelism**: ranks share each matrix, and compute every token together. **Data parallelism**: each has the whole model, and texts of its own. **To shard** is to store a part on each. A **collective** is an exchange that all ranks call together. A **node** is one machine, with several devices.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. Two processes hold half of each matrix. They share the cores that one process had to itself. How many times as fast is a decode step?
# 2. FSDP also stores half of the weights in each process. But before a layer computes, both send each other the half that is missing. How many times as fast is its step?
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
# * **by columns** of W: each reads some of the inputs, and has a *part of every sum*. The parts have to be added up, and every device needs the sum: an **all-reduce**.
#
# **Exercise 06.1** (5 minutes) *Why it matters: these sums are what every layer sends.*
#
# `x` (n, in) has a token in each row, and the layer is `x @ weight.T` with `weight` (out, in). Give each of `ranks` devices some columns of `weight` and the columns of `x` that go with them. Return the list of their products, (n, out) each, whose sum is `x @ weight.T`. `split_evenly(in, ranks)` gives each one's columns: `split_evenly(6, 3)` is `[range(0, 2), range(2, 4), range(4, 6)]`.

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
# **Megatron-LM** (Shoeybi et al. 2019) uses one after the other. In the MLP `gate` and `up` are cut by rows: each rank makes some of the numbers between, and these are finished. So it can go on with `silu(gate) * up`, which of a part of a sum would be no part of the result. `down` is cut by columns, and reads just the numbers that the rank has. Nothing between is sent, and a layer needs two all-reduces: one after attention, one after the MLP.
#
# Megatron writes `y = x A`, where `A` is W transposed. So rows of W are columns of A: the first cut is called **column-parallel**, and the second **row-parallel**. PyTorch keeps these names.

# %%
from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

# %%
# show: helpers.parallel.tensor_parallel:column_parallel

# %%
# show: helpers.parallel.tensor_parallel:RowParallel

# %% [markdown]
# ## Cut the heads
#
# Attention is cut by **heads**: a head's softmax needs all of its own numbers, and nobody else's. `q_proj`, `k_proj` and `v_proj` are cut by rows, so each rank makes its own heads. `o_proj` is cut by columns: its all-reduce is the one after attention. And each rank keeps the KV cache of its own heads.
#
# But this model has 9 query heads and 3 key-value heads, and three query heads each share one (00b).
#
# Three ranks share them evenly. With two or four some key-value heads are needed by two ranks. Then both keep them.
#
# **Exercise 06.2** (10 minutes) *Why it matters: "shard over heads" is an option of every serving engine, and the reason why some numbers of devices are refused.*
#
# A rank computes the consecutive query heads `heads`. Query head h reads key-value head `h // group`. Return two lists: the key-value heads that the rank has to keep, in order; and for each of its query heads the index of its key-value head in that first list.


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
# Larger models have numbers that come out even. With 8 heads and 4 key-value heads, 2 and 4 ranks share them with no copy; 8 ranks have a head each, and keep each key-value head twice.

# %%
draw_heads(8, 4, (2, 4, 8))

# %% [markdown]
# ## Processes
#
# `on_ranks` starts processes as `torchrun` does, and they meet in a **process group**. All of them run the same function. This one adds up 1, 10 and 100:

# %%
import os

from helpers.parallel import runs
from helpers.parallel.ranks import RankError, on_ranks
from helpers.parallel.runs import device

# %%
# show: helpers.parallel.runs:hello

# %%
sums = on_ranks(runs.hello, 3)

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
# **Exercise 06.3** (5 minutes) *Why it matters: these sums cross the link between your devices for each token. (On n ranks each sends 2 (n - 1) / n times as many bytes: 06b.)*
#
# How many bytes go through all-reduces in a decode step, for one token? Each of `layers` layers has two of them, and the embedding one more (each rank looks up its own part of the vocabulary). Each takes a vector of `hidden` numbers.


# %%
def my_bytes_reduced(layers, hidden, bytes_per_number):
    return None  # your code


# hint("06.3")  # solution("06.3")
bytes_reduced = check("06.3", my_bytes_reduced)
print(f"30 layers, 576 numbers of 4 bytes: {bytes_reduced(30, 576, 4):,} bytes")

# %% [markdown]
# Once more something is sent at the end of a step: each rank has the logits of its part of the vocabulary, and an **all-gather** puts them side by side. In this model, whose vocabulary is large for its size, these are more bytes than all the all-reduces have.
#
# ## FSDP: store a part, gather the whole
#
# **Fully sharded data parallelism** (ZeRO, Rajbhandari et al. 2020) cuts only what is *stored*. When a layer is called, the ranks send each other their parts (an all-gather), compute with the whole layer, and give it up again. Each rank has texts of its own.
#
# It is made for training. Plain data parallelism keeps everything on each device: a weight, its gradient and Adam's two moments, 16 bytes a parameter in float32. ZeRO shards the moments (stage 1), the gradients, too (2), and the weights as well (3, which is FSDP).
#
# **Exercise 06.4** (5 minutes) *Why it matters: a model whose weights and training state don't fit can't be trained. (Activations and gathered layers come on top.)*
#
# Return the bytes that one of `ranks` devices stores for weights, gradients and Adam's moments, all in float32, with so many `parameters`, at `stage` 0, 1, 2 or 3.


# %%
def my_training_bytes(parameters, ranks, stage):
    return None  # your code


# hint("06.4")  # solution("06.4")
training_bytes = check("06.4", my_training_bytes)
for stage in range(4):
    gigabytes = training_bytes(7e9, 8, stage) / 1e9
    print(f"7 billion on 8, stage {stage}: {gigabytes:5.1f} GB each")

# %% [markdown]
# In PyTorch it is a call for each module that is to be gathered as a whole. The largest of them has to fit beside the rest, and in this model that is the embedding: a fifth of all weights. In pieces it needs less.

# %%
from helpers.notebook.source import source_of

print(source_of("helpers.parallel.fsdp", "shard_fully"))

# %% [markdown] tags=["library"]
# ## Tensor parallelism as libraries do it
#
# PyTorch's **DTensor** takes a plan by names: `q_proj` column-parallel, `o_proj` row-parallel, and so on. It cuts evenly, whatever a head is. **vLLM** has a parameter, `tensor_parallel_size`. What comes out on 2, 3 and 4 ranks? The table shows the largest difference of any logit from the whole model's (sums in another order differ in the last bits), greedy answers that are the same tokens, the weights of the rank that holds the most as a share of the whole, and the bytes that collectives reduce or gather for a token: those of the whole tensors, of which each of 2 ranks sends half when they are gathered.

# %%
from helpers.notebook.parallel_bench import (
    ParallelBench,
    compare_library,
    predict_bytes,
)

bench = ParallelBench.of(lesson, sizes)
predict_bytes(results, bench)
compare_library(results, bench)

# %% [markdown]
# Where the ranks don't divide the heads DTensor stops at a shape: a rank's part of `q_proj` is no whole number of heads of 64, so the cut goes through the middle of one.

# %% [markdown] tags=["measure"]
# ## The same function?
#
# The model cut by our own code, against the whole one in float32. Heads that don't come out even are no obstacle.

# %%
from helpers.notebook.parallel_bench import compare_cuts

cuts = compare_cuts(results, bench)

# %% [markdown]
# FSDP on two ranks. Its memory is what a rank stores, and the most that is gathered beside it.

# %%
from helpers.notebook.parallel_bench import compare_fsdp

sharded = compare_fsdp(results, bench)

# %% [markdown]
# In pieces the vocabulary takes less memory, but it is gathered twice: to look up tokens, and for the logits. (Buffers that are sent aren't counted.)
#
# Some steps of training (by SGD, which keeps no moments), beside one process with the same texts. Weights are gathered for the forward pass and again for the backward pass. Gradients are summed up where they are stored: a **reduce-scatter**.

# %%
from helpers.notebook.parallel_bench import compare_training

compare_training(results, bench)

# %% [markdown]
# ## Bytes a token
#
# Tensor parallelism reduces two short vectors in each layer for a token, and gathers logits. FSDP gathers the weights. Both are counted where collectives are called, beside the formula.

# %%
from helpers.notebook.parallel_bench import compare_bytes

compare_bytes(results, cuts[2], sharded["fsdp"])

# %% [markdown]
# So FSDP makes a model fit, and doesn't make a token come sooner. It pays where one gathering serves many tokens: in training, or for the prefill of large batches.
#
# ## A step's time
#
# Random weights of a larger shape, float32. One process with all threads, against two with half of them each (but one at least).

# %%
from helpers.notebook.parallel_bench import WORDS, time_steps
from helpers.notebook.parallel_charts import draw_steps

seconds = time_steps(results, bench)
print(f"You guessed {GUESS_TENSOR:g} and {GUESS_FSDP:g}.")
draw_steps(seconds, WORDS, sizes.shape)

# %% [markdown]
# Here both processes read the same memory with the same cores. On two GPUs each reads its half from its own memory. (And by FSDP each rank could write a text of its own in that step: two tokens, not one.)
#
# What does talking cost? A message of `b` bytes takes `latency + b / bandwidth`, and an all-reduce is a few messages (06b). The two constants, fitted to all-reduces of many sizes:

# %%
from helpers.notebook.parallel_bench import explain_step, fit_messages
from helpers.notebook.parallel_charts import draw_messages

link, times = fit_messages(results, bench)
draw_messages(times, link)
explain_step(results, bench, link, seconds)

# %% [markdown]
# ## Many devices: a simulation
#
# With such constants one can ask what nobody has here: GPUs. The numbers in the next cell are a GPU maker's, typed in; latencies are guesses of the right size. **Nothing of this is measured.** It says which way is better, not how fast it is.
#
# * **Replicas**: each device has the whole model, and users of its own.
# * **Tensor**: all devices do each step together. **Tensor in a node**: those of a node do, and nodes are replicas.
# * **Pipeline**: each device has some of the layers, and groups of users follow each other. (With fewer groups than devices some idle.)
#
# Two questions. How soon does the next token come for a user who is alone? And how many tokens come in all, with as many users as memory and patience allow? First a model that fits no single device.

# %%
from helpers.notebook.parallel_charts import draw_simulation, read_simulation, simulate
from helpers.parallel.layouts import Device, Served
from helpers.parallel.links import Link

inside = Link(1e-6, 450e9)  # between the 8 devices of a node: seconds, bytes per second
between = Link(5e-6, 50e9)  # between nodes
gpu = Device(80e9, 3.35e12, 989e12, 8, inside, between)  # bytes, bytes/s, operations/s
COUNTS = (1, 2, 4, 8, 16, 32, 64)
LONGEST = 0.05  # seconds that a user waits for a token
# A Llama of 70 billion weights in bfloat16: 80 layers, 64 heads, 8 of keys and values.
large = Served(70e9, 80, 8192, 64, 8, 2, 327_680)
found = simulate(large, gpu, COUNTS, context=2000, longest=LONGEST)
draw_simulation(found, "70 billion")
read_simulation(found)

# %% [markdown]
# Then one that fits each of them.

# %%
small = Served(8e9, 32, 4096, 32, 8, 2, 131_072)  # 8 billion
found = simulate(small, gpu, COUNTS, context=2000, longest=LONGEST)
draw_simulation(found, "8 billion")
read_simulation(found)
results.write()
results.assert_invariants()

# %% [markdown]
# All ways are close here, and memory is the limit: it holds the users' keys and values. Replicas lose a little, because each stores all weights again. Tensor parallelism loses more with every device that talks. With short texts, where computing is the limit, replicas win.
#
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
# * **The model fits, and users are many.** Replicas send nothing, and are the simplest. Cut over a few devices a model can serve slightly more: its weights are stored once, which leaves room for keys and values.
# * **A slow link.** A layer's two all-reduces can't overlap: each needs the one before. Between machines a pipeline sends less, and replicas nothing.
# * **More ranks than key-value heads.** Some keep copies, and the cache isn't cut any further.
# * **FSDP for single tokens.** All weights go through the link for each step.
#
# | you see | do |
# |---|---|
# | "heads can't be shared out among" | fewer ranks; or replicas of a group of ranks |
# | "shape ... is invalid for input of size" (DTensor) | a number of ranks that divides the heads of queries and of keys |
# | "Total number of attention heads ... must be divisible" | a number of ranks that divides the heads |
# | "Rank 1 of 2 stopped" | read that rank's error; the others only waited |
# | it hangs on several machines | the address, the firewall, and whether all call the same collectives in the same order |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** 8 billion weights in bfloat16, eight GPUs of 80 GB, many users and short texts, so that computing is the limit and not memory. (a) tensor parallelism over all eight (b) eight replicas (c) FSDP
#
# <details><summary>Answer</summary>
#
# (b): it fits each of them, and replicas send nothing. (a) pays when users are few: then their tokens come sooner, because all memories are read at once. (c) would gather all weights for every step.
# </details>
#
# **2.** 8 query heads, 2 key-value heads, 4 ranks. How many key-value heads are kept in all? (a) 2 (b) 4 (c) 8
#
# <details><summary>Answer</summary>
#
# (b): each rank has two query heads, which share one key-value head; so each head is kept twice. (a) would be each of them once. (c) is all of them everywhere.
# </details>
#
# **3.** A decode step by FSDP gathers all weights. Why is it used for training all the same? (a) training has more ranks (b) one gathering serves thousands of tokens (c) gradients are smaller than weights
#
# <details><summary>Answer</summary>
#
# (b): the weights are gathered for a whole batch of texts, and computing with these takes longer than sending. (a) doesn't change what is gathered for each token. (c) is wrong: there are as many of them.
# </details>
#
# **The rule:** replicas when the model fits and users are many; tensor parallelism inside a node when it doesn't fit, when users are few, or when a token must come sooner; replicas or a pipeline between nodes; FSDP for training.
#
# **What limits it now:** on several devices a step still writes one token for each user. 07 and 08 write several.
#
# References: Shoeybi et al., *Megatron-LM* (2019); Rajbhandari et al., *ZeRO* (2020); Zhao et al., *PyTorch FSDP* (2023);
# Thakur et al., *Optimization of Collective Communication Operations in MPICH* (2005).
