# ---
# jupyter:
#   course:
#     minutes: 2
#     headline: >-
#       One layer in 3 bits, a scale a channel: GPTQ changes {gptq.output_error.gptq.3bit:.1%} of its output's
#       energy, plain rounding {gptq.output_error.rtn.3bit:.1%}. SmolLM2-135M, fine-tuned, all linear layers in 3 bits: perplexity of
#       {gptq.perplexity.gptq.3bit.n} reference answers {gptq.perplexity.gptq.3bit:.3f}, plain rounding
#       {gptq.perplexity.rtn.3bit:.3f}; of {gptq.answers_broken.gptq.3bit.n} answers
#       {gptq.answers_broken.gptq.3bit:.0f} broken, plain rounding {gptq.answers_broken.rtn.3bit:.0f}
# ---

# %% [markdown] tags=["card"]
# # 02b · GPTQ
#
# **If one weight is rounded up, which others should be rounded down?**
#
# | | |
# |---|---|
# | belongs to | 02 quantization (an extra: skip it if you like) |
# | the term it attacks | weight bytes / bandwidth: the same bytes, fewer errors |
# | you will be able to | say what the Hessian of a layer is, and where it comes from; feed an error forward; tell what calibration texts do |
# | time | 30 minutes for you, 15 of them for one exercise; about 2 for the machine under the profile `cpu` |
# | memory | 8 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Plain rounding takes each weight for itself. GPTQ rounds the same weights to the same grid, 3 bits with a scale a row, but looks at what the layer reads.
#
# How many times smaller is the squared error of the layer's output?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_SMALLER: float = 1.5  # your guess: plain rounding's error over GPTQ's, 3 bits

# %%
import helpers
from helpers.notebook.quantization_models import a_matrix, open_models, texts_for
from helpers.notebook.quantization_sizes import QUANTIZATION

lesson = helpers.start("02b_gptq", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, QUANTIZATION[PROFILE]
results.prediction("gptq.output_error_ratio.3bit", GUESS_SMALLER, "ratio")
opened = open_models(lesson, sizes)
tuned, tokenizer = opened.tuned, opened.tokenizer
texts = texts_for(tokenizer, sizes, SEED)

# %% [markdown] tags=["build"]
# ## What counts is the output
#
# Nobody sees a weight's error. What the next layer sees is the error of the output, $(W - Q) x$, for the inputs $x$ that really come. Its square, summed over all tokens, needs one matrix of the inputs, the **Hessian** $H = \sum x x^T$:
#
# $$\sum_x \|(W - Q) x\|^2 = \mathrm{tr}\,(W - Q)\, H\, (W - Q)^T$$
#
# If no two inputs went together (their products cancelled out over the tokens), $H$ would be diagonal, and each weight could be rounded for itself. They do:

# %%
from helpers.notebook.quantization_gptq import draw_together
from helpers.weights.quantization.calibration import Hessian, observe

name, linear = a_matrix(tuned)
weight = linear.weight.detach().clone()
seen = observe(tuned, texts.calibration, Hessian, {name: linear})[name]
print(f"{name}: {tuple(weight.shape)}, {seen.count:,} tokens seen")
draw_together(seen.matrix)

# %% [markdown]
# ## By hand
#
# Two weights, 0.4 each, on a grid of whole numbers. Their inputs are nearly always equal (cosine 0.9). Each for itself becomes 0, and 0.8 is missing from the output. If the second one hears of the first one's error before it is rounded, it becomes 1:

# %%
from helpers.notebook.quantization_gptq import by_hand

by_hand([0.4, 0.4], correlation=0.9)

# %% [markdown]
# ## Column by column
#
# GPTQ (Frantar et al. 2022) goes through the columns of `W` from left to right, all rows at once. It rounds column $j$, and moves the columns that are left so that they make up for the error as well as they can. How far each of them moves follows from $H$: with $U$ the upper triangular factor of its inverse, $H^{-1} = U^T U$,
#
# $$e = (w_j - q_j) / U_{jj} \qquad w_k \leftarrow w_k - e\, U_{jk} \quad (k > j)$$
#
# A little is added to the diagonal of $H$ before (**damping**): where an input is always 0, or a combination of others, $H$ has no inverse. Here is one row of the layer, six weights of it, in 3 bits:

# %%
from helpers.notebook.quantization_gptq import draw_row

draw_row(weight, seen.matrix)

# %% [markdown]
# **Exercise 02b.1** (15 minutes) *Why it matters: these few lines are the whole of GPTQ. Everything else around them is bookkeeping and speed.*
#
# Return `codes` (out, n) of a weight (out, n), and `errors` (out, n), float32: column $j$ of them is $e$ as above.
#
# * `grids[j]` is the grid of column `j`: `grid.encode(column)` gives codes of an (out, 1) column, `grid.decode(codes)` what they stand for.
# * `factor` (n, n) is $U$.
# * Leave the weight that you are given as it is.

# %%
import torch

from helpers.notebook.exercises import check, hint, solution
from helpers.weights.quantization.gptq import inverse_factor
from helpers.weights.quantization.integer import weight_grid


def my_round_columns(weight, factor, grids):
    return None  # your code: codes, errors


# hint("02b.1")  # solution("02b.1")
round_columns = check("02b.1", my_round_columns)
factor, grid = inverse_factor(seen.matrix), weight_grid(weight, 3)
codes, errors = round_columns(weight.float(), factor, [grid] * weight.shape[1])
moved = (codes != grid.encode(weight)).float().mean()
print(f"{moved:.0%} of the codes are others than plain rounding's")

# %% [markdown]
# That these errors are what the output loses can be checked. The sum of their squares is the output's squared error (with the damping's share), since $H^{-1} = U^T U$ turns it into a sum of squares:

# %%
from helpers.notebook.quantization_gptq import check_errors

check_errors(results, weight, grid.decode(codes), errors, seen.matrix)

# %% [markdown]
# ## Groups, order, blocks
#
# * With **groups** a group's scale is made when its first column is reached, of the weights as they have become.
# * **Act order** begins with the columns whose inputs are largest: while most others are left to make up for them.
# * **Blocks** of 128 columns change nothing: the columns behind a block hear of its errors together, in one product. That is what made the method fast enough for large models.

# %%
from helpers.notebook.quantization_gptq import show_layer

ratios = show_layer(results, weight, seen.matrix)
print(f"3 bits, a scale a row: {ratios[3, 'channel']:.1f} times smaller;", end=" ")
print(f"you guessed {GUESS_SMALLER:g}")

# %% [markdown]
# ## How many texts does it need?
#
# The Hessian of few tokens says too much about these few. Here is the same layer's error on texts that were *not* calibrated on, by the number of calibration texts:

# %%
from helpers.notebook.quantization_gptq import draw_calibration, hessians_by_count

unseen = [[*prompt, *answer] for prompt, answer in texts.pairs]
hessians = hessians_by_count(tuned, name, texts.calibration)
of_unseen = observe(tuned, unseen, Hessian, {name: linear})[name].matrix
draw_calibration(results, weight, hessians, of_unseen)

# %% [markdown] tags=["library-none"]
# ## The library that people use
#
# GPTQModel and llm-compressor write such checkpoints. Both want a GPU, or packages that the course doesn't bring, so they are left out here. What they write is the format that notebook 02 writes, too, and that vLLM serves.

# %% [markdown] tags=["measure"]
# ## The whole model
#
# Block after block: calibrate on what the quantized blocks before it give, quantize, go on. So a block also makes up for what the ones before it got wrong.

# %%
from helpers.notebook.quantization_gptq import compare_models, quantized_models

calibration, few = texts.calibration, sizes.few_bits
by_bits = {b: quantized_models(results, tuned, calibration, b) for b in few}
perplexities = compare_models(results, tuned, by_bits, texts)

# %% [markdown]
# Where do the errors lie? Each layer, given the input that it has in the unquantized model:

# %%
from helpers.notebook.quantization_gptq import draw_layer_errors

draw_layer_errors(tuned, by_bits, unseen[: sizes.logits])

# %% [markdown]
# And the answers, in 3 bits:

# %%
from helpers.notebook.quantization_gptq import show_answers_of

show_answers_of(results, tuned, by_bits[3], tokenizer, texts, sizes, 3)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Enough bits.** In 4 bits with small groups there is little error to move around (notebook 02).
# * **Other texts.** What was calibrated on SQL is made for SQL. Calibrate on what the model will read.
# * **Time and memory.** The Hessian of a layer with $n$ inputs has $n^2$ numbers, and its inverse costs $n^3$ operations. A model of 7 billion weights takes a GPU minutes.
#
# | you see | do |
# |---|---|
# | "The Hessian can't be inverted with damping ..." | more damping, or more calibration texts |
# | good perplexity, bad answers on other tasks | calibrate on more than one kind of text |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** No two inputs of a layer go together: their products cancel out. What does GPTQ bring? (a) nothing: it is plain rounding then (b) as much as ever (c) it fails
#
# <details><summary>Answer</summary>
#
# (a): $H$ is diagonal, so is $U$, and no column moves for another. (b) forgets what the Hessian is for. (c) a diagonal matrix is easily inverted.
# </details>
#
# **2.** Why is the last column of a row the worst off? (a) its weights are larger (b) nothing is left to make up for its error, and it has taken in everybody else's (c) it is rounded twice
#
# <details><summary>Answer</summary>
#
# (b), which is why act order puts the inputs that matter least last. (a) has nothing to do with the place in the row. (c) every column is rounded once.
# </details>
#
# **3.** GPTQ makes the error of the *weights* (a) smaller (b) larger than plain rounding's (c) zero
#
# <details><summary>Answer</summary>
#
# (b): plain rounding already takes the nearest number for each. GPTQ gives that up, for a smaller error of the output. (a) and (c) are impossible on the same grid: nothing is nearer than the nearest.
# </details>
#
# **The rule:** below 4 bits, or with a scale a row, calibrate: GPTQ for weights alone, and look at the answers afterwards.
#
# **What limits it now:** it looks at one layer at a time, and never at the loss. Training with rounded weights does: 02d.
#
# References: Frantar et al., *GPTQ* (2022); Hassibi, Stork, *Optimal Brain Surgeon* (1993); Frantar, Alistarh, *Optimal Brain Compression* (2022).
