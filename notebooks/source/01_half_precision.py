# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       a decode step in bfloat16 {precision.decode_speedup.bf16:.2f} times as fast, predicted
#       {precision.predicted_decode_speedup.bf16:.2f}; {precision.answers_broken.bf16:.0f} of
#       {precision.answers_broken.bf16.n} answers broken, {precision.answers_fixed.bf16:.0f} fixed
# ---

# %% [markdown] tags=["card"]
# # 01 · Half precision
#
# **What do fp16, bf16 and mixed precision buy, and what do they break?**
#
# | | |
# |---|---|
# | previous, next | 00 start here, 02 quantization |
# | the term it attacks | weight bytes / bandwidth |
# | you will be able to | read a number's bits; say which format overflows, and which one loses small numbers; predict what half the bytes bring; train in half precision |
# | time | 40 minutes for you; about 5 for the machine under the profile `cpu` |
# | memory | 7 GiB |
#
# A weight in float32 takes four bytes. Two bytes hold a coarser number. This notebook asks what that saves, and what gets lost.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A decode step reads every weight once. In **bfloat16** a weight takes two bytes instead of four.
#
# Take a model of a few hundred million weights, and a step for one token. How many times as fast will it be in bfloat16, on your machine?
#
# Write your guess into `GUESS_DECODE_SPEEDUP`. It is saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_DECODE_SPEEDUP: float = 2.0  # your guess: a step in float32 over one in bfloat16
EMULATE: str = "auto"  # formats emulated in float32: auto (slow ones), none, or names
SHAPE: str = "llama-300m"  # random weights for the prediction (smoke takes llama-50m)
PIECES: int = 1024  # training: each batch is one of so many of a large one; try 1

# %%
import helpers

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("01_half_precision", **options)
results, sizes = lesson.results, lesson.sizes
results.prediction("precision.decode_speedup.bf16", GUESS_DECODE_SPEEDUP, "x")

# %%
from helpers import models
from helpers.errors import CourseError
from helpers.measuring import memory, timing

shape = SHAPE if PROFILE != "smoke" else "llama-50m"
config = models.config_of(shape)
names = set(EMULATE.replace(" ", "").split(","))
to_emulate = set() if EMULATE in ("auto", "none") else names
if not to_emulate <= {"bfloat16", "float16"}:
    allowed = "auto, none, float16, bfloat16, or float16,bfloat16"
    raise CourseError(f"EMULATE is {EMULATE!r}: it can be {allowed}.")

# %% [markdown] tags=["build"]
# ## Half the bytes
#
# The same model, loaded three times: in float32 (**fp32**), float16 (**fp16**) and bfloat16 (**bf16**).

# %%
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
shipped = {}
for dtype in SHORT:
    shipped[dtype], tokenizer = models.load(MODEL_ID, dtype=dtype, device=lesson.device)
held = {dtype: memory.weight_bytes(model) for dtype, model in shipped.items()}
for dtype, size in held.items():
    print(f"{dtype:9} {size / 1e6:6.2f} MB")
exact = sum(2 * held[dtype] == held["float32"] for dtype in ("bfloat16", "float16"))
results.invariant("precision.half_the_bytes", exact == 2, exact, 2)
for dtype in ("bfloat16", "float16"):
    key = f"precision.weight_bytes_ratio.{SHORT[dtype]}"
    results.metric(key, held[dtype] / held["float32"], "ratio")

# %% [markdown]
# ## Where the bits go
#
# A number is kept in three parts: a **sign**, an **exponent** and a **mantissa**.
#
#     number = ± (1 + mantissa / 2^mantissa_bits) × 2^(exponent - bias)
#
# The three parts are whole numbers. The sign 1 means minus. The **bias**, about half of the largest exponent, makes negative powers possible.
#
# The exponent's bits decide how large and how small a number can be: the **range**. The mantissa's bits decide how close two neighbours are: the **precision**.
# fp16 and bf16 both have 16 bits, and share them out differently. Two formats of 8 bits show where the road leads.

# %%
import matplotlib.pyplot as plt

from helpers.notebook import plots
from helpers.weights.precision.formats import FORMATS

fig, ax = plt.subplots(figsize=(8, 2.6))
dark, orange, blue = plots.COLORS[:3]
LOOKS = {
    "sign": dict(color=orange),
    "exponent": dict(color=blue, hatch="//"),
    "mantissa": dict(color="white", hatch=".."),
}
for place, f in enumerate(FORMATS.values()):
    left = 0
    for part, bits in zip(LOOKS, (1, f.exponent_bits, f.mantissa_bits)):
        look = LOOKS[part] | dict(edgecolor=dark, label=None if place else part)
        ax.barh(place, bits, left=left, **look)
        left += bits
ax.set(title="How each format shares out its bits", xlim=(0, 36))
ax.set(xlabel="length (bits)", ylabel="format")
ax.set_yticks(range(len(FORMATS)), list(FORMATS))
ax.invert_yaxis()
ax.legend(loc="lower right")
print(" " * 18, "largest  smallest normal   smallest  step at 1")
for f in FORMATS.values():
    print(f"{f.name:15} {f.largest:10.5g} {f.smallest_normal:16.3g}", end=" ")
    print(f"{f.smallest:10.2g} {f.step_at_1:10.2g}")

# %% [markdown]
# *Step at 1* is the distance from 1 to the next number. Below *smallest normal* numbers go on for a while, losing one bit of precision with each halving: these are the **subnormal** ones. Below half of *smallest* there is only 0.
#
# To write a number's bits, find its power of two, count the steps that fit, and round:

# %%
import math  # what the function below needs

from helpers.weights.precision.formats import Fields, FloatFormat, from_bits, to_bits

# %%
# show: helpers.weights.precision.formats:to_bits

# %%
for number in (0.1, 1000.5, 70_000.0):
    print(f"{number:g}")
    for f in FORMATS.values():
        sign, exponent, mantissa = to_bits(number, f)
        bits = f"{sign} {exponent:0{f.exponent_bits}b} {mantissa:0{f.mantissa_bits}b}"
        kept = from_bits(Fields(sign, exponent, mantissa), f)
        print(f"   {f.name:15} {bits:34} = {kept:.9g}")

# %% [markdown]
# (float8_e4m3fn has no infinity: here, what is too large becomes its largest number.)
#
# **Exercise 01.1** (5 minutes) *Why it matters: who can read the bits knows why a format overflows, and where it is coarse.*
#
# The way back. Return the number that three fields say. The bias is `2 ** (exponent_bits - 1) - 1`.
# Mind the exponent field 0: there the mantissa has no leading 1, and the power of two is that of the exponent field 1. Leave infinity and NaN aside.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_value_of(sign, exponent, mantissa, exponent_bits, mantissa_bits):
    return None  # your code; all five are whole numbers


# hint("01.1")  # uncomment for help; solution("01.1") shows the course's own
value = check("01.1", my_value_of)
print(value(0, 15, 512, 5, 10), "is 1.5 in float16;", end=" ")
print(value(0, 0, 1, 5, 10), "is the smallest number above 0")

# %% [markdown]
# ## Rounding a tensor
#
# The same for whole tensors. Of two numbers that are equally near, the one with an even mantissa is taken: always rounding up would shift every sum a little.

# %%
import torch

from helpers.weights.precision.formats import rounded

# %%
# show: helpers.weights.precision.formats:rounded

# %% [markdown]
# Is that what torch does? Compare on random patterns of 32 bits, so that every exponent occurs, subnormals, infinities and NaNs among them; and on numbers halfway between two neighbours.

# %%
draw = torch.Generator().manual_seed(SEED)
patterns = torch.randint(-(2**31), 2**31, (500_000,), generator=draw)
patterns = patterns.to(torch.int32).view(torch.float32)
agreed = total = 0
for f in list(FORMATS.values())[1:]:
    grid = rounded(patterns, f)
    exponent = (torch.frexp(grid.double())[1] - 1).clamp(min=1 - f.bias)
    one = torch.ones_like(grid).double()
    half_step = torch.ldexp(one, exponent - f.mantissa_bits - 1)
    halfway = (grid.double() + torch.copysign(half_step, grid.double())).float()
    numbers = torch.cat([patterns, halfway])
    if not f.infinity:  # what is too large is each library's own choice there
        numbers = numbers[numbers.abs() <= f.largest]
    ours, theirs = rounded(numbers, f), numbers.to(f.dtype()).float()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    agreed, total = agreed + same.sum().item(), total + len(same)
    print(f"{f.name:15} {same.sum().item():9,} of {len(same):9,} as in torch")
results.invariant("precision.rounding_equals_torch", agreed == total, agreed, total)

# %% [markdown]
# ## Too large: activations
#
# Weights are small numbers: none is too large for any format here. What flows through the model, the **activations**, is not always small. Here is the largest that each linear layer reads, and that each block passes on, on text like that of its training.

# %%
from helpers.training.group_packing import make_batch
from helpers.training.mixed_precision import batch_loss
from helpers.weights.precision.ranges import blocks_of, recording

batch_size = 1 if PROFILE == "smoke" else 2
batch = make_batch(tokenizer, 10_000 + SEED, 0, batch_size, 512).to(lesson.device)
with recording(shipped["float32"]) as seen:
    batch_loss(shipped["float32"], batch).backward()  # the gradients come later
of_weights = [p.grad for p in shipped["float32"].parameters() if p.grad is not None]
shipped["float32"].zero_grad()
largest = {name: x.abs().max().item() for name, x in seen.activations.items()}
fig, ax = plt.subplots(figsize=(9, 3.6))
for label, marker, is_in in (
    ("read by a linear layer", "o", True),
    ("passed on by a block", "s", False),
):
    places = [i for i, n in enumerate(largest) if n.endswith(", in") == is_in]
    ax.plot(places, [list(largest.values())[i] for i in places], marker, label=label)
for name, style in (("float16", "--"), ("float8_e4m3fn", ":")):
    line = dict(color="#555555", linestyle=style, marker="")
    ax.axhline(FORMATS[name].largest, label=f"largest in {name}", **line)
ax.set(title="How large activations get, and where two formats end", yscale="log")
ax.set(xlabel="place in the model (count, from its first layer)")
ax.set(ylabel="largest activation (absolute value)")
ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
where = max(largest, key=largest.get)
room = FORMATS["float16"].largest / largest[where]
print(f"largest: {largest[where]:.0f}, at {where};", end=" ")
print(f"float16 ends at {room:.0f} times that")

# %% [markdown]
# What becomes of all these numbers in each format? *Error* is the median relative error of those that are kept.

# %%
from helpers.weights.precision.formats import fate

everything = torch.cat([x.flatten() for x in seen.activations.values()])
for f in list(FORMATS.values())[1:]:
    overflow, vanish, error = fate(everything, f)
    print(f"{f.name:15} too large {overflow:8.4%}", end="   ")
    print(f"become 0 {vanish:8.4%}   error {error:.2%}")

# %% [markdown]
# In published models a few activations are thousands of times larger than the rest (Sun et al. 2024), and one is enough for an overflow. To see what follows, make some here without changing what the model computes:
# multiply one of the two matrices that lead into each MLP (`up_proj`) by a power of two, and divide the one that leads out of it by the same. Look at the **logits**, the scores of all possible next tokens.

# %%
from helpers.measuring.quality import logits_of
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.precision.ranges import with_outliers

test = load_split("test")
texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
inside = max(size for name, size in largest.items() if "down_proj" in name)
factor = 2.0 ** (math.ceil(math.log2(FORMATS["float16"].largest / inside)) + 1)
print(f"inside the MLPs activations of up to {inside:.0f},", end=" ")
print(f"then of up to {inside * factor:.0f}")
for dtype, model in shipped.items():
    before = logits_of(model)(prompts[0])
    after = logits_of(with_outliers(model, factor))(prompts[0])
    broken = (~after.isfinite()).float().mean()
    change = (after - before).abs().max().item()
    if broken:
        print(f"   {dtype:9} {broken:.0%} of the logits are NaN")
    else:
        print(f"   {dtype:9} logits change by {change:.3g} at most")

# %% [markdown]
# float16 went to infinity inside, and infinity minus infinity is NaN. bfloat16 has float32's exponent, and so its range; it gives up precision instead.
#
# ## Too small: gradients
#
# Training has the opposite trouble. A **gradient** says how the loss changes with a number in the model, and most gradients are tiny. Those of the activations were recorded above. Here they are by size, with the smallest number of float16.
#
# Large batches make them smaller still. The loss is a mean over the batch, a million tokens in a real training, which is computed in pieces: each piece's loss is divided by their number, and so is each gradient. `PIECES` says how many.

# %%
from helpers.weights.precision.ranges import magnitudes, vanishing

gradients = list(seen.gradients.values())
fig, ax = plt.subplots(figsize=(8, 3.6))
scales = {"one batch": 1, f"a piece, one of {PIECES}": 1 / PIECES}
for (label, scale), marker in zip(scales.items(), plots.MARKERS):
    powers, shares = magnitudes([g * scale for g in gradients], lowest=-48, highest=0)
    ax.plot(powers, [100 * s for s in shares], marker=marker, markevery=3, label=label)
end = math.log2(FORMATS["float16"].smallest) - 1
ax.axvspan(-48, end, color="#dddddd", zorder=0, label="0 in float16")
ax.set(title="Gradients by size, and what float16 makes 0")
ax.set(xlabel="size (power of two)", ylabel="gradients (%)")
ax.legend()
print("become 0 in        one batch    a piece    a piece, loss x 65536")
for f in list(FORMATS.values())[1:]:
    lost = [vanishing(gradients, f, scale) for scale in (1, 1 / PIECES, 65536 / PIECES)]
    print(f"{f.name:15} {lost[0]:12.2%} {lost[1]:10.2%} {lost[2]:24.2%}")

# %% [markdown]
# The last column is the cure, **loss scaling**: multiply the loss by a large number, and every gradient grows by as much. Divide it out again in float32 before the weights are changed.
#
# **Exercise 01.2** (4 minutes) *Why it matters: too small a factor saves nothing, too large a one overflows.*
#
# Return the largest power of two (the factor itself, not its exponent) by which gradients can be multiplied, if the largest of them is `largest_gradient` and the format's numbers end at `largest_number`. (Powers of two change no mantissa.)


# %%
def my_largest_scale(largest_gradient, largest_number):  # two positive numbers
    return None  # your code


# hint("01.2")  # solution("01.2")
largest_scale = check("01.2", my_largest_scale)
steepest = max(g.abs().max().item() for g in gradients + of_weights) / PIECES
power = math.log2(largest_scale(steepest, FORMATS["float16"].largest))
print(f"the largest gradient of a piece is {steepest:.2g}:", end=" ")
print(f"the loss can be multiplied by 2^{power:.0f}")

# %% [markdown]
# ## Mixed precision
#
# **Mixed precision** (Micikevicius et al. 2018): compute in half precision, keep the weights in float32, scale the loss. How large should the scale be? Gradients change while training goes on, so it is found on the way:

# %%
from dataclasses import dataclass  # what the class below needs

from helpers.training.mixed_precision import LossScaler, train

# %%
# show: helpers.training.mixed_precision:LossScaler

# %% [markdown]
# Train a small model from scratch, four times, on the same batches: in float32; in bfloat16 under torch's **autocast**, which casts weights and activations for each product and keeps the weights themselves in float32; in float16 without and with loss scaling.
# Float16 is *emulated*: computed in float32, with weights, activations and gradients rounded to float16. Many CPUs can't do better, and what is lost is the same.

# %%
STEPS = {"smoke": 6, "full": 150}.get(PROFILE, 60)
SMALL = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, head_dim=32)
SMALL |= dict(num_attention_heads=4, num_key_value_heads=2, vocab_size=len(tokenizer))
seeds = [(20_000 + SEED, n) for n in range(STEPS)]
batches = [make_batch(tokenizer, *seed, 2, 512).to(lesson.device) for seed in seeds]
float16, scaler = torch.float16, LossScaler(PIECES * 2.0**20, patience=100)
ARMS = {
    "float32": {},
    "bfloat16 (autocast)": dict(autocast=torch.bfloat16),
    "float16, no scaling (emulated)": dict(emulate=float16),
    "float16, loss scaling (emulated)": dict(emulate=float16, scaler=scaler),
}
curves = {}
for name, options in ARMS.items():
    small = models.shape_only("llama-50m", device=lesson.device, seed=SEED, **SMALL)
    curves[name] = train(small, batches, lr=5e-4, pieces=PIECES, **options)
    zeros = sum(step.zeros for step in curves[name]) / STEPS
    skipped = sum(step.skipped for step in curves[name])
    print(f"{name:33} {zeros:6.1%} of the weights' gradients were 0;", end=" ")
    print(f"{skipped} steps skipped for an overflow")

# %%
from statistics import mean

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(3, 2))
for (name, steps), style in zip(curves.items(), ("-", "--", ":", "-.")):
    look = dict(linestyle=style, markevery=max(1, STEPS // 10))
    left.plot([step.loss for step in steps], label=name, **look)
left.set(xlabel="training (steps)", ylabel="loss (nats per token)")
left.set_title("The same training in four precisions")
left.legend(fontsize=8)
scaled = curves["float16, loss scaling (emulated)"]
powers = [math.log2(step.scale) for step in scaled]
right.plot(powers, marker="", label="scale")
skips = [n for n, step in enumerate(scaled) if step.skipped]
right.plot(skips, [powers[n] for n in skips], "v", label="overflow, skipped")
right.set(xlabel="training (steps)", ylabel="loss scale (power of two)")
right.set_title("The scale looks for its place")
right.legend()
KEYS = ("fp32", "bf16", "fp16_unscaled", "fp16_scaled")
for key, (name, steps) in zip(KEYS, curves.items()):
    last = [step.loss for step in steps[-STEPS // 6 :]]
    print(f"{name:33} loss at the end {mean(last):.3f}")
    kind = "simulated" if "emulated" in name else "measured"
    key = f"precision.training_loss.{key}"
    results.metric(key, mean(last), "nats", kind=kind, n=len(last))

# %% [markdown]
# And why are the weights kept in float32? A step changes a weight by a little. Added to a weight of two bytes, that little may be less than half the distance to its neighbour: it is rounded away.
#
# To see how often, train the shipped model for some steps more, gently. The trained weights are needed later, too: the shipped ones are *stored* in bfloat16, so they have nothing left to lose.

# %%
import copy

from helpers.training.mixed_precision import swallowed

TUNING_STEPS = {"smoke": 3, "full": 40}.get(PROFILE, 16)
tuned = copy.deepcopy(shipped["float32"]).train()
seeds, size = [(30_000 + SEED, n) for n in range(TUNING_STEPS)], (batch_size, 512)
more = [make_batch(tokenizer, *seed, *size).to(lesson.device) for seed in seeds]
train(tuned, more[:-1], lr=3e-5)
before = [p.detach().clone() for p in tuned.parameters()]
train(tuned, more[-1:], lr=3e-5)  # a fresh AdamW: a weight moves by the learning rate
for dtype in ("bfloat16", "float16"):
    after = [p.detach() for p in tuned.parameters()]
    share = swallowed(before, after, models.dtype_of(dtype))
    print(f"of one step's changes, weights kept in {dtype}", end=" ")
    print(f"would have missed {share:.0%}")
tuned.eval()
for name, model in (("shipped", shipped["float32"]), ("trained further", tuned)):
    numbers = torch.cat([p.detach().flatten() for p in model.parameters()])
    share = (numbers.bfloat16().float() != numbers).float().mean()
    print(f"{name}: rounding to bfloat16 changes {share:.0%} of the weights")

# %% [markdown]
# ## What will a step take?
#
# From bytes alone: half of them, half the time. But that is the time for reading. Measure what it is made of:
#
# * one linear layer in each format, its weights coming from memory, for 1, 8 and 32 tokens in a step, and for those of a whole prompt;
# * the overhead: a model with all the layers, but so narrow that its weights are next to nothing.
#
# First, what does this processor say it can do, and which formats are too slow here to go on with?

# %%
from functools import partial

from helpers.measuring.machine import describe_machine

machine = describe_machine()
native = {"bfloat16": machine.bf16_is_native, "float16": machine.fp16_is_native}
yes = "in hardware"
no = "not in hardware (or it doesn't tell): torch goes by way of float32"
for dtype in native:
    print(f"{dtype}: the CPU multiplies it {yes if native[dtype] else no}")
probe = {}
for dtype in SHORT:
    place = dict(device=lesson.device, dtype=models.dtype_of(dtype))
    layer = torch.nn.Linear(1024, 1024, bias=False, **place).requires_grad_(False)
    run = partial(layer, torch.randn(32, 1024).to(**place))
    probe[dtype] = timing.seconds_of(run, device=lesson.device)
    microseconds = probe[dtype] * 1e6
    print(f"{dtype:9} 32 tokens through a small layer: {microseconds:.0f} microseconds")
too_slow = {dtype for dtype in SHORT if probe[dtype] > 4 * probe["float32"]}
slow = too_slow if EMULATE == "auto" else to_emulate
print("emulated from here on, and timed for one token only:", end=" ")
print(", ".join(sorted(slow)) or "none")

# %%
from helpers.kernels import packed_linear
from helpers.profiling.step_parts import step_parts

NUM_TOKENS, PROMPT, CONTEXT = (1, 8, 32), 256, 128
quick = [dtype for dtype in SHORT if dtype not in slow]


def built(name, dtype):
    network = models.shape_only(name, dtype, lesson.device)
    return network if dtype in slow else packed_linear.install(network, turns=2)


giant = {dtype: built(shape, dtype) for dtype in SHORT}
options = dict(prompt=PROMPT, context=CONTEXT, rounds=sizes.rounds)
parts = step_parts({dtype: giant[dtype] for dtype in quick}, NUM_TOKENS, **options)
for dtype in slow:
    parts |= step_parts({dtype: giant[dtype]}, (1,), context=8, rounds=3)
for dtype, part in parts.items():
    reads = part.bytes_per_second() / 1e9
    line = f"{dtype:9} a layer reads {reads:5.1f} GB/s with 1 token"
    if dtype in quick:
        computes = part.operations_per_second(PROMPT) / 1e9
        line += f", computes {computes:5.0f} GFLOP/s with {PROMPT}"
    print(line)

# %% [markdown]
# A step is as many such layers as hold the model's weights, and the overhead:

# %%
# show: helpers.profiling.step_parts:StepParts.seconds


# %%
def counted(n):
    return f"{n} token{'s' * (n > 1)}"


millions = parts["float32"].weights / 1e6
print(f"a step of {shape}, {millions:.0f} million weights, as predicted (ms):")
for dtype, part in parts.items():
    listed = ", ".join(f"{counted(n)} {1e3 * part.seconds(n):.1f}" for n in part.layer)
    share = part.overhead[1] / part.seconds(1)
    print(f"   {dtype:9} {listed}; of the first, overhead {share:.0%}")

# %% [markdown]
# **Exercise 01.3** (3 minutes) *Why it matters: nearly every disappointing speedup of this course has this reason.*
#
# A part that takes the share `share` of the whole time gets `factor` times as fast; the rest stays. How many times as fast does the whole get?


# %%
def my_speedup_of_part(share, factor):  # 0 to 1, and a number above 0
    return None  # your code


# hint("01.3")  # solution("01.3")
speedup_of_part = check("01.3", my_speedup_of_part)
full, half = parts["float32"], parts["bfloat16"]
reading = 1 - full.overhead[1] / full.seconds(1)
predicted = {n: full.seconds(n) / half.seconds(n) for n in half.layer}
bytes_alone = held["float32"] / held["bfloat16"]
print(f"bfloat16, one token: from bytes alone {bytes_alone:.2f} times as fast;")
print(f"   with the overhead as it is {speedup_of_part(reading, 2):.2f} times;")
print("   from single layers and overhead, each measured in its format,", end=" ")
print(f"{predicted[1]:.2f} times")
for kind, n in (("decode", 1), ("prefill", PROMPT)):
    if n in predicted:
        key = f"precision.predicted_{kind}_speedup.bf16"
        results.prediction(key, predicted[n], "x")

# %% [markdown] tags=["library"]
# ## The library that people use
#
# Three ways to half precision with torch and Hugging Face:
#
# * load with `dtype=torch.bfloat16`: converted once, when it is read;
# * `model.to(torch.bfloat16)` or `model.half()`: converts everything, also what should stay in float32;
# * `torch.autocast`: the weights stay in float32, and are cast where they are used.
#
# The first two differ in one thing, the frequencies of the rotary position embedding. A token's position enters by turning its query and key by an angle, position × frequency: a rounded frequency errs more the further along the text.
# What does it cost to round these, and nothing else?

# %%
from helpers.measuring.quality import worst_logit_error


def frequencies_of(network):
    return [b for name, b in network.named_buffers() if name.endswith("inv_freq")]


cast = copy.deepcopy(shipped["float32"]).to(torch.bfloat16)
for name, network in {"dtype=": shipped["bfloat16"], ".to()": cast}.items():
    dtypes = {str(f.dtype).removeprefix("torch.") for f in frequencies_of(network)}
    kept = ", ".join(dtypes) or "(this model has none)"
    print(f"{name:7} keeps the frequencies in {kept}")
only_rounded = copy.deepcopy(shipped["float32"])
for frequencies in frequencies_of(only_rounded):
    frequencies.copy_(frequencies.bfloat16())
by_length = sorted(prompts[: max(40, sizes.answers)], key=len)
logits, exact_logits = logits_of(only_rounded), logits_of(shipped["float32"])
for words, chosen in (("short", by_length[:10]), ("long", by_length[-10:])):
    error = worst_logit_error(logits, exact_logits, chosen)
    print(f"only the frequencies in bfloat16, {words} prompts", end=" ")
    print(f"({len(chosen[0])} to {len(chosen[-1])} tokens): logits off by {error:.3f}")

# %% [markdown]
# Now autocast, against a model that was converted. What does each hold, what does it cast in a step, and how long does a step take?

# %%
import numpy as np

from helpers.profiling.step_time import steps_in_turns
from helpers.weights.precision.autocast import cast_bytes, under_autocast


def note(key, gain):
    results.metric(key, gain.ratio, "x", low=gain.low, high=gain.high, n=gain.n)
    return gain


arms = {
    "float32": shipped["float32"],
    "converted": shipped["bfloat16"],
    "autocast": under_autocast(shipped["float32"], torch.bfloat16),
}
one = torch.tensor([prompts[0][:1]], device=lesson.device)
counts, options = (1,) if "bfloat16" in slow else (1, 32), dict(rounds=sizes.rounds)
times = steps_in_turns(arms, counts, context=CONTEXT, **options)
for name, network in arms.items():
    casts = cast_bytes(partial(network, one)) / 1e6
    holds = memory.weight_bytes(network) / 1e6
    print(f"{name:10} holds {holds:5.1f} MB and casts {casts:5.1f} MB more in a step")
    for n, seconds in times[name].items() if name != "float32" else ():
        gain = timing.speedup(times["float32"][n], seconds, of=np.median)
        note(f"precision.{name}_speedup.shipped.rows_{n}", gain)
        print(f"     a step for {counted(n)} against float32:", gain)

# %% [markdown]
# Autocast reads four bytes of every weight, writes two, and reads those again: more work than float32 had for one token. With many tokens faster arithmetic may pay for it; converting once still does less. In training it buys float32 weights that learn.
#
# Last, torch's `GradScaler` beside ours: the same overflows must lead to the same scales.

# %%
theirs = torch.amp.GradScaler(lesson.device, init_scale=2.0**16, growth_interval=3)
ours = LossScaler(2.0**16, patience=3)
number = torch.nn.Parameter(torch.ones(1, device=lesson.device))
optimizer = torch.optim.SGD([number], lr=0.1)
equal, fates = 0, np.random.default_rng(SEED).random(100) < 0.7
for finite in fates:
    theirs.scale(number.sum())
    number.grad = torch.full_like(number, 1.0 if finite else math.inf)
    theirs.step(optimizer)
    theirs.update()
    ours.update(bool(finite))
    equal += theirs.get_scale() == ours.scale
of = len(fates)
results.invariant("precision.loss_scaler_equals_torch", equal == of, equal, of)
print(f"the same scale after {equal} of {of} steps")

# %% [markdown] tags=["measure"]
# ## How much faster?
#
# The steps of all formats take turns; a step for all of a prompt's tokens is the prefill. The large models have random weights: what they say means nothing, what they cost is real.

# %%
speed = {}


def compare(name, arms, num_tokens, **options):
    times = steps_in_turns(arms, num_tokens, **options)
    base = times.pop("float32")
    for dtype, n in [(dtype, n) for dtype in times for n in num_tokens]:
        speed[name, dtype, n] = timing.speedup(base[n], times[dtype][n], of=np.median)


def compare_all(name, arms):
    fast = {dtype: arms[dtype] for dtype in quick}
    compare(name, fast, NUM_TOKENS, context=CONTEXT, rounds=sizes.rounds)
    if name in ("shipped", shape):
        compare(name, fast, (PROMPT,), context=0, rounds=max(3, sizes.rounds // 2))


copies = {dtype: copy.deepcopy(shipped[dtype]) for dtype in quick}
compare_all("shipped", {d: packed_linear.install(copies[d], turns=2) for d in copies})
compare_all(shape, giant)
for dtype in slow:
    pair = {d: giant[d] for d in ("float32", dtype)}
    compare(shape, pair, (1,), context=8, rounds=3)
del giant, copies  # make room for the next
for name in sizes.shapes if PROFILE != "smoke" else ():
    if name not in ("llama-50m", shape):
        compare_all(name, {dtype: built(name, dtype) for dtype in quick})
for (name, dtype, n), gain in speed.items():
    print(f"{name:11} {dtype:9} {counted(n):10} {gain}")

# %%
labels, values, intervals, kinds = [], [], [], []
for n in [n for name, dtype, n in speed if (name, dtype) == (shape, "bfloat16")]:
    gain = speed[shape, "bfloat16", n]
    label = f"prefill of {n} tokens" if n == PROMPT else f"decode, {counted(n)}"
    labels += [label, label]
    values += [predicted.get(n, 2.0), gain.ratio]
    intervals += [None, (gain.low, gain.high)]
    kinds += ["predicted", "measured"]
ax = plots.bars_with_intervals(
    labels,
    values,
    intervals,
    kinds=kinds,
    title=f"{shape}: bfloat16 against float32",
    value_label="speedup (times as fast as float32)",
)
ax.axvline(1, color="#555555", linewidth=0.8)
ax.figure.set_size_inches(8, 4)
for (name, dtype, n), gain in speed.items():
    if name == shape:
        kind = "prefill" if n == PROMPT else "decode"
        suffix = f".rows_{n}" if n in NUM_TOKENS[1:] else ""
        note(f"precision.{kind}_speedup.{SHORT[dtype]}{suffix}", gain)

# %% [markdown]
# Where is half precision no gain here, or even slower? And how far was each prediction off?

# %%
lost = []
for (name, dtype, n), gain in speed.items():
    if gain.low <= 1:
        lost.append(f"{dtype} on {name}, {counted(n)} ({gain.ratio:.2f}x)")
print("not faster here:", "; ".join(lost) or "nowhere")
measured = speed[shape, "bfloat16", 1]
print(f"{shape}, bfloat16, one token: you said {GUESS_DECODE_SPEEDUP:g}", end=" ")
print(f"times, measured {measured}")
for source, guess in (("bytes alone", bytes_alone), ("single layers", predicted[1])):
    off = guess / measured.ratio - 1
    print(f"   from {source} {guess:.2f} times ({off:+.0%} off)")
share = half.overhead[1] / half.seconds(1)
print(f"why: {share:.0%} of bfloat16's step is overhead, which doesn't shrink;")
for name, part in (("float32", full), ("bfloat16", half)):
    print(f"   a layer reads {part.bytes_per_second() / 1e9:.1f} GB/s in {name}")

# %% [markdown]
# ## What does it cost?
#
# First the logits, token by token, on prompts and their reference answers, so that no model's own mistakes lead it astray; and **perplexity**: between how many tokens the model hesitates, on average, at each token of the reference answers.
#
# Two things get coarser, so they are looked at one by one: the weights, and the arithmetic.

# %%
import random
from contextlib import nullcontext

from helpers.measuring.quality import perplexity
from helpers.text_to_sql.prompts import chatty_answer
from helpers.weights.precision.emulation import emulated


def loaded(state, dtype):
    network, _ = models.load(MODEL_ID, dtype=dtype, device=lesson.device)
    network.load_state_dict(state.state_dict())  # rounds to the dtype
    return network


def ids_of(text):
    return tokenizer(text, add_special_tokens=False).input_ids


pairs = []
for i in range(sizes.timed):
    reference = chatty_answer(test[i], random.Random(SEED + i))
    pairs.append((prompts[i], ids_of(reference + tokenizer.eos_token)))
sequences = [prompt + answer for prompt, answer in pairs]
computed_in = {dtype: "float32" if dtype in slow else dtype for dtype in SHORT}
trained = {dtype: loaded(tuned, computed_in[dtype]) for dtype in SHORT}
top = torch.cat([logits_of(tuned)(s).topk(2).values for s in sequences])
lead = (top[:, 0] - top[:, 1]).median()
print(f"the best token leads the second by {lead:.1f} logits (median)")


# %%
def as_if(network, dtype):
    """Around a model that stands for a slow format: emulated; around others nothing."""
    return emulated(network, models.dtype_of(dtype)) if dtype in slow else nullcontext()


def costs(words, network, dtype, base, key=None):
    with as_if(network, dtype):
        error = worst_logit_error(logits_of(network), logits_of(base), sequences)
        hesitates = perplexity(logits_of(network), pairs)
    ending = "   emulated" if dtype in slow else ""
    print(f"{words:54} {error:8.4f} {hesitates:10.5f}{ending}")
    if key:
        about = dict(kind="simulated" if ending else "measured", n=len(sequences))
        results.metric(f"precision.worst_logit_error.{key}", error, "logits", **about)
        results.metric(f"precision.perplexity.{key}", hesitates, "tokens", **about)
    return error


print(f"{'largest error of a logit, and perplexity':54}   logits perplexity")
costs("trained further, float32", trained["float32"], "float32", tuned, "fp32")
for dtype in ("bfloat16", "float16"):
    only, words = loaded(loaded(tuned, dtype), "float32"), f"trained further, {dtype}"
    costs(f"{words} weights, float32 arithmetic", only, "float32", tuned)
    costs(f"{words} throughout", trained[dtype], dtype, tuned, SHORT[dtype])
only, words = loaded(shipped["bfloat16"], "float32"), "shipped, bfloat16 weights"
error = costs(f"{words}, float32 arithmetic", only, "float32", shipped["float32"])
exactly = "lose nothing: they were stored in bfloat16"
print("the shipped weights", "were not stored in bfloat16" if error else exactly)

# %% [markdown]
# Does any of this matter? What counts are the answers. They are compared *paired*, question by question: how many did a format fix, how many did it break? Two equal accuracies could hide many changes.

# %%
from helpers.measuring.quality import paired, wilson
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers

asked, right = test[: sizes.answers], {}
for dtype, network in trained.items():
    with as_if(network, dtype):
        answers = answer_in_batches(network, tokenizer, texts[: len(asked)])
    right[dtype] = right_answers(asked, answers)
    good, of = sum(right[dtype]), len(asked)
    low, high = wilson(good, of)
    print(f"{dtype:9} {good} of {of} right ({low:.0%} to {high:.0%})", end="")
    if dtype == "float32":
        print()
        continue
    change = paired(right["float32"], right[dtype])
    print(f"; against float32 {change}" + (" (emulated)" if dtype in slow else ""))
    about = dict(kind="simulated" if dtype in slow else "measured", n=change.n)
    for what, count in (("fixed", change.fixed), ("broken", change.broken)):
        key = f"precision.answers_{what}.{SHORT[dtype]}"
        results.metric(key, count, "answers", **about)

# %% [markdown]
# And how long does a user wait? Whole answers of the small model, prefill and all, the formats taking turns. Overhead is a larger share of a small model's step (notebook 00), so expect less here than of the large shapes. Only prompts with equal answers are compared.

# %%
from helpers.decoding.generate import steps as decode


def answer(network, ids):
    return [token for step in decode(network, ids) for token in step.emitted]


copies = {dtype: copy.deepcopy(trained[dtype]) for dtype in quick}
fast = {d: packed_linear.install(copies[d], turns=2) for d in copies}
arms, few = {d: partial(answer, fast[d]) for d in fast}, prompts[: sizes.timed]
timed = timing.interleave(arms, few, warmup=1, device=lesson.device)
base = timed["float32"]
for dtype, arm in timed.items():
    written = tokenizer.batch_decode(arm.results, skip_special_tokens=True)
    good = right_answers(test[: len(few)], written)
    lengths = map(len, arm.results)
    for example, *about in zip(test, arm.seconds, lengths, written, good):
        results.prompt(example.id, "greedy", dtype, *about)
    same = [i for i in range(len(few)) if base.results[i] == arm.results[i]]
    if dtype != "float32" and len(same) > 1:
        seconds = ([timed_arm.seconds[i] for i in same] for timed_arm in (base, arm))
        gain = timing.speedup(*seconds)
        note(f"precision.answer_speedup.shipped.{SHORT[dtype]}", gain)
        print(f"{dtype:9} {len(same)} of {len(few)} answers the same,", end=" ")
        print(f"token by token; whole answers: {gain}")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Where the step is overhead.** A small model has few bytes to save.
# * **Where the processor can't multiply the format.** Then every product goes by way of float32, and prefill and batches get slower, not faster. Fewer bytes may still help a single token: see the table above.
# * **float16 where activations are large, or where you train without loss scaling.** bfloat16 has the range of float32; that is why most models of today are kept in it.
# * **bfloat16 where neighbours must be told apart.** Angles, sums over many numbers, softmax, losses: keep them in float32.
#
# | you see | do |
# |---|---|
# | NaN in the logits, in float16 only | an activation overflowed: bfloat16, or float32 for that layer |
# | answers get worse with long prompts after `model.half()` | it rounded the rotary frequencies: load with `dtype=` instead |
# | the loss stops falling in float16 | gradients became 0: scale the loss |
# | the loss is NaN from the second step on | the scale is too large, and nothing checks for overflow: `GradScaler` does |
# | "EMULATE is ..." | one of the values that the message lists |

# %%
slower = sorted({dtype for (_, dtype, _), gain in speed.items() if gain.high < 1})
none, emulated_here = "none of the formats", ", ".join(sorted(slow))
print("slower than float32 somewhere on this machine:", ", ".join(slower) or none)
print("too slow here to be used, and so emulated above:", emulated_here or none)

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A model was trained in bfloat16. In float16 its logits are NaN on some prompts. Why? (a) float16 is less precise (b) an activation is larger than float16's largest number (c) the weights don't fit into float16
#
# <details><summary>Answer</summary>
#
# (b): 65,504 is not much for activations. (a) float16 has three bits *more* of mantissa than bfloat16. (c) weights are small numbers; none is too large.
# </details>
#
# **2.** Reading weights is 60 % of a step, the rest is overhead. What does half the bytes bring? (a) twice the speed (b) about 1.4 times (c) nothing
#
# <details><summary>Answer</summary>
#
# (b): 1 / (0.4 + 0.6 / 2). (a) forgets the overhead. (c) would be so if there were nothing to read.
# </details>
#
# **3.** You serve a float32 checkpoint on a GPU and want half the memory. (a) `torch.autocast` around `generate` (b) `from_pretrained(..., dtype=torch.bfloat16)` (c) loss scaling
#
# <details><summary>Answer</summary>
#
# (b): converted once, half the bytes held and read. (a) keeps four bytes of each weight, and casts them again and again. (c) is for gradients; there are none here.
# </details>
#
# **The rule:** load in bfloat16 unless it is slower where you run it (measure: some processors can't multiply it); keep float32 for weights that learn and for sums.
#
# **What limits it now:** two bytes a weight, and no float format of 16 bits gets below that. The next notebook goes to one byte and to half a byte, and has to choose its numbers more cleverly.
#
# References: Micikevicius et al., *Mixed Precision Training* (2018); Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training* (2019);
# Micikevicius et al., *FP8 Formats for Deep Learning* (2022); Sun et al., *Massive Activations in Large Language Models* (2024); Amdahl, *Validity of the Single Processor Approach* (1967).
