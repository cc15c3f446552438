# ---
# jupyter:
#   course:
#     minutes: 3
#     headline: >-
#       A small Llama trained in four precisions, loss at the end: float32 {precision.training_loss.fp32:.2f}, bfloat16
#       under autocast {precision.training_loss.bf16:.2f}, float16 with loss scaling
#       {precision.training_loss.fp16_scaled:.2f}, without {precision.training_loss.fp16_unscaled:.2f} (float16 emulated)
# ---

# %% [markdown] tags=["card"]
# # 01c · Mixed-precision training
#
# **Why does training in two bytes need four bytes as well, and a factor on the loss?**
#
# | | |
# |---|---|
# | belongs to | 01 half precision (an extra: skip it if you like) |
# | the term it attacks | none at decoding: the rate at which a training step computes |
# | you will be able to | say why float16 loses gradients; choose a loss scale, and let it find its place; say why the weights stay in float32 |
# | time | 25 minutes for you; about 1 for the machine under the profile `cpu` |
# | memory | 5 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# float16's smallest number above 0 is about 0.00000006. Gradients are small, and in a large batch each piece's are divided by the number of pieces.
#
# What share of the weights' gradients will be 0 in float16, in a batch of 1,024 pieces?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_ZEROS: float = 0.1  # your guess: share of float16's gradients that are 0
PIECES: int = 1024  # each batch is one of so many of a large one; try 1

# %%
import helpers

NAME = "01c_mixed_precision"
lesson = helpers.start(NAME, profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results = lesson.results
results.prediction("precision.gradients_lost.fp16_unscaled", GUESS_ZEROS, "share")

# %% [markdown] tags=["build"]
# ## Too small: gradients
#
# Notebook 01 looked at numbers that are too large. Training has the opposite trouble. A **gradient** says how the loss changes with a number in the model, and most gradients are tiny.
#
# Large batches make them smaller still. The loss is a mean over the batch, a million tokens in a real training, which is computed in pieces: each piece's loss is divided by their number, and so is each gradient. `PIECES` says how many.

# %%
import random

from helpers import models
from helpers.text_to_sql.dataset import load_split
from helpers.training.completions import IGNORED, by_schema, encode
from helpers.training.mixed_precision import batch_loss
from helpers.training.packing import collate, pack, trees_of

model, tokenizer = models.load(MODEL_ID, device=lesson.device)
LENGTH = 512  # of a row: several examples share it
examples = load_split("train", limit=200 if PROFILE == "smoke" else None)
groups = by_schema(examples, (encode(e, tokenizer) for e in examples))
rows = pack(trees_of(groups, LENGTH), LENGTH)
random.Random(SEED).shuffle(rows)


def batch_of(*chosen):
    tensors = collate(chosen, tokenizer.pad_token_id)
    return {name: tensor.to(lesson.device) for name, tensor in tensors.items()}


# %% [markdown]
# The gradients of all activations, recorded on one row of questions and answers:

# %%
from helpers.notebook.gradient_sizes import draw_gradients
from helpers.weights.precision.ranges import recording

with recording(model) as seen:
    batch_loss(model, batch_of(rows[0])).backward()
of_weights = [p.grad for p in model.parameters() if p.grad is not None]
gradients = list(seen.gradients.values())
draw_gradients(gradients, PIECES)

# %% [markdown]
# The last column is the cure, **loss scaling**: multiply the loss by a large number, and every gradient grows by as much. Divide it out again in float32 before the weights are changed.
#
# **Exercise 01c.1** (4 minutes) *Why it matters: too small a factor saves nothing, too large a one overflows.*
#
# Return the largest power of two (the factor itself, not its exponent) by which gradients can be multiplied, if the largest of them is `largest_gradient` and the format's numbers end at `largest_number`. (Powers of two change no mantissa.)


# %%
import math

from helpers.notebook.exercises import check, hint, solution
from helpers.weights.precision.formats import FORMATS


def my_largest_scale(largest_gradient, largest_number):  # two positive numbers
    return None  # your code


# hint("01c.1")  # solution("01c.1")
largest_scale = check("01c.1", my_largest_scale)
steepest = max(g.abs().max().item() for g in gradients + of_weights) / PIECES
power = math.log2(largest_scale(steepest, FORMATS["float16"].largest))
print(f"the largest gradient of a piece is {steepest:.2g}:", end=" ")
print(f"the loss can be multiplied by 2^{power:.0f}")
model.zero_grad()
del seen, gradients, of_weights

# %% [markdown]
# ## Mixed precision
#
# **Mixed precision** (Micikevicius et al. 2018): compute in half precision, keep the weights in float32, scale the loss. How large should the scale be? Gradients change while training goes on, so it is found on the way:

# %%
from dataclasses import dataclass  # what the class below needs

from helpers.training.mixed_precision import LossScaler, train

print("dataclass writes __init__;", end=" ")
print(f"{LossScaler.__name__} starts at {LossScaler().scale:g}")

# %%
# show: helpers.training.mixed_precision:LossScaler

# %% [markdown]
# Train a small model from scratch, four times, on the same batches: in float32; in bfloat16 under torch's **autocast**, which casts weights and activations for each product and keeps the weights themselves in float32; in float16 without and with loss scaling.
# Its vocabulary is the tokens that occur in these batches: beside all 49,152 there would be little left of a small model.
#
# Float16 is *emulated*: computed in float32, with weights, activations and gradients rounded to float16. Many CPUs can't do better, and what is lost is the same.

# %%
import torch

STEPS = {"smoke": 6, "full": 150}.get(PROFILE, 50)
batches = [batch_of(row) for row in (rows * STEPS)[1 : STEPS + 2]]
known = torch.cat([b["input_ids"].flatten() for b in batches]).unique()
for b in batches:  # the tokens that occur are numbered anew, in order
    learned = b["labels"] != IGNORED
    b["labels"][learned] = torch.searchsorted(known, b["labels"][learned])
    b["input_ids"] = torch.searchsorted(known, b["input_ids"])
SMALL = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, head_dim=32)
SMALL |= dict(num_attention_heads=4, num_key_value_heads=2, vocab_size=len(known))
print(f"{STEPS} steps; {len(known):,} of {len(tokenizer):,} tokens occur")

# %%
from helpers.notebook.gradient_sizes import KEYS, SCALED, show_trainings

float16, scaler = torch.float16, LossScaler(PIECES * 2.0**20, patience=100)
WAYS = {name: {} for name in KEYS}
WAYS["bfloat16 (autocast)"] = dict(autocast=torch.bfloat16)
WAYS["float16, no scaling (emulated)"] = dict(emulate=float16)
WAYS[SCALED] = dict(emulate=float16, scaler=scaler)
curves = {}
for name, options in WAYS.items():
    small = models.shape_only("llama-50m", device=lesson.device, seed=SEED, **SMALL)
    curves[name] = train(small, batches[:STEPS], lr=5e-4, pieces=PIECES, **options)
show_trainings(results, curves)

# %% [markdown]
# And why are the weights kept in float32? A step changes a weight by a little. Added to a weight of two bytes, that little may be less than half the distance to its neighbour: it is rounded away. How often? The last of the four models learns one step more, gently.

# %%
from helpers.training.mixed_precision import swallowed

before = [p.detach().clone() for p in small.parameters()]
train(small, batches[STEPS:], lr=3e-5)  # a fresh AdamW: a weight moves by the rate
after = [p.detach() for p in small.parameters()]
for dtype in ("bfloat16", "float16"):
    share = swallowed(before, after, models.dtype_of(dtype))
    print(f"of one step's changes, weights kept in {dtype}", end=" ")
    print(f"would have missed {share:.0%}")

# %% [markdown] tags=["library"]
# ## The library that people use
#
# torch's `GradScaler` beside ours: the same overflows must lead to the same scales.

# %%
import numpy as np

from helpers.notebook.gradient_sizes import compare_scalers

fates = (np.random.default_rng(SEED).random(100) < 0.7).tolist()
compare_scalers(results, lesson.device, fates)

# %% [markdown] tags=["measure"]
# ## What you guessed

# %%
from statistics import mean

for name, steps in curves.items():
    lost = mean(step.zeros for step in steps)
    kind = "simulated" if "emulated" in name else "measured"
    key = f"precision.gradients_lost.{KEYS[name]}"
    results.metric(key, lost, "share", kind=kind, n=len(steps))
    if KEYS[name] == "fp16_unscaled":
        print(f"float16 without scaling: {lost:.0%} of the gradients were 0;", end=" ")
        print(f"you guessed {GUESS_ZEROS:.0%}")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **bfloat16 needs no scaling.** It has float32's range: that is why most models of today are trained in it.
# * **A processor without the units** gains nothing: every product goes by way of float32.
#
# | you see | do |
# |---|---|
# | the loss stops falling in float16 | gradients became 0: scale the loss |
# | the loss is NaN from the second step on | the scale is too large, and nothing checks for overflow: `GradScaler` does |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Gradients become 0 in float16. What helps? (a) a larger learning rate (b) a factor on the loss (c) larger batches
#
# <details><summary>Answer</summary>
#
# (b): every gradient grows by it, and it is divided out again in float32. (a) zero times anything is zero. (c) makes each piece's gradients smaller.
# </details>
#
# **2.** Why keep float32 weights beside the bfloat16 ones? (a) to load checkpoints (b) a step's change is often smaller than half the distance to the next bfloat16 number (c) bfloat16 overflows
#
# <details><summary>Answer</summary>
#
# (b): it would be rounded away, step after step. (a) is no reason. (c) it has float32's range.
# </details>
#
# **3.** The scaler halves its scale. What happened? (a) a gradient was infinite or NaN (b) a gradient was 0 (c) the loss rose
#
# <details><summary>Answer</summary>
#
# (a): that step is thrown away. (b) and (c) are not what it looks at.
# </details>
#
# **The rule:** train under bfloat16 autocast with float32 weights; where only float16 is fast, scale the loss and let the scale find its place.
#
# **What limits it now:** every weight, its gradient and two averages are still kept in float32. Notebook 03 trains a few percent of them.
#
# References: Micikevicius et al., *Mixed Precision Training* (2018); Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training* (2019).
