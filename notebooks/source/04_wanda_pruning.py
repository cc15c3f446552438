# ---
# jupyter:
#   course:
#     minutes: 3
#     headline: >-
#       SmolLM2-135M, fine-tuned (bfloat16 where the machine computes in it), half of its layers' weights made 0 in
#       {pruning.seconds:.0f} s: of {pruning.execution_accuracy.wanda_50.n} test questions Wanda answers
#       {pruning.execution_accuracy.wanda_50:.0%} rightly, magnitude {pruning.execution_accuracy.magnitude_50:.0%}, the
#       dense model {pruning.execution_accuracy.dense:.0%}; zeros make a step {pruning.zeros_decode_speedup:.2f} times as
#       fast. 30% removed as heads and channels, and trained again: {pruning.execution_accuracy.structured_30:.0%} right;
#       a step of llama-300m (random weights) {pruning.structured_decode_speedup:.2f} times as fast, predicted
#       {pruning.predicted_structured_decode_speedup:.2f} by notebook 00's equation
# ---

# %% [markdown] tags=["card"]
# # 04 · Pruning: magnitude, Wanda, structure
#
# **Half the weights gone with no retraining: what does it cost, and when does it become speed?**
#
# | | |
# |---|---|
# | previous, next | 03 LoRA and QLoRA, 05 continuous batching (06 several devices: planned) |
# | the term it attacks | weight bytes / bandwidth |
# | you will be able to | write Wanda's score and mask, and a 2:4 mask; say when Wanda differs from magnitude; remove heads and channels by gradients; say which zeros make a step faster |
# | time | 45 minutes for you without the third exercise, which takes 20 more; about 3 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# A decode step reads every weight once. Many of them are nearly 0, and it is tempting to leave them out. This notebook leaves out half, in three ways, and looks at what is lost and what is gained. The two are further apart than one would think.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. Half of the weights of all linear layers become 0, the ones that matter least, and nothing is trained again. What share of test questions does the model still answer rightly? (What it answers with all of its weights stands in notebook 03.)
# 2. Of a model of 300 million weights, 30% are removed as whole heads and channels, so that all matrices get smaller. How many times as fast is a step for one token?
#
# Write both guesses below. They are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_WANDA_50: float = 0.5  # your guess: share right with half of the weights
GUESS_STRUCTURED_SPEEDUP: float = 1.4  # your guess: dense over 30% removed, one token
FACTOR: float = 64.0  # outliers that are made: so many times as large, a power of two
CHANNELS: float = 0.05  # of how many channels: a share
LEARNING_RATE: float = 1e-3  # of the LoRA after structured pruning

# %%
import helpers
from helpers.notebook.pruning_sizes import PRUNING

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("04_wanda_pruning", **options)
results, sizes, pruning = lesson.results, lesson.sizes, PRUNING[PROFILE]
guess, faster = GUESS_WANDA_50, GUESS_STRUCTURED_SPEEDUP
results.prediction("pruning.execution_accuracy.wanda_50", guess, "share")
results.prediction("pruning.structured_decode_speedup", faster, "x")

# %% [markdown] tags=["build"]
# ## Which weights matter?
#
# **Sparsity** is the share of weights that are 0. **Unstructured** pruning makes single weights 0, wherever they are. The plainest way takes the smallest: **magnitude** pruning (Han et al. 2015).
#
# But a weight is not alone. It is multiplied by an input, and what counts is the product. A tiny weight on an input that is always large can matter more than a large weight on an input that is nearly 0.
#
# **Wanda** (pruning by **w**eights **and** **a**ctivations, Sun et al. 2023) scores each weight by both:
#
# $$S_{ij} = |W_{ij}| \cdot \lVert X_j \rVert_2$$
#
# $X_j$ is the $j$-th input over all tokens of some **calibration** prompts, and $\lVert X_j \rVert_2$ its norm: the square root of the sum of its squares. Then it compares **within a row**, so that each output keeps as many weights. Nothing is trained. Here is a weight small enough to do it by hand, after the paper's first figure: three outputs, four inputs.

# %%
from helpers.notebook.pruning_layers import toy

weight, norms = toy()
print(weight.numpy())
print("norms of the inputs:", norms.tolist())

# %% [markdown]
# **Exercise 04.1** (5 minutes) *Why it matters: this is all of Wanda. Below it prunes the real model through your function.*
#
# Return Wanda's mask: a tensor of truth values like `weight` `(out, in)`, True where a weight stays. `squares` `(in,)` is what calibration counts: the sum of $x^2$ of each input. `sparsity` is the share of each row that goes. Score in float32: the weights may be in bfloat16.
# `keep_best(scores, sparsity)` is given: it is False at the share of each row that scores lowest, and True elsewhere.

# %%
from helpers.notebook.exercises import check, hint, solution
from helpers.weights.pruning.sparsity import keep_best


def my_wanda_mask(weight, squares, sparsity):
    return None  # your code


# hint("04.1")  # solution("04.1")
wanda_mask = check("04.1", my_wanda_mask)

# %% [markdown]
# Both ways on the small weight. If no two inputs go together (their products cancel out over the tokens), the squared error of the outputs is the sum of the squared scores of what goes: check it by hand.

# %%
from helpers.notebook.diagrams.pruning_scores import draw_pruning_scores
from helpers.notebook.pruning_layers import show_toy_errors
from helpers.weights.pruning.magnitude import magnitude, magnitude_mask

masks = {
    "magnitude": magnitude_mask(weight, 0.5),
    "wanda": wanda_mask(weight, norms**2, 0.5),
}
kept = [mask.tolist() for mask in masks.values()]
picture = draw_pruning_scores(weight.tolist(), norms.tolist(), *kept)
show_toy_errors(weight, norms, masks)

# %% [markdown]
# ## A pattern that hardware can skip
#
# Zeros that are anywhere are hard to skip. NVIDIA's GPUs have units for a pattern: in each four neighbours of a row at most two are not 0. It is called **2:4** (Mishra et al. 2021), and it is 50% sparsity with less freedom.
#
# **Exercise 04.2** (5 minutes) *Why it matters: any score becomes a pattern that hardware can use by ranking in smaller groups.*
#
# Return the mask of scores `(out, in)`: of the inputs 0 to 3 of a row the two best stay, of 4 to 7, and so on. `in` can be divided by four.


# %%
def my_two_of_four(scores):
    return None  # your code


# hint("04.2")  # solution("04.2")
two_of_four = check("04.2", my_two_of_four)
print(two_of_four(weight.abs() * norms).int().numpy())

# %% [markdown]
# ## The real model
#
# The fine-tuned model, and prompts of the training split with their answers. They are only read: Wanda needs to know how large inputs are, not what is right.

# %%
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.notebook.pruning_sizes import fine_tuned
from helpers.text_to_sql.dataset import load_split
from helpers.weights.pruning.wanda import wanda
from helpers.weights.quantization.calibration import (
    InputSizes,
    Prompts,
    calibration_prompts,
    layer_by_layer,
)

tuned, tokenizer, dtype = fine_tuned(lesson)
calibration = calibration_prompts(tokenizer, pruning.calibration, SEED)
count = sum(map(len, calibration))
print(f"{len(calibration)} calibration prompts, {count:,} tokens")

# %% [markdown]
# Where do inputs differ in size? For each linear layer, its largest input over the middle one. (q, k and v read the same input, and so do gate and up: one point for each.)

# %%
from helpers.notebook.pruning_layers import show_outliers

show_outliers(results, tuned, calibration[:16])

# %% [markdown]
# What stands out there is the model's own: somebody else trained it, and nobody asked for outliers. (In models of billions of weights a few channels of the hidden states are larger still: Dettmers et al. 2022.)
#
# **Layer by layer.** Once the first block is pruned, the second one reads something else. So Wanda goes through the blocks in order: observe what this one reads, prune it, run it again, and hand what it gives to the next.

# %%
# show: helpers.weights.pruning.wanda:wanda

# %%
import copy
from functools import partial

from helpers.notebook.pruning_quality import check_rows, prune_and_time
from helpers.weights.pruning.wanda import wanda_two_of_four


def wanda_at(model, mask):
    return wanda(copy.deepcopy(model), calibration, mask)


of_size, of_score = (partial(m, sparsity=0.5) for m in (magnitude_mask, wanda_mask))
half = {"magnitude": magnitude(copy.deepcopy(tuned), of_size)}
to_half = partial(wanda_at, tuned, of_score)
half["wanda"] = prune_and_time(results, to_half, len(calibration))
check_rows(results, half["wanda"])
pattern = wanda_at(tuned, partial(wanda_two_of_four, keep=two_of_four))

# %% [markdown]
# What became of the layers' outputs? Both pruned models, layer by layer, on what the dense one reads:

# %%
from helpers.notebook.pruning_layers import show_layer_errors

show_layer_errors(results, tuned, half, calibration[:4])

# %% [markdown]
# ## Whole heads and channels
#
# **Structured** pruning removes rows and columns, so that what is left is a smaller model, and any kernel is faster. What belongs together goes together. A **channel** of the MLP is a row of `gate_proj`, a row of `up_proj`, and the column of `down_proj` that reads them. A **KV head** is rows of `k_proj` and `v_proj`, with all heads that share it. Drawn with eight channels for many:

# %%
from collections.abc import Sequence

from helpers.measuring.cost_model import kv_heads_of
from helpers.notebook.diagrams.removed_structures import draw_removed_structures
from helpers.weights.pruning.structured import channel_importance, taylor

config = tuned.config.get_text_config()
group = config.num_attention_heads // kv_heads_of(config)[0]
channels = [True, True, False, True, False, True, True, False]
picture = draw_removed_structures([True, False, True], channels, min(group, 3))

# %% [markdown]
# How much of each? Here every layer loses as many, so that one configuration describes the result, and every library can load it. (LLM-Pruner leaves the first and last layers whole.)
#
# Which ones? **LLM-Pruner** (Ma et al. 2023) asks the loss. Its gradient says how much it changes with each weight. If a weight $w$ goes to 0, the loss changes, to first order, by $|w \cdot \partial L / \partial w|$. A group's importance is the sum over its weights. For channels:

# %%
# show: helpers.weights.pruning.structured:channel_importance

# %% [markdown]
# **Exercise 04.3** (20 minutes) *Why it matters: grouped heads are where structured pruning goes wrong without a word: a wrong column of `o_proj` still has the right shape.*
#
# Return how much each KV head matters, `(kv_heads,)`, in float32.
#
# * `weights` are q `(heads * head_dim, in)`, k and v `(kv_heads * head_dim, in)` and o `(out, heads * head_dim)`; `gradients` are those of the loss by them, in the same order. They may be in bfloat16.
# * A head has `head_dim` rows of q, one after the other, and as many columns of o. The same holds for KV heads in k and v.
# * Heads that share a KV head are neighbours: with 4 heads and 2 KV heads, heads 0 and 1 share the first.
# * A KV head matters as much as all weights that would go with it.


# %%
def my_kv_head_importance(weights, gradients, head_dim):
    return None  # your code; taylor(weight, gradient) is there


# hint("04.3")  # solution("04.3")
kv_head_importance = check("04.3", my_kv_head_importance)

# %% [markdown]
# Importance, by the gradients of training answers; and two plans that remove about 30% of the layers' weights. KV heads go whole, and there are few of them. The plan that does better on other training answers goes on.

# %%
from helpers.notebook.pruning_structured import (
    can_be_cut,
    compare_plans,
    draw_importance,
    training_pairs,
)
from helpers.weights.pruning.structured import importance, plan, smaller

cuttable = can_be_cut(tuned)
if cuttable:
    learn_from, choose_by = training_pairs(tokenizer, pruning.pairs)
    matters = importance(tuned, learn_from, kv_head_importance)
    draw_importance(matters)
    plans = {"heads and channels": plan(tuned, 0.3)}
    plans["channels alone"] = plan(tuned, 0.3, heads=False)
    best = compare_plans(tuned, matters, plans, choose_by)
    small = smaller(tuned, matters, plans[best])

# %% [markdown]
# ## What will it bring?
#
# Zeros that a dense kernel reads and multiplies bring nothing, so the prediction for them is 1. Smaller matrices are fewer **weight bytes**; the **overhead** of a layer stays. The course's equation, for a large shape:

# %%
from helpers.notebook.equation import equation_here
from helpers.notebook.pruning_speed import predict_structured

equation = equation_here(lesson)
predicted = predict_structured(results, equation, pruning.shape, 0.3, dtype)

# %% [markdown] tags=["library"]
# ## The library that people use
#
# PyTorch has magnitude pruning in `torch.nn.utils.prune`, and Wanda in torchao. Both keep a mask beside the weight, and multiply by it in every forward pass, until it is made permanent. Do they remove the same weights, on one layer of this model? A name is not a method: read what a library computes.

# %%
from helpers.notebook.pruning_library import (
    compare_magnitude,
    compare_wanda,
    layer_and_input,
)

name, one_weight, one_input = layer_and_input(tuned, calibration[0])
print(name, tuple(one_weight.shape))
compare_magnitude(results, one_weight)
compare_wanda(results, one_weight, one_input)

# %% [markdown] tags=["measure"]
# ## What does it cost?
#
# Every model takes the same exam: test questions, answered many at a time and judged by running the SQL; and the perplexity of reference answers (between how many tokens the model hesitates). Answers are compared with those of the dense model *paired*: how many did pruning fix, how many did it break?

# %%
from helpers.notebook.pruning_quality import Exam, show_dense

test = load_split("test")
exam = Exam.of(tokenizer, test, pruning)
dense = exam.take(tuned)
show_dense(results, dense)

# %%
from helpers.notebook.pruning_quality import draw_outcomes, read_outcomes, show_outcomes
from helpers.weights.pruning.magnitude import magnitude_two_of_four

outcomes = {}
for sparsity in pruning.sparsities:
    if sparsity == 0.5:
        pruned = half
    else:
        both = magnitude_mask, wanda_mask
        of_size, of_score = (partial(m, sparsity=sparsity) for m in both)
        pruned = {"magnitude": magnitude(copy.deepcopy(tuned), of_size)}
        pruned["wanda"] = wanda_at(tuned, of_score)
    for method, model in pruned.items():
        outcomes[method, sparsity] = exam.take(model)
fours = magnitude(copy.deepcopy(tuned), magnitude_two_of_four)
outcomes["magnitude", "2:4"] = exam.take(fours)
outcomes["wanda", "2:4"] = exam.take(pattern)
show_outcomes(results, dense, outcomes)
draw_outcomes(dense, outcomes, dtype)
read_outcomes(dense, outcomes, guess)

# %% [markdown]
# Wanda does not have to win everywhere: where all inputs of a layer are of one size, its score is the weight's size. What it is for shows where they are not.
#
# ## The same function, written down otherwise
#
# A norm's weight can be multiplied by a number, channel by channel, if the layers that read it divide by the same. The model computes the same function, to the bit where the number is a power of two. But some inputs are now far larger than the rest, as in large models, and the weights that read them are small.

# %%
from helpers.notebook import pruning_rescaling as rescaling
from helpers.weights.quantization.rescaling import rescale_norm

columns = rescaling.outlier_columns(tuned, CHANNELS, SEED)
rescaled = rescale_norm(copy.deepcopy(tuned), FACTOR, columns)
rescaling.show_same_function(tuned, rescaled, calibration[:2])
of_size, of_score = (partial(m, sparsity=0.5) for m in (magnitude_mask, wanda_mask))
again = {"magnitude": magnitude(copy.deepcopy(rescaled), of_size)}
again["wanda"] = wanda_at(rescaled, of_score)
rescaling.compare_masks(results, half, again)
before = {method: outcomes[method, 0.5] for method in half}
after = {method: exam.take(model) for method, model in again.items()}
rescaling.show_kept(results, before, after)
del again, rescaled

# %% [markdown]
# ## What do zeros save on disk?
#
# The weights of the blocks in files, two bytes a number. A zero takes as much room as any number, unless the file says where the others are.

# %%
from helpers.notebook.pruning_speed import show_storage

show_storage(results, tuned, half["wanda"], pattern)

# %% [markdown]
# ## Structure, and a short training
#
# The smaller model as it was cut, and after a short training of the same LoRA as in notebook 03, merged.

# %%
from helpers.notebook.pruning_structured import recover, show_structured

if cuttable:
    rate, arguments = LEARNING_RATE, pruning.recovery
    recovered = recover(lesson, small, tokenizer, rate, **arguments)
    show_structured(results, dense, exam.take(small), exam.take(recovered))

# %%
from helpers.kernels.fastest_step import fastest_step
from helpers.notebook.ask import make_ask

# Ask yourself, on any table: half["wanda"], half["magnitude"], pattern, recovered
SCHEMA = "CREATE TABLE ships (ship TEXT, harbour TEXT, built INTEGER, length_m REAL)"
QUESTION = "What is the oldest ship in Genoa?"
ask = make_ask(fastest_step(half["wanda"], turns=0), tokenizer, pruning.longest)
mine = ask(SCHEMA, QUESTION)
print(f"{len(mine.token_ids)} tokens")

# %% [markdown]
# ## When does sparsity become speed?
#
# Steps of the large shape, dense, with half of its weights 0, and with smaller matrices, in turns; then the same of this model. The large shape has random weights: what it says means nothing, what it costs is real.

# %%
from helpers.notebook import pruning_speed
from helpers.notebook.pruning_speed import SMALLER, ZEROS

turns, rounds = pruning.turns, sizes.rounds
shape = pruning.shape, 0.3, dtype, lesson.device
speed = pruning_speed.time_shape(*shape, turns, rounds)
pruning_speed.show_speed(results, speed, pruning.shape, predicted, faster)
print("the fine-tuned model:")
others = {ZEROS: lambda: half["wanda"]}
if cuttable:
    others[SMALLER] = lambda: small
own = pruning_speed.time_against_dense(lambda: tuned, others, turns, rounds)
pruning_speed.write_speed(results, own, ".shipped")

# %% [markdown]
# And a kernel that leaves zeros out? On a CPU there is the product of a sparse matrix in rows (CSR), here in float32. On NVIDIA's GPUs there are units for 2:4.

# %%
from helpers.notebook.pruning_speed import show_csr, show_two_of_four

show_csr(results, pruning.layer, sizes.rounds, pruning.turns, lesson.device)
show_two_of_four(results, pruning.layer, sizes.rounds, lesson.device)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Zeros are no speed.** A dense kernel reads and multiplies them. A sparse one has to read where the others are, and to jump: it pays only where few are left.
# * **Zeros are few bytes saved.** Half of the weights gone, and a bit for each weight to say which: more than half of the file is left. Quantizing to eight bits leaves less, to four bits far less (notebook 02).
# * **Small models have less to spare.** The papers' models are fifty to five hundred times as large, and lose less.
# * **Weights that stay could make up for those that go.** SparseGPT (Frantar and Alistarh 2023) moves them as GPTQ does (02b), and at 50% it is about as good as Wanda, which is why Wanda, so much simpler, was worth a paper.
# * **Structure has less choice.** At the same share it costs more answers than single weights do, and wants training after it.
#
# | you see | do |
# |---|---|
# | "A sparsity is the share of weights that go" | give a number from 0 up to less than 1 |
# | "2:4 needs rows that four divides" | prune to a sparsity instead |
# | "Heads and channels are removed from models with ..." | the model has its weights elsewhere: magnitude and Wanda work |
# | "A share of ... can't be removed" | give a smaller share |
# | a pruned model's file is as large as before | zeros are written out: keep it sparse, or zip it |

# %%
from helpers.notebook.pruning_quality import words_of
from helpers.notebook.pruning_speed import counted

slow = [f"{name}, {counted(n)}" for (name, n), gain in speed.items() if gain.low <= 1]
print(f"No faster than dense on {pruning.shape}:", "; ".join(slow) or "nothing")
least = dense.judged.share / 2
lost = [key for key, one in outcomes.items() if one.judged.share < least]
names = [f"{method} at {words_of(amount)}" for method, amount in lost]
print("Less than half of the right answers are left:", ", ".join(names) or "nowhere")

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** You prune half of the weights of a model by Wanda and serve it with a dense kernel. A step takes (a) half the time (b) as long as before (c) a little more than half
#
# <details><summary>Answer</summary>
#
# (b): the zeros are read and multiplied. (a) and (c) need a kernel that skips them, for a pattern that it can skip.
# </details>
#
# **2.** All inputs of a layer have the same norm. Wanda at 50% then (a) removes what magnitude removes within each row (b) removes nothing (c) keeps the largest inputs
#
# <details><summary>Answer</summary>
#
# (a): the score is the weight's size times a constant. What is left of the difference is that Wanda compares within rows, magnitude over the layer. (b) half of each row goes whatever the norms. (c) it removes weights, not inputs.
# </details>
#
# **3.** A channel of an MLP is removed. What else has to go? (a) nothing (b) the column of `down_proj` that reads it, and its rows of both `gate_proj` and `up_proj` (c) a head of the next layer
#
# <details><summary>Answer</summary>
#
# (b): otherwise shapes don't fit, or a column reads another channel. (c) heads read hidden states, which keep their size.
# </details>
#
# **The rule:** prune for speed only where something skips the zeros: structure anywhere, 2:4 on a GPU that has the units. To save bytes, quantize first.
#
# **What limits it now:** weights are read for every step, whoever waits. The next notebooks share a step among several users (05), or among several tokens (07, 08).
#
# References: Han et al., *Learning both Weights and Connections for Efficient Neural Networks* (2015); Sun et al., *A Simple and Effective Pruning Approach for Large Language Models* (2023); Frantar, Alistarh, *SparseGPT* (2023); Ma et al., *LLM-Pruner* (2023);
# Mishra et al., *Accelerating Sparse Deep Neural Networks* (2021); Dettmers et al., *LLM.int8()* (2022).
