# ---
# jupyter:
#   course:
#     minutes: 3
#     headline: >-
#       SmolLM2-135M, fine-tuned, weights and activations in 8 bits: SmoothQuant has
#       {smoothquant.perplexity_ratio.as_it_is:.3f} times the perplexity of plain W8A8 on
#       {smoothquant.perplexity_ratio.as_it_is.n} reference answers; with outliers made in its norms (the same function)
#       {smoothquant.perplexity_ratio.with_outliers:.3f} times, and {smoothquant.answers_broken.smoothquant.with_outliers:.0f}
#       of {smoothquant.answers_broken.smoothquant.with_outliers.n} answers broken where plain W8A8 breaks
#       {smoothquant.answers_broken.w8a8.with_outliers:.0f}
# ---

# %% [markdown] tags=["card"]
# # 02c · SmoothQuant
#
# **Activations are hard to round, weights are easy. Can they share the burden?**
#
# | | |
# |---|---|
# | belongs to | 02 quantization (an extra: skip it if you like) |
# | the term it attacks | arithmetic: bytes times bytes; and weight bytes / bandwidth |
# | you will be able to | move a scale through a product without changing it; choose alpha; say when plain W8A8 is enough |
# | time | 25 minutes for you; about 3 for the machine under the profile `cpu` |
# | memory | 8 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Notebook 02 rounded weights and activations to 8 bits (W8A8). LLM.int8 kept outliers in 16 bits, which hardware doesn't like. SmoothQuant rescales instead.
#
# Suppose that some columns of the activations were 64 times as large, and the model still the same function. How many of 100 answers that were right would plain W8A8 break?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_BROKEN: float = 20.0  # your guess: of 100 right answers, wrong ones in plain W8A8

# %%
import helpers
from helpers.notebook.quantization_models import open_models, texts_for
from helpers.notebook.quantization_sizes import QUANTIZATION

lesson = helpers.start("02c_smoothquant", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, QUANTIZATION[PROFILE]
guessed = "smoothquant.broken_per_hundred.w8a8.with_outliers"
results.prediction(guessed, GUESS_BROKEN, "answers")
opened = open_models(lesson, sizes)
tuned, tokenizer = opened.tuned, opened.tokenizer
texts = texts_for(tokenizer, sizes, SEED)

# %% [markdown] tags=["build"]
# ## A product doesn't mind
#
# A linear layer computes $y = x W^T$. Divide column $j$ of $x$ by a number $s_j$, and multiply column $j$ of $W$ by it: $y$ is what it was. Who divides $x$? The norm before it, whose own weights take $1 / s_j$. So it costs nothing when the model runs.
#
# Where an input column is large, $s_j$ should be large. Where the weight's column is large, it should be small. SmoothQuant (Xiao et al. 2022) takes
#
# $$s_j = \max|X_j|^{\alpha} / \max|W_j|^{1 - \alpha}$$
#
# With $\alpha = 1$ the weights take everything, with 0 the activations. In between they share.
#
# **Exercise 02c.1** (5 minutes) *Why it matters: AWQ and LLM engines move scales in the same way.*
#
# Return `s` (in,). Magnitudes below `1e-5` count as `1e-5`, so that no column of zeros divides by 0.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_smooth_scale(activation_absmax, weight_absmax, alpha=0.5):
    return None  # your code


# hint("02c.1")  # solution("02c.1")
smooth_scale = check("02c.1", my_smooth_scale)

# %% [markdown]
# On the layer whose input is the most uneven:

# %%
from helpers.notebook.quantization_smoothquant import draw_before_and_after, most_uneven
from helpers.weights.quantization.calibration import observe

input_sizes = observe(tuned, texts.calibration)
name = most_uneven(input_sizes, tuned)
columns = tuned.get_submodule(name).weight.detach().abs().amax(0)
absmax = input_sizes[name].absmax
draw_before_and_after(absmax, columns, smooth_scale(absmax, columns, 0.5), name)

# %% [markdown]
# ## Outliers to order
#
# Large models have columns of activations that are a hundred times the others. Compare the figure above. The same move can make some: multiply every 20th channel of what each norm gives by 64, and divide the columns of the layers that read it. That is **the same function**, with the trouble of a large model. So there are two models from here on.

# %%
from helpers.notebook.quantization_smoothquant import (
    check_same_function,
    smoothed,
    with_outliers,
)

models = {"as it is": tuned, "with outliers": with_outliers(tuned)}
same = {"with outliers": models["with outliers"]}
same["smoothed"] = smoothed(tuned, texts.calibration)
same["outliers, smoothed"] = smoothed(models["with outliers"], texts.calibration)
check_same_function(results, same, tuned, texts.calibration[: sizes.logits])
del same

# %% [markdown]
# ## Alpha
#
# How much should the weights take? The change of the logits by alpha, on training texts:

# %%
from helpers.notebook.quantization_smoothquant import draw_sweep

some = texts.calibration[: sizes.logits]
best = draw_sweep(results, models, texts.calibration, some)

# %% [markdown] tags=["library-none"]
# ## The library that people use
#
# llm-compressor applies SmoothQuant and writes W8A8 checkpoints; it isn't among the course's packages, since it pins other versions of torch. The checkpoint that it writes is the one that notebook 02 writes and vLLM serves.

# %% [markdown] tags=["measure"]
# ## What it saves
#
# Perplexity of test questions' reference answers, with the alphas found above:

# %%
from helpers.notebook.quantization_smoothquant import show_arms

perplexities = show_arms(results, models, texts.calibration, texts, best)

# %% [markdown]
# And the answers, against float32's, question by question:

# %%
from helpers.notebook.quantization_smoothquant import read_guess, show_answers

broken, right = show_answers(results, models, tuned, tokenizer, texts, best, sizes)
read_guess(results, broken, right, GUESS_BROKEN)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **No outliers.** Then there is nothing to move, and plain W8A8 does as well: compare the two models above.
# * **4 bits.** Weights that have taken in outliers need their 8 bits. For fewer, see AWQ: it moves scales for the weights' sake, and leaves activations in 16 bits.
# * **Where no norm stands before.** `o_proj` and `down_proj` read what attention and the MLP give; SmoothQuant leaves them as they are.
#
# | you see | do |
# |---|---|
# | "No factors can move through this model's norms or layers" | a norm of another kind: quantize it with GPTQ |
# | answers get worse with alpha near 1 | the weights took too much: 0.5 to 0.8 is usual |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** alpha = 1 makes all input columns equally large. Why not always take it? (a) the weights' columns are uneven then, and share one scale a row (b) the function changes (c) it overflows
#
# <details><summary>Answer</summary>
#
# (a): the trouble has only moved. (b) it never changes. (c) 8-bit codes have a scale.
# </details>
#
# **2.** Why does one outlier column spoil the rounding of a whole token? (a) all columns of the token share its scale (b) it is multiplied more often (c) it doesn't: only its own number is off
#
# <details><summary>Answer</summary>
#
# (a): the largest number sets the step for all. (b) every column is multiplied equally often. (c) its own number is the only one that is rounded well.
# </details>
#
# **3.** LLM.int8 or SmoothQuant on hardware with fast 8-bit products? (a) LLM.int8: it is exact (b) SmoothQuant: all of the product is in 8 bits, with nothing to take apart (c) neither
#
# <details><summary>Answer</summary>
#
# (b). (a): neither is exact, and taking inputs apart at each call often costs more than the product saves. (c) both keep the weights in 8 bits, and their bytes count with few tokens.
# </details>
#
# **The rule:** W8A8 where hardware multiplies bytes; look for outliers first, and smooth if there are some.
#
# **What limits it now:** 8 bits a weight. Notebook 02 goes to 4, with the activations left alone.
#
# References: Xiao et al., *SmoothQuant* (2022); Dettmers et al., *LLM.int8()* (2022).
