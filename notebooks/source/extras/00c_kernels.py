# ---
# jupyter:
#   course:
#     minutes: 4
#     headline: >-
#       SmolLM2-135M, a step of one token after 128: {kernels.step_speedup.fastest:.2f} times as fast as transformers' in
#       float32, {kernels.step_speedup.fastest.bf16:.2f} in bfloat16, by the course's fastest step (one function in C++
#       where there is a compiler); {kernels.identical_tokens.count} of {kernels.identical_tokens.of} answers the same in float32; eight tokens cost
#       {kernels.eight_tokens.bf16:.2f} times one (bfloat16)
# ---

# %% [markdown] tags=["card"]
# # 00c · Kernels
#
# **The same model, the same tokens, a faster step: where does the time go?**
#
# | | |
# |---|---|
# | belongs to | 00 start here (an extra: skip it if you like) |
# | the term it attacks | overhead, and the bandwidth that a linear layer reaches |
# | you will be able to | say why a product with one token is slow; join products; count the operations of a step; say what a step needs to read at the memory's speed, and why logits depend on what is read with a token; read off how many tokens a step verifies for free |
# | time | 40 minutes for you; about 2 for the machine under the profile `cpu` |
# | memory | 5 GiB |
#
# A **kernel** is the piece of machine code behind one operation. Notebook 00 took the course's fastest step as given. Here it is taken apart: packed linears, then a step **fused in PyTorch**, then the whole step as one function **in C++**.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# transformers' step and the course's fastest one read the same weights and write the same tokens. How many times as fast is the course's, with one token, in bfloat16?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_FASTEST: float = 1.5  # your guess: transformers' step over ours, bfloat16

# %%
import helpers
from helpers.notebook.profiles import START

lesson = helpers.start("00c_kernels", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, start = lesson.results, lesson.sizes, START[PROFILE]
results.prediction("kernels.step_speedup.fastest.bf16", GUESS_FASTEST, "x")

# %% [markdown] tags=["build"]
# ## A product with one token is awkward
#
# A linear layer with many tokens is a product of two matrices: each weight that is fetched is used many times. With one token it is a matrix times a vector: each weight is used once, and fetching it is all that counts.
#
# A kernel made for large matrices reads the weight in blocks, and jumps through memory to do so. **Packing** stores a copy in the order in which the kernel reads. Engines do it once, when they load a model.

# %%
from helpers import models
from helpers.kernels.fastest_step import ways
from helpers.measuring import probes
from helpers.notebook.kernel_parts import show_ways

DTYPES = ("float32", "bfloat16")
loaded = {d: models.load(MODEL_ID, d, lesson.device)[0] for d in DTYPES}
tokenizer = models.tokenizer_of(MODEL_ID)
arms = {d: ways(model, start.turns) for d, model in loaded.items()}
for d in DTYPES:
    print(d, end=", ")
    show_ways(arms[d])
bandwidth = probes.bandwidth(device=lesson.device)
print(f"this machine reads {bandwidth / 1e9:.0f} GB/s")

# %% [markdown]
# One layer of the model, of the shape that holds most of its weights. All layers of that shape take their turn, so that each weight comes from memory.

# %%
import torch
from torch import Tensor, nn  # what the functions shown below need

from helpers.kernels import packed_linear
from helpers.notebook.kernel_parts import show_layer
from helpers.profiling.step_parts import alike_layers

NUM_TOKENS = start.num_tokens
for d in DTYPES:
    layers = {way: alike_layers(arms[d][way]) for way in ("transformers", "packed")}
    seconds = probes.layer_seconds(layers, NUM_TOKENS, rounds=sizes.rounds)
    print(d)
    show_layer(seconds, layers["packed"][0].weight.nbytes, bandwidth)

# %% [markdown]
# Packing is not the only way. The same product can be written differently, and the library then runs other code. Which is fastest changes with the tokens, the dtype and the machine:

# %%
# show: helpers.kernels.packed_linear:swapped

# %%
# show: helpers.kernels.packed_linear:packed

# %% [markdown]
# So the choice is measured, once for each machine, and kept; `native` is the course's own product, taken from the step in C++ below. Here is the largest layer of a block, in float32:

# %%
from helpers.notebook.kernel_parts import show_variants

linears = [m for m in loaded["float32"].modules() if type(m) is nn.Linear]
with torch.inference_mode():
    few = packed_linear.measure_variants(linears, (1, 8), turns=min(3, sizes.rounds))
shape = tuple(alike_layers(arms["float32"]["packed"])[0].weight.shape)
show_variants(few, shape)

# %% [markdown]
# ## Grouped attention, without copies
#
# Several query heads share one key-value head. The library's attention may *repeat* keys and values until each query head has its own, and so copies the whole cache at each step.
# But heads that share keys can be taken for further queries of one head. Then nothing is copied (00b has the exercise and measures batches).

# %%
from helpers.kernels.grouped_attention import attend_in_groups
from helpers.notebook.start_models import show_attention

show_attention(loaded["float32"].config, attend_in_groups, rounds=sizes.rounds)

# %% [markdown]
# ## The fused step: fewer operations for the same numbers
#
# Around the products there are dozens of small operations a layer: norms, rotary positions, masks, sums. Each has its own call, and with one token the call costs more than the work.
#
# The fused step computes queries, keys and values in one product, gate and up in another; a norm is one operation; queries and keys are turned together. All of it is still PyTorch.
#
# **Exercise 00c.1** (8 minutes) *Why it matters: one large product streams better than three small ones, and starts once.*
#
# `x` is `(n, in)`, each of `weights` is `(out, in)`, with its own `out`. Return a list: `x` times each weight, `(n, out)` each, computed by a single product.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_one_product(x, weights):
    return None  # your code


# hint("00c.1")  # uncomment for help
# solution("00c.1")  # the course's own, of helpers.kernels.one_product
one_product = check("00c.1", my_one_product)

# %% [markdown]
# How many operations of PyTorch does a step start? They can be counted, which no noise disturbs. (The step in C++ comes below. It is a single call, and is left out here.)

# %%
from helpers.notebook.kernel_parts import show_operations
from helpers.profiling.operations import step_operations

num_layers = loaded["float32"].config.num_hidden_layers
by_torch = {way: model for way, model in arms["float32"].items() if way != "native"}
counted = {way: step_operations(model) for way, model in by_torch.items()}
show_operations(results, counted, num_layers)

# %% [markdown]
# And what does each part save? Both sides with packed linears, so that only the fusing differs.

# %%
from helpers.notebook.kernel_parts import show_parts
from helpers.profiling.fused_parts import part_seconds

if "fused" in arms["float32"]:
    for d in DTYPES:
        print(d)
        both = arms[d]["packed"], arms[d]["fused"]
        show_parts(part_seconds(*both, rounds=sizes.rounds), num_layers)
else:
    print("The fused step is not written for this kind of model.")

# %% [markdown]
# ## The whole step in one function
#
# Two things still stand between a step in PyTorch and the memory's bandwidth. It starts hundreds of operations: each goes through Python and PyTorch, wakes the threads and waits for them. And the library's products, packed ones too, are made for many tokens: with few they may read more slowly than the memory can.
#
# So the course's fastest step for a model built like Llama is **one function in C++**, compiled when it is first called for.
#
# * **Stored in the order of reading.** A weight lies in tiles of 32 rows, and a thread reads a tile from its first byte to its last.
# * **Huge pages.** The processor has to look up where each page of memory lies. Pages of 2 MiB instead of 4 KiB need far fewer look-ups.
# * **Fetched ahead.** While one piece of a tile is multiplied, the piece 8 KiB further on is already on its way.
# * **Sums in registers.** Up to 12 tokens share each weight that is loaded. Their sums stay in registers (with AVX-512) until the tile is done.
# * **One parallel region.** The threads are woken once, and walk through all layers together.
#
# This is the inner loop of all products. `w` walks through a tile, and `ahead` before it; `format` reads the numbers of one unit for the tile's upper and lower 16 rows (02 stores codes instead of numbers); `x` holds `N` tokens, and there are two vectors of sums a token. A unit is what a lane multiplies at once: one float, or two bfloat16 numbers.

# %%
from helpers.kernels.native.library import PRODUCTS  # products.h
from helpers.notebook.source import lines_of

print(lines_of(PRODUCTS, first="void add_up(", last="// add_up"))

# %% [markdown]
# In bfloat16 `multiply_add` is a single instruction where the processor has AVX512-BF16: 32 products, added to 16 sums in float32. For other processors the compiler writes it with the instructions that they have.
#
# ## The same bits, however a token is read
#
# Rounded numbers that are added in another order give another sum. A library chooses its kernel, and so the order, by the number of tokens. Then a token's logits depend on what is read with it: alone, in a prompt and in a batch they differ in their last bits. In bfloat16 these bits decide near ties, and an answer may go on differently.
#
# In the loop above the order is always the same: `k` goes from the first to the last, and more tokens are only more sums side by side. Norms and attention are written like that, too. A step of this kind is **batch invariant** (He et al. 2025). A guess then gets exactly the logits that its token would have had alone, so speculation (07, 08) changes no greedy answer, not even in bfloat16.
#
# Here are the logits after two prompts. Each is read one token a step, and then in three other ways: all tokens at once, as a chain of guesses, in a batch with the other prompt.

# %%
from helpers.notebook.kernel_parts import show_same_bits
from helpers.profiling.same_bits import against_one_by_one
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

examples = load_split("test", limit=start.twice)
asked = [prompt_for(tokenizer, example) for example in examples]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in asked]
half = arms["bfloat16"]
compared = [way for way in ("transformers", "native") if way in half]
found = {way: against_one_by_one(half[way], prompts[:2]) for way in compared}
show_same_bits(results, found)

# %% [markdown]
# ## How many tokens does a step verify for free?
#
# The whole step, by each way, with 1 to 32 tokens, after 128 tokens of context.

# %%
from helpers.measuring.cost_model import Shape
from helpers.notebook.kernel_parts import named
from helpers.notebook.step_times import note_steps, show_times, show_verify_cost
from helpers.profiling.model_steps import time_steps

memory = probes.Memory(device=lesson.device)
options = dict(context=128, rounds=sizes.rounds, before=memory.read)
steps = {}
for d in DTYPES:
    steps[d] = time_steps(arms[d], Shape.of(loaded[d]), NUM_TOKENS, **options)
    print(d)
    show_times(named(steps[d]), NUM_TOKENS)
    note_steps(results, steps[d], memory.bandwidth, prefix="kernels")

# %% [markdown]
# The same, beside the time of one token. The flatter a line, the cheaper are guesses that are checked in one step.

# %%
for d in DTYPES:
    title = f"What more tokens in a step cost, {d}"
    show_verify_cost(named(steps[d]), title)

# %% [markdown]
# A faster step is not always flatter. The overhead that fusing takes away is the same for any number of tokens, so what remains grows sooner. Compare the times, too, and not the ratios alone.

# %% [markdown] tags=["library-none"]
# ## What people use instead
#
# The counterparts in production are `torch.compile`, which fuses by itself and takes its time to do so, and engines that bring kernels of their own (llama.cpp, vLLM). Notebook 08b sets both beside this step, on whole answers; so there is no library to compare with here. vLLM can be made batch invariant, too: on GPUs, by `VLLM_BATCH_INVARIANT=1`.

# %% [markdown] tags=["measure"]
# ## What it is worth
#
# First: is it the same function? Logits may differ in their last digits, tokens must not.

# %%
from helpers.profiling.same_answers import same_answers

longest = min(start.longest, 64)
same, of = same_answers(arms["float32"], prompts, max_new_tokens=longest)
results.invariant("kernels.identical_tokens", same == of, same, of)
print(f"float32: {same} of {of} answers the same, token for token, by every way")

# %%
from helpers.notebook.kernel_parts import draw_shares

draw_shares(steps, memory.bandwidth)

# %%
from helpers.notebook.kernel_parts import note_gains
from helpers.notebook.step_times import eight_tokens

for d, suffix in zip(DTYPES, ("", ".bf16")):
    gain = note_gains(results, steps[d])
    *_, fastest = steps[d].values()
    eight_tokens(results, fastest, f"kernels.eight_tokens{suffix}")
print(f"bfloat16: your guess {GUESS_FASTEST:g}, measured {gain.ratio:.2f}")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **A prefill computes.** With hundreds of tokens the products take the time, and fusing saves next to nothing.
# * **A copy takes memory**: packed or in tiles, the weights are held twice, as they came and as they are read.
# * **The step in C++ is written for few cases**: models built like Llama, on Linux on a CPU, with weights in float32, in bfloat16, or in the formats of notebook 02. Each further format means another inner loop.
# * **On a GPU** calls run behind the clock, and CUDA graphs take the overhead away; packing is the library's own business there.
#
# | you see | do |
# |---|---|
# | "The fused step is written for ..." | leave the model as it is: packed linears work for every kind |
# | "A fused model stays as it was made", "A step in C++ stays as it was made" | load the model in the other dtype, and make the step of that |
# | "The step in C++ can't be had: ..." | what follows the colon says why: install or update g++ (`$CXX` names another compiler), load the model in float32 or bfloat16, merge its adapters; until then `fastest_step` takes the step fused in PyTorch |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A layer's weight is 2 MB, the machine reads 20 GB/s, and the product with one token takes 400 µs. What would packing bring at best? (a) nothing (b) a fourth of the time (c) half of the time
#
# <details><summary>Answer</summary>
#
# (b): 2 MB at 20 GB/s are 100 µs. (a) would be right for 100 µs. (c) stops halfway.
# </details>
#
# **2.** A step starts 1,000 operations of 10 µs each beside its products. The model gets twice as wide. The overhead (a) doubles (b) stays (c) halves
#
# <details><summary>Answer</summary>
#
# (b), nearly: the number of operations is the same. That is why overhead hurts small models most.
# </details>
#
# **3.** Eight tokens cost 1.2 times one. A guesser is right for half of 7 guesses, one after the other. What decides whether it pays? (a) only that more than 1.2 tokens come out of a step (b) that, and what guessing costs (c) the vocabulary
#
# <details><summary>Answer</summary>
#
# (b): a step must bring more than it costs, guesses included. Notebook 07 writes the formula.
# </details>
#
# **The rule:** before you change a model, make its step as fast as it can be. A technique that wins only against a slow step wins nothing.
#
# **What limits it now:** the bars above. What is missing to the whole of the bandwidth is time in which memory waits. Where little is missing, a step of one token gets faster only by fewer bytes (notebook 01), and an answer by more tokens from one reading (07, 08).
#
# References: Pope et al., *Efficiently Scaling Transformer Inference* (2022); Ainslie et al., *GQA* (2023); Zhang and Sennrich, *Root Mean Square Layer Normalization* (2019); He et al. (Thinking Machines Lab), *Defeating Nondeterminism in LLM Inference* (2025).
