# ---
# jupyter:
#   course:
#     minutes: 8
#     headline: >-
#       SmolLM2-135M, fine-tuned, single requests, prefill and all. Our tree of all guessers (bfloat16) is
#       {medusa.speedup_over_strongest_greedy:.2f} times as fast as the fastest plain greedy decoding on 16-bit weights
#       among llama.cpp, vLLM compiled, torch.compile and our fused step
#       ({medusa.speedup_over_strongest_greedy.n} prompts), and {medusa.vs_llama_cpp_q4:.2f} times as fast as llama.cpp
#       on its 4-bit file; {opponents.all_guessers.identical_share:.0%} of {opponents.all_guessers.identical_share.n}
#       answers are those of plain greedy decoding, token for token
# ---

# %% [markdown] tags=["card"]
# # 08b · The strongest opponents
#
# **A speedup over what? How fast is the fastest that anybody could use instead?**
#
# | | |
# |---|---|
# | belongs to | 08 Medusa (an extra: skip it if you like) |
# | the term it attacks | none: it asks who else attacks them |
# | you will be able to | say how far an engine is from what the memory allows; move weights from one engine to another; take a ratio apart into step and guessing |
# | time | 35 minutes for you, 10 of them for one exercise; about 8 for the machine under the profile `cpu` |
# | memory | 6 GiB |
#
# Notebook 08 compares decoding with guesses to the same step without them. That is fair, and it is not all: a reader who has llama.cpp or vLLM at hand wants to know what those take for the same answers.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Two guesses about a single request, prefill and all. Ours has 16-bit weights and all guessers of notebook 08.
#
# 1. How many times as fast is it as the fastest engine that decodes *plainly* on the same 16-bit weights?
# 2. And as llama.cpp on a 4-bit file of the model? That one reads a third of our bytes for each token, and its answers may be others. (Below 1: ours is slower.)

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "fine-tuned"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_STRONGEST: float = 1.5  # your guess: ours over the fastest plain 16-bit decoding
GUESS_Q4: float = 0.8  # your guess: ours over llama.cpp on its 4-bit file

# %%
import helpers

NAME = "08b_strongest_opponents"
lesson = helpers.start(NAME, profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results = lesson.results
guesses = {
    "medusa.speedup_over_strongest_greedy": GUESS_STRONGEST,
    "medusa.vs_llama_cpp_q4": GUESS_Q4,
}
for key, guess in guesses.items():
    results.prediction(key, guess, "x")

# %% [markdown] tags=["build"]
# ## The floor
#
# Plain greedy decoding reads all weights for each token. So no engine that decodes plainly can write more tokens in a second than
#
# $$\text{floor} = \frac{\text{bandwidth}}{\text{bytes of the weights}}$$
#
# Whoever stores a weight in fewer bits has a higher floor. Whoever gets several tokens out of one reading can go past it.

# %%
from helpers.measuring import probes
from helpers.notebook.opponents import open_field

field = open_field(lesson)
bandwidth = probes.bandwidth(device=lesson.device)
print(f"This machine reads {bandwidth / 1e9:.0f} GB/s now.", end=" ")
print("It is asked again between the runs.")

# %% [markdown]
# ## The same weights in another engine
#
# llama.cpp reads GGUF files. A file holds settings, a tokenizer and the matrices, each under a name and in a format: `BF16`; `Q8_0`, blocks of 32 whole numbers of 8 bits with one scale; `Q4_1`, blocks of 32 numbers of 4 bits with a scale and a minimum.
#
# One thing must change on the way. Rotary positions turn *pairs* of numbers of each query and key. In transformers a pair is a number of a head's first half and the one at the same place of its second half. In llama.cpp a pair is two neighbours. Nothing crashes if you forget that; the model only talks nonsense.
#
# **Exercise 08b.1** (10 minutes) *Why it matters: what an engine takes for granted about the order of numbers stands in no file. It is the usual bug of every conversion.*
#
# `weight` makes queries: `(heads x size, hidden)`, one head's rows after the other's. Return the rows in another order: within each head 0, size / 2, 1, size / 2 + 1, and so on. The heads stay where they are.
# %%
from helpers.notebook.exercises import check, hint, solution


def my_neighbours_first(weight, heads):  # (heads x size, hidden), how many heads
    return None  # your code


# hint("08b.1")  # uncomment for help; solution("08b.1") shows the course's own
neighbours_first = check("08b.1", my_neighbours_first)

# %% [markdown]
# A small example: one head of six rows, and where each of them came from.

# %%
import torch

rows = torch.arange(6.0)[:, None]
print("rows:", neighbours_first(rows, 1).flatten().int().tolist())

# %% [markdown]
# The package does this for queries and keys of every layer, and writes the files. They are written once for a model.

# %%
from helpers.notebook.opponents import write_files

paths = write_files(field)

# %% [markdown]
# Is it the same function? In float32 rounding decides next to nothing. llama.cpp and the course's loop must write the same tokens there, or part where two tokens score the same (a **near tie**).

# %%
from helpers.notebook.opponents import show_float32

show_float32(results, field, paths)

# %% [markdown] tags=["library"]
# ## Who takes part
#
# * **llama.cpp**, as the wheel `xllamacpp` brings it. The wheel is compiled for any CPU with AVX2. Where yours has AVX-512 or AMX, a build of your own may be faster.
# * **vLLM**, compiled, without heads and with the heads of notebook 08. It is made for many users on GPUs; its CPU build is a by-product.
# * **torch.compile**: transformers' own step, compiled for one size of cache.
# * **ours**: the fused step of 00c, and on it the tree of all guessers that 08 chose on validation questions.
#
# All get the same token ids and as many threads, write greedily, and answer one request after the other. Each has processes of its own. Their order turns round with each run, and nobody keeps anything of a prompt for the next run.

# %%
from helpers.notebook.opponents import answer_all

found = answer_all(field, paths)

# %% [markdown] tags=["measure"]
# ## Who is how fast
#
# The share says how much of the floor an engine reaches over whole requests. The prefill counts, too: it reads the weights once, and brings the first token.

# %%
from helpers.notebook.opponent_tables import show_speeds

rates = show_speeds(results, found)

# %%
from helpers.notebook.opponent_tables import draw_speeds

draw_speeds(found, rates)

# %% [markdown]
# ## The two ratios that you guessed
#
# Only prompts that both sides answered with the same tokens are compared, so that neither gains by a shorter answer.

# %%
from helpers.notebook.opponent_tables import show_key_ratios

show_key_ratios(results, found, rates, guesses)

# %% [markdown]
# ## How much of it is the step, how much is guessing?
#
# $$\frac{\text{theirs}}{\text{ours with guesses}} = \underbrace{\frac{\text{theirs}}{\text{ours without}}}_{\text{step}} \times \underbrace{\frac{\text{ours without}}{\text{ours with guesses}}}_{\text{guessing}}$$
#
# A step below 1: that engine computes the same faster than ours does. Guesses could be put on top of its step as well, and then the second factor would be its gain.

# %%
from helpers.notebook.opponent_tables import show_split

show_split(results, found)

# %% [markdown]
# ## Are the answers the same?
#
# Speed is compared at equal precision because of this table. Where two answers part, the model in float32 is asked how much more it likes our token than theirs. A gap of nearly nothing means that rounding decided.

# %%
from helpers.notebook.opponent_tables import show_agreement

show_agreement(results, found)

# %% [markdown]
# ## Several users, long prompts
#
# Everything so far was one user with a short prompt. Here are requests in batches, and prompts with the tables of many others before their own.

# %%
from helpers.notebook.opponent_tables import show_batches_and_long

show_batches_and_long(results, found)

# %%
from helpers.notebook.opponents import record

record(results, found)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When this is not the whole story
#
# * **Another build, another machine.** A llama.cpp compiled for this very CPU, or vLLM on a GPU, is another opponent. What holds is the way to ask: the floor, the precision, the same tokens.
# * **Engines do more than this.** vLLM serves many users with paged memory; llama.cpp can guess as well (draft models, n-grams). Here each shows the one thing that is asked of it.
# * **Guesses on 4-bit weights.** Nothing forbids both. There a step reads less, so a wasted token costs relatively more.
#
# | you see | do |
# |---|---|
# | "llama.cpp is left out" | `make setup` brings its wheel |
# | "vLLM is left out" | it exists for Linux on x86-64: the README says how to add it |
# | "Notebook 08 has chosen nothing under the profile ..." | run 08 first, under the same profile |
# | llama.cpp writes nonsense from your own file | the rows of queries and keys are in the other order |

# %%
from helpers.notebook.opponent_tables import what_limits

print("What limits it now:", what_limits(found, rates))

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** An engine reads 300 MB of weights a token on a machine with 30 GB/s, and writes 50 tokens in a second. How far is it from its floor? (a) half way (b) it is at it (c) that depends on the prompt
#
# <details><summary>Answer</summary>
#
# (a): 30,000 MB over 300 MB are 100 tokens in a second. (b) would be 100. (c) the cache of a short prompt is small beside the weights.
# </details>
#
# **2.** A blog reports that speculation made an engine 2.5 times as fast. Which question comes first? (a) how many heads (b) against which step, and how fast is that one beside others (c) which language
#
# <details><summary>Answer</summary>
#
# (b): a slow step makes every guess look good. (a) and (c) don't change what a user waits for.
# </details>
#
# **3.** llama.cpp on a 4-bit file is faster than your lossless decoding, and its answers are as often right. What do you serve? (a) the lossless one, always (b) the 4-bit file, if your own questions confirm it (c) neither
#
# <details><summary>Answer</summary>
#
# (b): what counts is the share of right answers on your questions, and what a request costs. (a) is right where every token must be the model's own.
# </details>
#
# **The rule:** before you believe a speedup, divide: bandwidth by bytes, and their seconds by yours, with guesses and without.
#
# **What limits it now** stands under the cell above. Notebook 09 compiles the overhead away, 02 takes the bytes.
#
# References: Gerganov et al., *llama.cpp* (2023); Kwon et al., *PagedAttention* (vLLM, 2023); Ansel et al., *PyTorch 2* (2024); Cai et al., *Medusa* (2024); Williams, Waterman, Patterson, *Roofline* (2009).
