# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       llama-300m (random weights), float32: a decode step of 32 sequences
#       {kv_cache.attention_speedup.batch_32:.2f} times as fast as with repeated heads
#       ({kv_cache.attention_speedup.batch_32.bf16:.2f} in bfloat16); {kv_cache.equals_recomputation.count} of
#       {kv_cache.equals_recomputation.of} random series of the cache's operations equal to recomputation (float64)
# ---

# %% [markdown] tags=["card"]
# # 00b · The KV cache
#
# **Why keep what was computed, what does keeping cost, and who pays for the heads?**
#
# | | |
# |---|---|
# | belongs to | 00 start here (an extra: skip it if you like) |
# | the term it attacks | KV bytes, and the arithmetic that would be done again without a cache |
# | you will be able to | say what a cache saves and what it takes; compute its bytes for any model; read grouped heads without copying them |
# | time | 25 minutes for you; about 1 for the machine under the profile `cpu` |
# | memory | 5 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Notebook 00 decoded with a cache and did not ask what life is like without one. Without it, every step reads the whole text again: prompt, and all that was written so far.
#
# A prompt of 120 tokens or so, an answer of 40. How many times as long does the answer take without a cache?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_WITHOUT_CACHE: float = 3.0  # your guess: an answer without a cache over one with

# %%
import helpers
from helpers.notebook.profiles import START

lesson = helpers.start("00b_kv_cache", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, start = lesson.results, lesson.sizes, START[PROFILE]
results.prediction("kv_cache.without_cache", GUESS_WITHOUT_CACHE, "x")

# %% [markdown] tags=["build"]
# ## What attention reads
#
# In each layer, every token leaves a **key** and a **value** for each head. A new token compares its query with the keys of all tokens before it, and takes a weighted sum of their values.
#
#     keys, values of token 1 .. t   (kv_heads, t, head_dim)   the same at every later step
#     query of token t + 1           (heads, 1, head_dim)      new
#
# The keys and values of old tokens never change. So there are two choices: compute them again at each step, or keep them.

# %%
import time

import torch

from helpers import models
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.kernels import packed_linear
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

plain, tokenizer = models.load(MODEL_ID, dtype="float32", device=lesson.device)
model = packed_linear.install(plain, turns=start.turns)
texts = [prompt_for(tokenizer, example) for example in load_split("test")]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


# %%
def answer(tokens, cached, max_new_tokens):
    """Greedy tokens, each with its seconds; a cache that is thrown away after each
    step is no cache."""
    forward, known, read, seconds = Forward(model), list(tokens), 0, []
    cache = KVCache.for_model(model, len(tokens) + max_new_tokens)
    for _ in range(max_new_tokens):
        began = time.perf_counter()
        if not cached:
            cache.reset()
            read = 0
        [reading] = forward([Feed("this answer", known[read:])], cache)
        read = len(known)
        known.append(int(reading.logits[-1].argmax()))
        seconds.append(time.perf_counter() - began)
        if known[-1] in eos_tokens(model):
            break
    return known[len(tokens) :], seconds


# %% [markdown]
# The same answer with and without a cache, step by step. The first step is the prefill, and costs the same.

# %%
from helpers.notebook.cache_cost import WITH, WITHOUT, draw_answers, read_answers

asked = min(prompts, key=lambda ids: abs(len(ids) - 120))
arms, runs = {WITH: True, WITHOUT: False}, []
for _ in range(min(3, sizes.rounds)):
    runs.append({name: answer(asked, arms[name], start.without_cache) for name in arms})
draw_answers(runs)
without = read_answers(results, runs, len(asked))
print(f"Your guess was {GUESS_WITHOUT_CACHE:g} times, measured {without.ratio:.2f}.")

# %% [markdown]
# ## What keeping costs: memory
#
# Several query heads may share one key-value head: **grouped heads** (GQA). Then fewer keys and values are kept; most models since 2023 do so.
#
# **Exercise 00b.1** (4 minutes) *Why it matters: with many users or long texts the cache is larger than the model, and its bytes are read at every step.*
#
# Return the bytes that one token of context takes in the cache.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_bytes_per_token(layers, kv_heads, head_dim, bytes_per_number):
    return None  # your code


# hint("00b.1")  # uncomment for help; solution("00b.1") shows the course's own
bytes_per_token = check("00b.1", my_bytes_per_token)

# %% [markdown]
# For some models, in two bytes a number. The last three are of similar size; the first of them keeps 32 KV heads, the others 8.

# %%
from helpers.notebook.cache_cost import show_cache_bytes

NAMES = ("tinyllama-1.1b", "llama-7b", "llama-8b", "mistral-7b")
configs = {"this course's model": plain.config}
configs |= {name: models.config_of(name) for name in NAMES}
show_cache_bytes(configs, bytes_per_token)

# %% [markdown]
# ## What keeping costs: time
#
# A cache has to take in one more token at each step. The simple way makes a new tensor from the old one and the new token, so the whole cache is copied at every step.
# This course's cache is allocated once and written in place. Here are both, for the cache of one layer of a model with eight KV heads of 128.

# %%
from transformers import DynamicCache

from helpers.notebook.cache_cost import show_appending

makers = {
    "copied (DynamicCache)": lambda held: DynamicCache(),
    "in place (KVCache)": lambda held: KVCache(layers=1, capacity=held + 1),
}
show_appending(makers, [2**n for n in range(7, 13)], rounds=10 + sizes.rounds)

# %% [markdown]
# ## Grouped heads, read without copying
#
# The cache is small, but the library's attention wants as many key heads as query heads. Where a mask is needed (in any batch whose sequences differ in length) it *repeats* the keys and values first: all that grouping saved is written out again, at each step.
#
# There is no need to. The queries of heads that share their keys can be taken for further queries of *one* head: what is shared is then read once, for all of them.
#
# **Exercise 00b.2** (5 minutes) *Why it matters: it is the whole trick, one reshape.*
#
# `query` is `(batch_size, heads, n, head_dim)`. The first `heads / kv_heads` heads share the first KV head, as many after them the second, and so on. Return it as `(batch_size, kv_heads, heads / kv_heads * n, head_dim)`.


# %%
def my_together(query, kv_heads):
    return None  # your code


# hint("00b.2")
together = check("00b.2", my_together)

# %% [markdown]
# The heart of this course's attention. transformers lets anybody register an attention function by name, so every model of the library can use it.

# %%
import torch.nn.functional as F  # what the function below needs

# %%
# show: helpers.kernels.grouped_attention:attend_in_groups

# %% [markdown]
# ## Sequences that come and go
#
# Many users share one cache. Each one's text is a **sequence**. Sequences have different lengths, and they come and go at different times. Nobody should wait, and nobody's keys should be copied because of it:
#
# * a new sequence is **prefilled where it lies**, in a free row of the cache's tensors;
# * sequences are **read together**, each as many tokens as it has: a **mask** keeps each from seeing what a longer one has beside it;
# * of tokens that were only guessed, the cache **keeps** those that were right;
# * a sequence that is done is **freed**, and the one in the last row takes its place.

# %%
longest = max(map(len, prompts[:3]))
forward, shared = Forward(model), KVCache.for_model(model, longest + 4, max_sequences=4)
for user, ids in zip(("Ann", "Bob", "Cleo"), prompts):
    forward([Feed(user, ids)], shared)
print("prefilled where they lie, tokens held:   ", shared.lengths)
certain = shared.lengths["Bob"] + 1
guesses = Feed("Bob", [5, 6, 7], parents=[-1, 0])  # one certain token, then two guesses
forward([Feed("Ann", [5]), guesses, Feed("Cleo", [5])], shared)
print("one step, in which Bob's read two guesses:", shared.lengths)
shared.keep("Bob", certain, [0])
print("the first guess was right, and is kept:   ", shared.lengths)
shared.free("Ann")
print("Ann's is freed, Cleo's has taken its block:", shared.lengths)
print("which block is whose:                    ", shared.blocks)
print(f"it holds {shared.nbytes / 1e6:.2f} MB")

# %% [markdown]
# A mask that is off by one shows no error, only slightly wrong numbers. So the cache is tested with random series of all it can do: sequences are prefilled and read together (with trees of guesses, of which one path is kept, as notebook 07 will do), are cropped, and freed.
# Whenever tokens are read, the logits have to be those of a model that reads the whole sequence anew, without any cache.

# %%
from helpers.decoding.cache_check import equals_recomputation
from helpers.kernels.grouped_attention import install

tiny = install(models.shape_only("llama-tiny", torch.float64))
of = start.series
equal = sum(equals_recomputation(tiny, seed) for seed in range(of))
results.invariant("kv_cache.equals_recomputation", equal == of, equal, of)
print(f"equal to recomputation: {equal} of {of} random series", end=" ")
print("of operations, in float64")

# %% [markdown] tags=["library"]
# ## Against the library
#
# A whole decode step of 32 sequences that hold 128 tokens each, on a shape with random weights, by the library's attention and by ours. Both share the same weights, so only the attention differs.
#
# * **With a mask**, because sequences differ in length: the library repeats grouped heads.
# * **Without a mask**, which works only if all sequences are equally long: the library's kernel may read grouped heads itself.

# %%
from helpers.notebook.cache_cost import LIBRARYS, OURS, batch_steps, beside

SHAPE, BATCH_SIZE = sizes.shapes[len(sizes.shapes) // 2], 32
steps_of = {}
for dtype in ("float32", "bfloat16"):
    network = models.shape_only(SHAPE, dtype, device=lesson.device)
    packed_linear.install(network, turns=min(start.turns, 2))
    arms = {LIBRARYS: network, OURS: install(beside(network))}
    steps_of[dtype] = batch_steps(arms, BATCH_SIZE, sizes.rounds)
    del network, arms

# %% [markdown] tags=["measure"]
# ## What it is worth

# %%
from helpers.measuring.cost_model import Shape
from helpers.notebook.cache_cost import show_attention_gains

show_attention_gains(results, steps_of, SHAPE, BATCH_SIZE)

# %%
each = Shape.of(plain).kv_bytes_per_token
results.metric("kv_cache.bytes_per_token", each, "bytes")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **Room is reserved for the longest.** A sequence of ten tokens takes the place of a thousand. Notebook 05 stores the cache in blocks instead.
# * **Scores that a model changes** (soft caps, sinks) are not known to this attention: it refuses them with an error. Leave such a model the library's.
# * **On a GPU** a fused kernel reads grouped heads itself; what remains there is the mask.
#
# | you see | do |
# |---|---|
# | "The cache holds ... tokens and ... were needed" | make it with a larger `capacity` |
# | "The cache is made for 4 sequences and has 4, 1 more came" | `free` one that is done, or make it with a larger `max_sequences` |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Without a cache, how does the time of an answer that is much longer than its prompt grow with its length? (a) in proportion (b) with its square (c) not at all
#
# <details><summary>Answer</summary>
#
# (b): step t reads the prompt and t tokens, and 1 + 2 + ... + t grows with the square. (a) is what a cache achieves, nearly. (c) would need steps that cost nothing.
# </details>
#
# **2.** A model has 32 query heads and 8 KV heads. Its cache is (a) four times smaller than with 32 KV heads (b) as large (c) eight times smaller
#
# <details><summary>Answer</summary>
#
# (a): 32 / 8. The query heads leave nothing in the cache, so (b) is wrong; (c) takes the number of KV heads for the saving.
# </details>
#
# **3.** One of 32 sequences is freed. How many of the others must be moved? (a) all after it (b) none or one (c) all
#
# <details><summary>Answer</summary>
#
# (b): the last one takes its place. (a) would keep the order, which nobody needs.
# </details>
#
# **The rule:** never compute a key twice, never copy one to read it.
#
# **What limits it now:** the cache grows with every token and every user, and its bytes are read at each step. Notebook 10 (planned) makes it smaller, notebook 05 wastes less of it.
#
# References: Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need* (2019); Ainslie et al., *GQA* (2023); Pope et al., *Efficiently Scaling Transformer Inference* (2022).
