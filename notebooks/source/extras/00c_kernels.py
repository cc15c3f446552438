# ---
# jupyter:
#   course:
#     minutes: 4
#     headline: >-
#       SmolLM2-135M, a step of one token after 128: {kernels.step_speedup.fastest:.2f} times as fast as transformers' in
#       float32, {kernels.step_speedup.fastest.bf16:.2f} in bfloat16, by packed linears and a fused step;
#       {kernels.identical_tokens.count} of {kernels.identical_tokens.of} answers the same in float32; eight tokens cost
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
# | you will be able to | say why a product with one token is slow; join products; count the operations of a step; read off how many tokens a step verifies for free |
# | time | 30 minutes for you; about 1 for the machine under the profile `cpu` |
# | memory | 5 GiB |
#
# A **kernel** is the piece of machine code behind one operation. Notebook 00 took the fused step as given. Here it is taken apart.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# transformers' step and the fused one read the same weights and write the same tokens. How many times as fast is the fused one, with one token, in bfloat16?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_FUSED: float = 1.2  # your guess: transformers' step over the fused one, bfloat16

# %%
import helpers
from helpers.notebook.profiles import START

lesson = helpers.start("00c_kernels", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, start = lesson.results, lesson.sizes, START[PROFILE]
results.prediction("kernels.step_speedup.fastest.bf16", GUESS_FUSED, "x")

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

DTYPES = ("float32", "bfloat16")
loaded = {d: models.load(MODEL_ID, d, lesson.device)[0] for d in DTYPES}
tokenizer = models.tokenizer_of(MODEL_ID)
arms = {d: ways(model, start.turns) for d, model in loaded.items()}
bandwidth = probes.bandwidth(device=lesson.device)
print(f"ways to compute a step here: {', '.join(arms['float32'])};", end=" ")
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
# So the choice is measured, once for each machine, and kept. Here is the largest layer of a block, in float32:

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
# The fused step computes queries, keys and values in one product, gate and up in another; a norm is one operation; queries and keys are turned together.
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
# How many operations does a step start? They can be counted, which no noise disturbs:

# %%
from helpers.notebook.kernel_parts import show_operations
from helpers.profiling.operations import step_operations

num_layers = loaded["float32"].config.num_hidden_layers
counted = {way: step_operations(model) for way, model in arms["float32"].items()}
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
# ## How many tokens does a step verify for free?
#
# The whole step, by each way, with 1 to 32 tokens, after 128 tokens of context.

# %%
from helpers.measuring.cost_model import Shape
from helpers.notebook.step_times import note_steps, show_times, show_verify_cost
from helpers.profiling.model_steps import time_steps

options = dict(context=128, rounds=sizes.rounds)
steps = {}
for d in DTYPES:
    steps[d] = time_steps(arms[d], Shape.of(loaded[d]), NUM_TOKENS, **options)
    print(d)
    show_times(steps[d], NUM_TOKENS)
    note_steps(results, steps[d], bandwidth, prefix="kernels")

# %% [markdown]
# The same, beside the time of one token. The flatter a line, the cheaper are guesses that are checked in one step.

# %%
for d in DTYPES:
    title = f"What more tokens in a step cost, {d}"
    show_verify_cost(steps[d], title)

# %% [markdown]
# A faster step is not always flatter. What fusing takes away is the same for any number of tokens, so what remains grows sooner. Compare the times, too, and not the ratios alone.

# %% [markdown] tags=["library-none"]
# ## What people use instead
#
# The counterparts in production are `torch.compile`, which fuses by itself and takes its time to do so, and engines that bring kernels of their own (llama.cpp, vLLM). Notebook 08 sets both beside this step, on whole answers; so there is no library to compare with here.

# %% [markdown] tags=["measure"]
# ## What it is worth
#
# First: is it the same function? Logits may differ in their last digits, tokens must not.

# %%
from helpers.profiling.same_answers import same_answers
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

asked = [prompt_for(tokenizer, example) for example in load_split("test", limit=start.twice)]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in asked]
same, of = same_answers(arms["float32"], prompts, max_new_tokens=min(start.longest, 64))
results.invariant("kernels.identical_tokens", same == of, same, of)
print(f"float32: {same} of {of} answers the same, token for token, by every way")

# %%
from helpers.notebook.kernel_parts import draw_shares

draw_shares(steps, bandwidth)

# %%
import numpy as np

from helpers.measuring import timing
from helpers.notebook.kernel_parts import note_gains
from helpers.notebook.step_times import eight_tokens

for d, suffix in zip(DTYPES, ("", ".bf16")):
    *slower, fastest = steps[d]
    base = steps[d]["transformers"].seconds[1]
    over = {w: timing.speedup(base, s.seconds[1], of=np.median) for w, s in steps[d].items()}
    gains = {w: over[w] for w in slower if w != "transformers"} | {"fastest": over[fastest]}
    note_gains(results, gains, d)
    eight_tokens(results, steps[d][fastest], f"kernels.eight_tokens{suffix}")
print(f"bfloat16: your guess {GUESS_FUSED:g}, measured {gains['fastest'].ratio:.2f}")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **A prefill computes.** With hundreds of tokens the products take the time, and fusing saves next to nothing.
# * **A packed copy takes memory**: the weights are held twice, as they came and as they are read.
# * **On a GPU** calls run behind the clock, and CUDA graphs take the overhead away; packing is the library's own business there.
#
# | you see | do |
# |---|---|
# | "The fused step is written for ..." | leave the model as it is: packed linears work for every kind |
# | "A fused model stays as it was made" | load the model in the other dtype, and fuse that |

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
# **What limits it now:** the bars above. What is missing to the whole of the bandwidth is overhead that is left; fewer bytes (notebook 01) make it count for more.
#
# References: Pope et al., *Efficiently Scaling Transformer Inference* (2022); Ainslie et al., *GQA* (2023); Zhang and Sennrich, *Root Mean Square Layer Normalization* (2019).
