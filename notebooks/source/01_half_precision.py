# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       llama-300m (random weights), fused step, one token: bfloat16 {precision.decode_speedup.bf16:.2f} times as fast as
#       float32, predicted {precision.predicted_decode_speedup.bf16:.2f} by notebook 00's equation. SmolLM2-135M,
#       fine-tuned: a step {precision.decode_speedup.bf16.shipped:.2f} times as fast; of
#       {precision.answers_broken.bf16.n} answers {precision.answers_broken.bf16:.0f} broken,
#       {precision.answers_fixed.bf16:.0f} fixed
# ---

# %% [markdown] tags=["card"]
# # 01 · Half precision
#
# **What do fp16 and bf16 buy, and what do they break?**
#
# | | |
# |---|---|
# | previous, next | 00 start here, 02 quantization; extras: 01b eight-bit floats, 01c mixed-precision training |
# | the term it attacks | weight bytes / bandwidth |
# | you will be able to | read a number's bits; round as hardware does; say which format overflows, and which one is coarse; predict what half the bytes bring |
# | time | 50 minutes for you, 20 of them for one exercise; about 5 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# A weight in float32 takes four bytes. Two bytes hold a coarser number. This notebook asks what that saves, and what gets lost.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A decode step reads every weight once. In **bfloat16** a weight takes two bytes instead of four.
#
# Take a model of 300 million weights, and a step for one token. How many times as fast will it be in bfloat16, on your machine?
#
# Write your guess into `GUESS_DECODE_SPEEDUP`. It is saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_DECODE_SPEEDUP: float = 2.0  # your guess: a step in float32 over one in bfloat16
EMULATE: str = "auto"  # formats emulated in float32: auto (slow ones), none, or names
SHAPE: str = "auto"  # random weights to predict: llama-300m (smoke: -50m), or a name

# %%
import helpers
from helpers.notebook.precision_speed import HALF

NAME = "01_half_precision"
lesson = helpers.start(NAME, profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, half = lesson.results, lesson.sizes, HALF[PROFILE]
results.prediction("precision.decode_speedup.bf16", GUESS_DECODE_SPEEDUP, "x")

# %% [markdown] tags=["build"]
# ## Half the bytes
#
# The fine-tuned model, loaded three times: in float32 (**fp32**), bfloat16 (**bf16**) and float16 (**fp16**). A format that this processor can't multiply fast is **emulated** in all that follows: computed in float32, and rounded after each operation. Then what is lost is the same, and the time means nothing.

# %%
from helpers import models
from helpers.notebook.precision_speed import SHORT, emulated_formats, show_bytes
from helpers.notebook.start_models import base_and_fine_tuned

base, tuned, tokenizer, tuned_name = base_and_fine_tuned(lesson)
loaded = {"float32": tuned}
for dtype in ("bfloat16", "float16"):
    loaded[dtype] = models.load(tuned_name, dtype, lesson.device)[0]
show_bytes(results, loaded)
slow = emulated_formats(EMULATE, lesson.device)
quick = [dtype for dtype in SHORT if dtype not in slow]

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
from helpers.notebook.formats_shown import draw_formats

draw_formats()

# %% [markdown]
# *Step at 1* is the distance from 1 to the next number. Below *smallest normal* numbers go on for a while, losing one bit of precision with each halving: these are the **subnormal** ones. Below half of *smallest* there is only 0.
#
# Three numbers, bit by bit:

# %%
from helpers.notebook.formats_shown import show_bits

show_bits((0.1, 1000.5, 70_000.0))

# %% [markdown]
# **Exercise 01.1** (5 minutes) *Why it matters: who can read the bits knows why a format overflows, and where it is coarse.*
#
# Return the number that three fields say. The bias is `2 ** (exponent_bits - 1) - 1`.
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
# **Exercise 01.2** (20 minutes) *Why it matters: every quantizer of this course is this function, with another grid.*
#
# Return every number of `x` (float32 or float64, any shape) as a format would keep it, in `x`'s own dtype.
#
# * `fmt.mantissa_bits` and `fmt.bias` are the format's. Between $2^e$ and $2^{e+1}$ neighbours are $2^{e - \text{mantissa bits}}$ apart. Below the normal numbers, so for $e$ less than 1 - bias, the steps don't get finer.
# * Of two neighbours that are equally near, the one with the even mantissa is taken: always rounding up would shift every sum a little.
# * What is beyond `fmt.largest` *after rounding* becomes infinity, or `fmt.largest` where `fmt.infinity` is False. Infinity stays what it would become.
# * Compute in float64: there all of this is exact. `torch.frexp` and `torch.ldexp` take a number apart and put it together.


# %%
import torch


def my_rounded(x, fmt):
    return None  # your code: a tensor like x


# hint("01.2")  # solution("01.2")
rounded = check("01.2", my_rounded)

# %% [markdown]
# Is that what torch does? Random patterns of 32 bits, so that every exponent occurs, subnormals, infinities and NaNs among them; and numbers halfway between two neighbours.

# %%
from helpers.notebook.formats_shown import compare_with_torch

compare_with_torch(results, rounded, SEED)

# %% [markdown]
# ## Too large: activations
#
# Weights are small numbers: none is too large for any format here. What flows through the model, the **activations**, is not always small. Here is the largest that each linear layer reads, and that each block passes on, on questions with their answers.

# %%
from helpers.notebook.activation_sizes import draw_activations, record_activations

activations = record_activations(tuned, tokenizer)
draw_activations(activations)

# %% [markdown]
# What becomes of all these numbers in each format?

# %%
from helpers.notebook.activation_sizes import show_fates

show_fates(activations)

# %% [markdown]
# In language models a few activations are thousands of times larger than the rest (Sun et al. 2024): look at the highest points above. One is enough for an overflow. To see what follows, make some here without changing what the model computes:
# multiply one of the two matrices that lead into each MLP (`up_proj`) by a power of two, and divide the one that leads out of it by the same. Look at the **logits**, the scores of all possible next tokens.

# %%
from helpers.notebook.activation_sizes import show_outliers
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

test = load_split("test")
texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
beginning = prompts[0][:24]  # enough; some processors take long over float16
show_outliers(loaded, activations, beginning)
del activations

# %% [markdown]
# Where float16 breaks, a number went to infinity inside, and infinity minus infinity is NaN. bfloat16 has float32's exponent, and so its range; it gives up precision instead.
#
# Training has the opposite trouble: **gradients** are tiny, and become 0. The extra 01c is about that.
#
# ## What will a step take?
#
# The course's equation has the answer, before anything is measured: fewer **weight bytes**, another **rate**, and the same **overhead**. Notebook 00 fitted it here. Under the profiles `cpu` and `full` it never saw `llama-300m`: that shape was held out.

# %%
from helpers.measuring.cost_model import Shape
from helpers.notebook.equation import equation_here
from helpers.notebook.precision_speed import SHIPPED, predict_speedups

shape = half.shape if SHAPE == "auto" else SHAPE
equation, shapes = equation_here(lesson), {}
for name in (shape, SHIPPED):
    shapes[name] = {}
    for d in ("float32", "bfloat16"):
        random = models.shape_only(shape, d, device="meta")
        shapes[name][d] = Shape.of(random if name == shape else loaded[d])
predicted = predict_speedups(results, equation, shapes)

# %% [markdown]
# **Exercise 01.3** (3 minutes) *Why it matters: nearly every disappointing speedup of this course has this reason.*
#
# A part that takes the share `share` of the whole time gets `factor` times as fast; the rest stays. How many times as fast does the whole get?


# %%
def my_speedup_of_part(share, factor):  # 0 to 1, and a number above 0
    return None  # your code


# hint("01.3")  # solution("01.3")
speedup_of_part = check("01.3", my_speedup_of_part)
terms = equation.terms(shapes[shape]["float32"], "float32", 1, 128)
reading = 1 - terms["overhead"] / sum(terms.values())
print(f"{shape}: {reading:.0%} of float32's step is not overhead.", end=" ")
print(f"If that took half the time: {speedup_of_part(reading, 2):.2f} times as fast.")
print("The equation may say another number: both formats have their own bandwidth.")

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
from helpers.notebook.precision_library import show_frequencies

by_length = sorted(prompts[: max(40, half.texts)], key=len)
few = max(2, half.texts // 2)
chosen = {"short": by_length[:few], "long": by_length[-few:]}
_ = show_frequencies(tuned, loaded["bfloat16"], chosen)

# %% [markdown]
# Now autocast, against a model that was converted. What does each hold, what does it cast, and how long does it take to read one token, or 32? (All three by the library's own model: autocast can't pack.)

# %%
from helpers.notebook.precision_speed import show_autocast
from helpers.weights.precision.autocast import under_autocast

arms = {"float32": tuned, "converted": loaded["bfloat16"]}
arms["autocast"] = under_autocast(tuned, torch.bfloat16)
tokens = torch.tensor([prompts[0][:32]], device=lesson.device)
if "bfloat16" in slow:
    print("left out: this processor computes bfloat16 too slowly")
else:
    show_autocast(results, arms, tokens, sizes.rounds)

# %% [markdown]
# Autocast reads four bytes of every weight, writes two, and reads those again: more work than float32 had for one token. With many tokens faster arithmetic may pay for it; converting once still does less. In training it buys float32 weights that learn.

# %% [markdown] tags=["measure"]
# ## How much faster?
#
# Fused steps, as in notebook 00, the formats taking turns. A step for all of a prompt's tokens is the prefill. The large model has random weights: what it says means nothing, what it costs is real.

# %%
from helpers.notebook.precision_speed import time_formats

speed = time_formats(loaded, shape, slow, half, lesson.device, sizes.rounds)

# %%
from helpers.notebook.precision_speed import read_speedups, show_speedups

show_speedups(results, speed, shape, predicted)
read_speedups(speed, shape, predicted, GUESS_DECODE_SPEEDUP)

# %% [markdown]
# ## What does it cost?
#
# First the logits, token by token, on prompts and their reference answers, so that no model's own mistakes lead it astray; and **perplexity**: between how many tokens the model hesitates, on average, at each token of the reference answers.
#
# Two things get coarser, the weights and the arithmetic. The base was *stored* in bfloat16, so it has nothing left to lose. The fine-tuned model's adapter was merged in float32: its weights have all their bits.

# %%
import copy

from helpers.notebook.precision_costs import show_logits

for d in slow:
    loaded[d] = copy.deepcopy(tuned)  # stands for it: it is rounded for a while
queries = [example.answer for example in test[: half.texts]]
sql = [tokenizer(query, add_special_tokens=False).input_ids for query in queries]
pairs = [(ids, [*answer, tokenizer.eos_token_id]) for ids, answer in zip(prompts, sql)]
for name, network in {"base": base, "fine-tuned": tuned}.items():
    numbers = torch.cat([p.detach().flatten() for p in network.parameters()])
    share = (numbers.bfloat16().float() != numbers).float().mean()
    print(f"{name}: rounding to bfloat16 changes {share:.0%} of the weights")
show_logits(results, tuned, loaded, slow, pairs)

# %% [markdown]
# Does any of this matter? What counts are the answers. They are compared *paired*, question by question: how many did a format fix, how many did it break? Two equal accuracies could hide many changes.

# %%
from helpers.notebook.precision_costs import show_answers

show_answers(results, loaded, slow, tokenizer, test, half)

# %% [markdown]
# And how long does a user wait? Whole answers of the fine-tuned model, prefill and all, one after the other, the formats taking turns. Overhead is a larger share of a small model's step, so expect less here than of the large shape. Only prompts with equal answers are compared.

# %%
from helpers.notebook.precision_costs import show_whole_answers

some, by_dtype = slice(half.timed), {d: loaded[d] for d in quick}
show_whole_answers(results, by_dtype, tokenizer, test[some], prompts[some], half)
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
# | "EMULATE is ..." | one of the values that the message lists |

# %%
slower = sorted({dtype for (_, dtype, _), gain in speed.items() if gain.high < 1})
none = "none of the formats"
print("Slower than float32 somewhere on this machine:", ", ".join(slower) or none)
emulated = ", ".join(sorted(slow)) or none
print("Too slow here to be used, and so emulated above:", emulated)

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
