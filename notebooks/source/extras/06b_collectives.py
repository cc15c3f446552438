# ---
# jupyter:
#   course:
#     minutes: 1
#     headline: >-
#       Rings from scratch: {parallel.rings_equal_torch.count} of {parallel.rings_equal_torch.of} collectives give the
#       numbers of torch.distributed. Each of 4 processes sends {collectives.sent_share.all_reduce.ranks_4:.2f} times the
#       data for an all-reduce
# ---

# %% [markdown] tags=["card"]
# # 06b · Collectives
#
# **How do devices add up what each of them has, and why does none of them send much more when there are more?**
#
# | | |
# |---|---|
# | belongs to | 06 FSDP and tensor parallelism (an extra: skip it if you like) |
# | the term it attacks | what devices send each other |
# | you will be able to | say how the collectives work, and what each rank sends; compute their time; split ranks into groups |
# | time | 25 minutes for you; about 1 for the machine under the profile `cpu` |
# | memory | 6 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Four ranks have a megabyte each, and all need the sum. How many megabytes does each of them have to send? (If everybody sent his own to everybody: three.)

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # not used here: no model runs
SEED: int = 0  # of everything random
GUESS_SENT: float = 3.0  # your guess: megabytes that each of four ranks sends

# %%
import helpers
from helpers.notebook.parallel_sizes import PARALLEL

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("06b_collectives", **options)
results, sizes = lesson.results, PARALLEL[PROFILE]
results.prediction("collectives.sent_share.all_reduce.ranks_4", GUESS_SENT, "x")

# %% [markdown] tags=["build"]
# ## A ring
#
# Everybody sends to the right, and takes from the left. The data are cut into as many **chunks** as there are ranks.
#
# **Reduce-scatter**: each chunk goes round once, and each rank adds its own to it. At the end each rank has one chunk, summed up. With three ranks and small numbers:

# %%
from helpers.notebook.parallel_collectives import show_ring

show_ring([[1, 2, 3], [10, 20, 30], [100, 200, 300]])

# %% [markdown]
# **Exercise 06b.1** (10 minutes) *Why it matters: this index is the whole algorithm.*
#
# Chunk k has to end at the rank at place k, after `n - 1` steps to the right. Which chunk does the rank at `place` send in `step`, of which 0 is the first?


# %%
from helpers.notebook.exercises import check, hint, solution


def my_chunk_sent(place, step, n):
    return None  # your code


# hint("06b.1")  # uncomment for help; solution("06b.1") shows the course's own
chunk_sent = check("06b.1", my_chunk_sent)

# %% [markdown]
# `ring.pass_on(sent, received)` sends to the right and receives from the left, at once.

# %%
import torch

from helpers.parallel.rings import Ring

# %%
# show: helpers.parallel.rings:reduce_scatter

# %% [markdown]
# **All-gather**: each chunk goes round once more, and everybody keeps a copy.

# %%
# show: helpers.parallel.rings:all_gather

# %% [markdown]
# One after the other they are an **all-reduce**. Each rank sends `n - 1` chunks in each of the two, and a chunk is the `n`-th part: `2 (n - 1) / n` times the data, never more than twice.

# %%
# show: helpers.parallel.rings:all_reduce

# %% [markdown]
# **All-to-all** is a transposition: chunk k of every rank goes to rank k. Mixtures of experts need it, and sequences that are cut over devices. Each chunk goes straight to its rank (`ring.swap`).

# %%
# show: helpers.parallel.rings:all_to_all

# %% [markdown]
# **Exercise 06b.2** (5 minutes) *Why it matters: it is the time of every all-reduce in notebook 06.*
#
# A message of `b` bytes takes `latency + b / bandwidth` seconds. Return the seconds of a ring all-reduce of `size` bytes over `ranks` ranks.


# %%
def my_ring_seconds(size, ranks, latency, bandwidth):
    return None  # your code


# hint("06b.2")  # solution("06b.2")
ring_seconds = check("06b.2", my_ring_seconds)
for n in (2, 8, 64):
    print(f"{n:2} ranks: {1e3 * ring_seconds(1e6, n, 1e-5, 1e9):.2f} ms")

# %% [markdown]
# A rank never sends more than twice the data, but the latencies grow without limit.

# %% [markdown] tags=["library"]
# ## The same numbers as torch.distributed
#
# Random whole numbers, whose sums are exact, in real processes. Every rank compares what it gets with PyTorch's, and counts what it sends.

# %%
from helpers.notebook.parallel_collectives import compare_rings

compare_rings(results, sizes, GUESS_SENT)

# %% [markdown] tags=["measure"]
# ## Groups
#
# Not all ranks have to take part. If half of the devices together hold all experts of a layer, an all-to-all among that half is enough, and the other half does the same. The price: each expert is stored twice. What does it save?

# %%
from helpers.notebook.parallel_collectives import compare_groups

compare_groups(results, sizes)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Short messages.** A ring has `2 (n - 1)` steps, and each takes at least the latency. Libraries use trees there.
# * **Unequal links.** A ring is as fast as its slowest link. Libraries reduce inside each machine first.
#
# | you see | do |
# |---|---|
# | it hangs | all members have to call the same collective, in the same order |
# | "must stand once among the members" | only members call a collective |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** 32 ranks instead of 16, the same data. The bytes that each rank sends for an all-reduce (a) double (b) hardly change (c) halve
#
# <details><summary>Answer</summary>
#
# (b): 2 (n - 1) / n is between 1 and 2. (a) is so if everybody sends all to everybody. (c) is a chunk's size; but there are more of them.
# </details>
#
# **2.** What does FSDP's training step use? (a) all-gather and reduce-scatter (b) all-reduce and broadcast (c) all-to-all
#
# <details><summary>Answer</summary>
#
# (a): it gathers weights, and sums gradients up where they are stored. (b) is plain data parallelism. (c) belongs to experts.
# </details>
#
# **3.** Messages of 1 kB among 64 ranks are slow. (a) more bandwidth (b) fewer steps: a tree, or several messages in one (c) more chunks
#
# <details><summary>Answer</summary>
#
# (b): 126 latencies one after the other. (a) changes the small part. (c) more chunks are more latencies.
# </details>
#
# **The rule:** long messages cost bytes, short ones latency; send few and long ones.
#
# References: Patarasuk and Yuan, *Bandwidth optimal all-reduce algorithms for clusters of workstations* (2009); Thakur et al. (2005).
