# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       a quarter of the bytes, {fp8.answers_broken.a_scale_a_channel:.0f} of
#       {fp8.answers_broken.a_scale_a_channel.n} answers broken, {fp8.answers_fixed.a_scale_a_channel:.0f}
#       fixed
# ---

# %% [markdown] tags=["card"]
# # 01b · Eight-bit floating point
#
# **One byte a weight, and still a float: what does it cost, and who can use it?**
#
# | | |
# |---|---|
# | belongs to | 01 half precision (an extra: skip it if you like) |
# | the term it attacks | weight bytes / bandwidth; on GPUs with the units, the rate, too |
# | you will be able to | say why an eight-bit float needs a scale, and how many; quantize a model to it; tell where it is fast and where it is only small |
# | time | 20 minutes for you; about 5 for the machine under the profile `cpu` |
# | memory | 5 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# In notebook 01, bfloat16 kept 8 bits of exponent and 7 of mantissa. The format **e4m3** keeps 4 and 3: its numbers go from about 0.002 to 448, with eight steps between a number and its double.
#
# If all of the model's linear layers but the last, which makes the logits, are kept like this, how many of 100 answers that were right will be wrong?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "fine-tuned"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_BROKEN: float = 5.0  # your guess: of 100 right answers, so many become wrong

# %%
import helpers

lesson = helpers.start("01b_fp8", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, lesson.sizes
results.prediction("fp8.broken_per_hundred", GUESS_BROKEN, "answers")

# %% [markdown] tags=["build"]
# ## Cast it, and see
#
# Take one matrix of the model, cast it to e4m3, and look at what is left of it. Then do the same after multiplying by a power of two (and dividing afterwards).

# %%
import torch

from helpers import models
from helpers.notebook.formats_shown import draw_scale_errors
from helpers.weights.quantization.fp8 import dequantize, quantize

model, tokenizer = models.load(MODEL_ID, dtype="float32", device=lesson.device)
linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
name, weight = next((n, m.weight.detach()) for n, m in linears.items())
size, largest = weight.std().item(), weight.abs().max().item()
print(f"{name}: weights of {size:.3f} (root mean square), the largest {largest:.2f}")


def relative_error(scale):
    back = dequantize(quantize(weight, scale), scale)
    return ((back - weight).norm() / weight.norm()).item()


one = torch.ones(1, 1, device=lesson.device)
draw_scale_errors({p: relative_error(one * 2.0**-p) for p in range(-8, 20)})

# %% [markdown]
# The flat bottom is the mantissa: three bits are off by so much, whatever the scale. On the left the weights fall among the format's smallest numbers, where precision runs out; on the right the large ones are cut off at 448.
#
# Where the dotted line stands says whether this matrix needs help. A **scale** brings any weights into the range. The usual choice moves the largest of them to 448. One scale for the matrix, or one for each **output channel**, a row of the matrix.
#
# **Exercise 01b.1** (5 minutes) *Why it matters: the same few lines, with 127 for 448, are the core of every integer quantizer of the next notebook.*
#
# `weight` is `(out, in)`. Return what it has to be *divided* by: a float32 tensor `(out, 1)`, or `(1, 1)` if not `per_channel`. Zeros must not lead to a division by zero: nothing smaller than `1e-12` counts as the largest weight.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_scale_of(weight, per_channel=True):
    return None  # your code


# hint("01b.1")  # solution("01b.1")
scales = check("01b.1", my_scale_of)
print(f"cast as it is: error {relative_error(one):.2%} of the norm")
print(f"one scale:     error {relative_error(scales(weight, False)):.2%}")
print(f"one a channel: error {relative_error(scales(weight, True)):.2%}")

# %% [markdown]
# With integers, the second is usually the better. Floats carry a scale in every number, their exponent, so here it hardly matters, unless channels differ by factors of thousands. Let them:

# %%
from helpers.weights.quantization.fp8 import scale_of

skewed = weight.clone()
skewed[0] *= 1e6
for words, per_channel in (("one scale", False), ("one a channel", True)):
    scale = scale_of(skewed, per_channel)
    back, others = dequantize(quantize(skewed, scale), scale)[1:], skewed[1:]
    error = (back - others).norm() / others.norm()
    print(f"{words:14} error of all other channels {error.item():.2%}")

# %% [markdown]
# ## A layer of it
#
# The package's layer keeps one byte a weight. On a device that multiplies eight-bit floats, the inputs are quantized as well, with a scale a token, and the product is made of bytes.

# %%
# show: helpers.weights.quantization.fp8:scale_of

# %%
import copy

from torch.nn import functional as F

from helpers.weights.quantization import fp8
from helpers.weights.quantization.fp8 import LARGEST, has_units

# %%
# show: helpers.weights.quantization.fp8:Fp8Linear.forward

# %%
units = fp8.has_units(lesson.device)
emulating = "no, so below they are EMULATED: widened, then used"
print("this device multiplies eight-bit floats:", "yes" if units else emulating)
eight = {
    "one scale": fp8.install(copy.deepcopy(model), per_channel=False),
    "a scale a channel": fp8.install(copy.deepcopy(model), per_channel=True),
}
models_of = {"float32": model, **eight}
held = {kind: fp8.linear_bytes(network) for kind, network in models_of.items()}
for kind, size in held.items():
    print(f"{kind:18} linear layers hold {size / 1e6:6.2f} MB")
ratio = held["a scale a channel"] / held["float32"]
results.metric("fp8.weight_bytes_ratio", ratio, "ratio")

# %% [markdown] tags=["library"]
# ## The library that people use
#
# torchao does this in one call. Are its bytes ours?

# %%
from torchao.quantization import Float8WeightOnlyConfig, quantize_

theirs = copy.deepcopy(model)
head = theirs.get_output_embeddings()


def is_inside(module, name):
    return isinstance(module, torch.nn.Linear) and module is not head


quantize_(theirs, Float8WeightOnlyConfig(), filter_fn=is_inside)
modules = eight["a scale a channel"].named_modules()
ours = {name: m for name, m in modules if isinstance(m, fp8.Fp8Linear)}
qdata = {name: theirs.get_submodule(name).weight.qdata for name in ours}
same = sum(torch.equal(m.q.float(), qdata[n].float()) for n, m in ours.items())
results.invariant("fp8.bytes_equal_torchao", same == len(ours), same, len(ours))
print(f"the same bytes in {same} of {len(ours)} layers")

# %% [markdown] tags=["measure"]
# ## What it costs in answers

# %%
from helpers.measuring.quality import logits_of, paired, perplexity, worst_logit_error
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.prompts import prompt_for

count, longest = {"smoke": (3, 12), "full": (450, 256)}.get(PROFILE, (100, 60))
asked = load_split("test", limit=count)
prompts = [prompt_for(tokenizer, e) for e in asked]
ids = [tokenizer(p, add_special_tokens=False).input_ids for p in prompts[:10]]


def right_with(network):
    options = dict(max_new_tokens=longest)
    answers = answer_in_batches(network, tokenizer, prompts, **options)
    return right_answers(asked, answers)


# %%
right = {"float32": right_with(model)}
for kind, network in eight.items():
    right[kind] = right_with(network)
    change = paired(right["float32"], right[kind])
    error = worst_logit_error(logits_of(network), logits_of(model), ids)
    key = kind.replace(" ", "_")
    results.metric(f"fp8.answers_fixed.{key}", change.fixed, "answers", n=change.n)
    results.metric(f"fp8.answers_broken.{key}", change.broken, "answers", n=change.n)
    results.metric(f"fp8.worst_logit_error.{key}", error, "logits", n=len(ids))
    print(f"{kind:18} logits off by {error:.2f} at most; answers: {change}")
good = sum(right["float32"])
broken = paired(right["float32"], right["a scale a channel"]).broken
if good:
    results.metric("fp8.broken_per_hundred", 100 * broken / good, "answers", n=good)
    print(f"of 100 right answers {100 * broken / good:.1f} are wrong", end=" ")
    print(f"with a scale a channel; you guessed {GUESS_BROKEN:g}")

# %% [markdown]
# ## What it brings in time
#
# Only where the device has the units can it bring any. Elsewhere every weight is widened at every call, which is more work than before. The label says which of the two this is.

# %%
import numpy as np

from helpers.measuring import timing
from helpers.profiling.step_time import steps_in_turns

arms = {"float32": model, "fp8": eight["a scale a channel"]}
times = steps_in_turns(arms, (1, 32), rounds=sizes.rounds)
for n in (1, 32):
    gain = timing.speedup(times["float32"][n], times["fp8"][n], of=np.median)
    key = f"fp8.step_speedup.{'native' if units else 'emulated'}.rows_{n}"
    results.metric(key, gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    label = "native" if units else "EMULATED"
    print(f"{label}, a step for {n:2} token{'s' * (n > 1)}: {gain}")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Without the units it is a way to store, not to compute.** A kernel that widens while it reads could save the bytes of a decode step; torch has none for CPUs.
# * **Activations have outliers** (notebook 01): a scale a token limits what one of them can spoil.
# * **The head stays wide.** Logits decide; production leaves that layer alone, too.
#
# | you see | do |
# |---|---|
# | weights become 0 | there is no scale, or it is upside down |
# | "Promotion for Float8 Types is not supported", "... not implemented for 'Float8_e4m3fn'" | torch has only few operations for it: widen first |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Weights of size 0.0005 are cast to e4m3 without a scale. What happens? (a) they get a relative error of a few percent (b) most become 0 (c) they overflow
#
# <details><summary>Answer</summary>
#
# (b): half of the smallest number is about 0.001, and what lies below it becomes 0. (a) holds for numbers in the format's range. (c) is the other end.
# </details>
#
# **2.** Why does a scale a channel help integers more than floats? (a) a float has an exponent of its own (b) integers are larger (c) floats have no channels
#
# <details><summary>Answer</summary>
#
# (a): small numbers keep their relative precision. (b) and (c) are not so.
# </details>
#
# **3.** On a laptop's CPU, eight-bit floats are good for (a) speed (b) memory (c) both
#
# <details><summary>Answer</summary>
#
# (b): nothing there multiplies them.
# </details>
#
# **The rule:** on a GPU that has the units, fp8 is the first thing to try; elsewhere take integers.
#
# **What limits it now:** a byte a weight, and units that few devices have. Notebook 02 goes to integers, of eight bits and of four.
#
# References: Micikevicius et al., *FP8 Formats for Deep Learning* (2022); Open Compute Project, *8-bit Floating Point Specification* (2023).
