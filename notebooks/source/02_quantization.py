# ---
# jupyter:
#   course:
#     minutes: 8
#     headline: >-
#       SmolLM2-135M, fine-tuned, a step of one token in C++, over the same in bfloat16: int8
#       {quantization.decode_speedup.model.int8:.2f} times as fast, int4 {quantization.decode_speedup.model.int4:.2f}
#       (llama-500m, random weights, over float32: {quantization.decode_speedup.int8:.2f} and
#       {quantization.decode_speedup.int4:.2f}). Of {quantization.answers_broken.int8.n} answers int8 broke
#       {quantization.answers_broken.int8:.0f} and fixed {quantization.answers_fixed.int8:.0f}, NF4
#       {quantization.answers_broken.nf4:.0f} and {quantization.answers_fixed.nf4:.0f}, AWQ in 4 bits
#       {quantization.answers_broken.awq:.0f} and {quantization.answers_fixed.awq:.0f}
# ---

# %% [markdown] tags=["card"]
# # 02 · Quantization
#
# **How few bits can a weight have, and who gets faster by it?**
#
# | | |
# |---|---|
# | previous, next | 01 half precision, 03 LoRA and QLoRA; extras: 02b GPTQ, 02c SmoothQuant, 02d quantization-aware training |
# | the term it attacks | weight bytes / bandwidth |
# | you will be able to | write absmax, NF4 and AWQ; say what a scale is shared by, and why; tell formats that save time from formats that only save memory; judge a quantized model by its answers |
# | time | 45 minutes for you without the exercises, which take 45 more; about 8 for the machine under the profile `cpu` |
# | memory | 11 GiB |
#
# A float keeps an exponent in every number. An integer keeps none: many weights share one **scale**. So a weight needs only 8, 4 or even 2 bits.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. A model of 500 million weights, a step for one token. Its weights take half a byte instead of four. How many times as fast is the step, on your machine?
# 2. Of 100 answers that were right, how many are wrong once the model's linear layers have 4 bits a weight?
#
# Both guesses are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_INT4_SPEEDUP: float = 8.0  # your guess: a step in float32 over one in int4
GUESS_BROKEN: float = 10.0  # your guess: of 100 right answers, wrong ones in 4 bits
GROUP: int = 64  # neighbours of a row that share a scale, in 4 bits

# %%
import helpers
from helpers.notebook.quantization_sizes import QUANTIZATION

lesson = helpers.start("02_quantization", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, QUANTIZATION[PROFILE]
results.prediction("quantization.decode_speedup.int4", GUESS_INT4_SPEEDUP, "x")
results.prediction("quantization.broken_per_hundred.nf4", GUESS_BROKEN, "answers")

# %% [markdown] tags=["build"]
# ## A grid for the weights
#
# Most weights stand in **linear layers**, matrices `W` of shape (out, in). The layer that makes the logits stays as it is here: production leaves it alone, too.
#
# The plainest quantizer is **absmax**. The largest weight gets the largest integer, and everything in between is rounded:
#
#     scale = largest |weight| / 127            code = round(weight / scale)            weight ≈ code × scale
#
# The codes are an even grid, and the largest weight says how coarse it is. Here with 3 bits, so that one can see it:

# %%
from helpers.notebook.quantization_grids import draw_rows
from helpers.notebook.quantization_models import a_matrix, open_models, texts_for

opened = open_models(lesson, sizes)
base, tuned, tokenizer = opened.base, opened.tuned, opened.tokenizer
texts = texts_for(tokenizer, sizes, SEED)
name, linear = a_matrix(tuned)
weight = linear.weight.detach().clone()
print(f"{name}: {tuple(weight.shape)}, the largest weight {weight.abs().max():.2f}")
draw_rows(weight)

# %% [markdown]
# **Exercise 02.1** (10 minutes) *Why it matters: every other quantizer begins with this one, and has to beat it.*
#
# Return `codes`, int8 of shape (out, in), and `scales`, float32 of shape (out, 1): each row has a scale of its own.
#
# * With `bits` bits the codes go from `-(2 ** (bits - 1) - 1)` to `2 ** (bits - 1) - 1`: from -127 to 127 for 8.
# * Compute in float32, whatever the weight's dtype. Round to nearest (`torch.round`).
# * A row of zeros has the scale 1.

# %%
import torch

from helpers.notebook.exercises import check, hint, solution


def my_absmax_codes(weight, bits=8):
    return None  # your code: codes, scales


# hint("02.1")  # uncomment for help; solution("02.1") shows the course's own
absmax_codes = check("02.1", my_absmax_codes)
codes, scales = absmax_codes(weight, 8)
back = codes.float() * scales
print(f"{weight.nbytes:,} bytes became {codes.nbytes + scales.nbytes:,}.", end=" ")
print(f"Error of the weights: {(back - weight).norm() / weight.norm():.2%}")

# %% [markdown]
# ## Who shares a scale?
#
# One large weight makes the grid coarse for all that share its scale. So let fewer share it: a row (a **channel**), or a **group** of neighbours in a row. Each scale costs bits of its own.
#
# Absmax is **symmetric**: 0 is code 0, and the grid reaches as far down as up. With a **zero point** the grid goes from the smallest weight to the largest, and 0 gets a code of its own.

# %%
from helpers.notebook.quantization_grids import show_groups

show_groups(linear)

# %% [markdown]
# The fewer bits, the more it matters who shares a scale: compare the lines. That is why 4-bit formats have groups of 32 to 128 weights.
#
# ## Beware of the grid that you came from
#
# The course's base model comes from a file in **Q4_1**, a 4-bit format of llama.cpp: blocks of 32 weights share a scale and a minimum. What does it cost to round it to that very grid again, and what to another? The fine-tuned model's weights are the base's with LoRA's change added to them.

# %%
from helpers.notebook.quantization_grids import show_own_grid

names = {"base": base} if base is tuned else {"base": base, "fine-tuned": tuned}
show_own_grid(results, names, texts.pairs[: sizes.logits])

# %% [markdown]
# ## The other factor of the product: activations
#
# Integer arithmetic is cheap, so why not round what a layer reads as well (**W8A8**: weights and activations in 8 bits)? Each token, a row of the input `x`, gets a scale of its own. In large models a few columns of `x` are much larger than all others. In this one, too? Here is the largest value of each column, over all calibration prompts:

# %%
from helpers.notebook.quantization_outliers import draw_outliers, draw_split, inputs_of
from helpers.weights.quantization.calibration import observe

input_sizes = observe(tuned, texts.calibration)
layer_name = draw_outliers(results, input_sizes)
x = inputs_of(tuned, layer_name, texts.calibration[0])

# %% [markdown]
# **LLM.int8** (Dettmers et al. 2022) takes the product apart. Columns with an outlier, a value of 6 or more, are multiplied in 16 bits; all others in 8, with a scale for each token and one for each channel. The columns of `W` that outliers meet are widened from their codes for that.

# %%
import math

from torch import Tensor

from helpers.weights.quantization.llm_int8 import (
    THRESHOLD,
    integer_product,
    outlier_columns,
)

draw_split(x)

# %%
# show: helpers.weights.quantization.llm_int8:llm_int8

# %% [markdown]
# What does it bring on the layer above?

# %%
from helpers.notebook.quantization_methods import show_int8_products

show_int8_products(tuned.get_submodule(layer_name).weight.detach(), x)

# %% [markdown]
# ## Four bits: levels where the weights are
#
# Trained weights look nearly normal: most are small. An even grid spends as many levels on the rare large ones. **NF4** (Dettmers et al. 2023) puts its 16 levels at equally likely places of a normal distribution, so that its codes are used far more evenly than an even grid's. Blocks of 64 weights share a scale, their largest magnitude.

# %%
from helpers.notebook.quantization_grids import draw_block

draw_block(weight)

# %% [markdown]
# **Exercise 02.2** (15 minutes) *Why it matters: QLoRA (notebook 03) trains on a base that is kept like this.*
#
# Return `codes`, uint8 from 0 to 15 in `x`'s shape, and `absmax`, float32, one for each block.
#
# * A block is `block` numbers in a row, as `x` lies in memory.
# * A code is the number of the nearest of the 16 `LEVELS` (from -1 to 1) to the weight over its block's largest magnitude.
# * A block of zeros becomes the level 0, not NaN.

# %%
from helpers.weights.quantization.nf4_codes import LEVELS


def my_nf4_codes(x, block=64):
    return None  # your code: codes, absmax


# hint("02.2")  # solution("02.2")
nf4_codes = check("02.2", my_nf4_codes)
codes, absmax = nf4_codes(weight)
used = torch.bincount(codes.flatten().int(), minlength=16) / codes.numel()
print("share of each level:", " ".join(f"{share:.0%}" for share in used))

# %% [markdown]
# The scales themselves cost half a bit a weight in float32. **Double quantization** keeps them in 8 bits, too. Is NF4 better than an even grid, at the same bits?

# %%
from helpers.notebook.quantization_grids import show_double_quantization, show_four_bits
from helpers.weights.quantization.calibration import observed_linears

show_double_quantization(linear)
print()
show_four_bits(observed_linears(tuned))

# %% [markdown]
# ## Not all weights matter alike
#
# A weight's error counts as much as the input that it is multiplied with. **AWQ** (Lin et al. 2023) multiplies the columns of `W` that meet large inputs by a factor `s` before rounding, and divides those inputs by it. The product stays the same; those weights are rounded `s` times as finely.
#
# How large should `s` be? Too large, and the scaled columns make the grid coarse for all others. AWQ takes a power of the mean input, `s = (mean |x|) ** alpha`, and tries which `alpha` leaves the smallest error of the layer's output.
#
# **Exercise 02.3** (20 minutes) *Why it matters: this search is the heart of AWQ. It needs no training and no gradients.*
#
# Return the best `alpha`, its scale, and a dict `errors` from each alpha to the squared error of the output. `mean_abs` (in,) and `hessian` (in, in), the sum of $x x^T$ over all tokens, say what the layer reads.
#
# * The alphas are `step / steps` for `step` from 0 to `steps`; 0 is plain rounding. `awq_scale(mean_abs, alpha)` is the power, brought to a middle size.
# * Round `weight` times the scale with `round_to_nearest(..., bits, group, symmetric)`, and divide the scale out again.
# * With the error $E$ (out, in) of the weight, the output's squared error over all tokens is the sum of $(E H) \odot E$. No input is needed again.

# %%
from helpers.notebook.quantization_awq import draw_search
from helpers.weights.quantization.awq import awq_scale
from helpers.weights.quantization.calibration import Hessian
from helpers.weights.quantization.integer import round_to_nearest


def my_search_scale(weight, mean_abs, hessian, bits, group, symmetric=True, steps=20):
    return None  # your code: alpha, scale, errors


# hint("02.3")  # solution("02.3")
search_scale = check("02.3", my_search_scale)
one = {layer_name: tuned.get_submodule(layer_name)}
seen = observe(tuned, texts.calibration, Hessian, one)[layer_name]
draw_search(search_scale, one[layer_name].weight.detach().clone(), seen, GROUP)

# %% [markdown]
# Where does the division of the input go? Into the layer before: the norm's weights, `v_proj` for `o_proj`, `up_proj` for `down_proj`. So it costs nothing when the model runs. AWQ then also tries **smaller ranges** for each scale: a few large weights are cut off, and all others get finer steps.
#
# Two more methods stand in extras, and come along below: **GPTQ** (02b) rounds column by column, and lets the columns that are left make up for each error. **SmoothQuant** (02c) moves outliers from activations into weights, so that plain W8A8 works.

# %% [markdown] tags=["library"]
# ## The library that people use
#
# **bitsandbytes** is what `BitsAndBytesConfig` calls in transformers. Are our codes its codes, and our scales its scales?

# %%
from helpers.notebook.quantization_library import compare_codes, time_bitsandbytes

compare_codes(results, tuned)

# %% [markdown]
# Now its models, loaded with one argument more, beside the same model in bfloat16 as transformers runs it. LLM.int8 takes the inputs apart at each call; on a CPU it also rearranges all weights each time. NF4's levels have to be looked up, and only on some CPUs has it a kernel for that. What does that cost?

# %%
prompt, rounds = texts.pairs[0][0], lesson.sizes.rounds
of_library = time_bitsandbytes(results, opened, prompt, sizes, rounds)

# %% [markdown] tags=["measure"]
# ## All methods, the same questions
#
# The table shows for each method: the perplexity of the reference answers, the largest change of any logit, the right answers, and how many were fixed and broken against float32, question by question. 4-bit methods share a scale among `GROUP` weights. Weights are rounded, and activations too where it says W8A8 or LLM.int8. Everything else is computed in float32, so that rounding is all that differs. In the chart the band says how far chance alone may move the unquantized model.
#
# What to expect? 8 bits should cost next to nothing here. (LLM.int8's paper finds outliers that ruin plain W8A8 from 6.7 billion weights on.) 4 bits are another matter: papers report next to no loss for models of billions, and a model of 135 million has less to spare.
#
# The last line doesn't merge the adapter. The base stays in the 4 bits that it came in, which cost it nothing, and what LoRA learned is added to each layer's output in 16 bits, as servers with many adapters do. (It is computed from one dense weight here, which gives the same numbers; its speed is not measured.)

# %%
from helpers.notebook.quantization_answers import draw_bytes
from helpers.notebook.quantization_methods import broken_per_hundred, compare_methods

del input_sizes, seen
quality, kept = compare_methods(results, opened, texts, GROUP, sizes)
broken_per_hundred(results, quality, GUESS_BROKEN)
draw_bytes(quality)

# %% [markdown]
# ## Fewer bits still
#
# The table above has groups of 64. Now take the groups away, a scale for each whole row, and go down to 3 bits (under the profile `full` to 2 as well). Does it matter here which way a weight is rounded?

# %%
from helpers.notebook.quantization_methods import compare_few_bits

compare_few_bits(results, tuned, texts, sizes)

# %% [markdown]
# ## What a step takes
#
# Speed comes from kernels that read **codes**, and turn them into numbers in registers, never in memory. The course's step in C++ (00c) does so. Four bits are a place in a table of 16 numbers, and a processor with AVX-512 looks up 32 places with one instruction; whether the table holds an even grid or NF4's levels makes no difference. These lines read 32 bytes and make 64 numbers of them, two columns of 32 rows:

# %%
from helpers.kernels.native.library import CODES  # codes.h
from helpers.notebook.source import lines_of

first, last = "const __m512i codes = _mm512_cvtepu8", "srli_epi16"
print(lines_of(CODES, first, last))

# %% [markdown]
# The numbers are multiplied in bfloat16, and a group's sum by its scale. Part of the gain over float32 is bfloat16's alone, so **bfloat16** stands beside every figure. How the codes were chosen doesn't matter here: a step with AWQ's or GPTQ's codes takes as long as one with plain rounding's.
#
# First what the course's equation says. Then a shape with random weights, and the course's model. **Rows** are the tokens that a step reads: sequences of several users, or guesses to be checked.

# %%
from helpers.measuring.probes import Memory
from helpers.notebook.equation import equation_here
from helpers.notebook.quantization_speed import (
    draw_steps,
    note_shape,
    predict_steps,
    read_guess,
    read_steps,
    show_steps,
    time_shape,
)

predicted = predict_steps(results, equation_here(lesson), sizes.shape, GROUP)
rounds, memory = lesson.sizes.rounds, Memory()
of_shape = time_shape(sizes, GROUP, rounds, memory)

# %%
show_steps(of_shape, memory.bandwidth, f"{sizes.shape}, random weights")
note_shape(results, of_shape, memory.bandwidth)
draw_steps(of_shape, f"{sizes.shape}: a step by rows and format")
read_steps(of_shape, sizes.shape)
read_guess(results, predicted, GUESS_INT4_SPEEDUP)

# %% [markdown]
# With one row a step waits for memory: fewer bytes are less time. With many rows it computes, and every code has to become a number again for every 12 rows (the kernel takes so many at a time). Then fewer bytes bring nothing. **W8A8** is made for that end: it multiplies bytes by bytes, twice as many at once as bfloat16 numbers, and whole numbers add up exactly.
#
# Now the model itself, with its output layer in 8 bits. Beside it stand **PyTorch's packed kernels** for CPUs, in the fused step. (From some number of rows on those layers widen the weight first: from which, was measured.)

# %%
from helpers.notebook.quantization_speed import model_arms, note_model
from helpers.profiling.quantized_steps import time_quantized_steps

arms = model_arms(opened, GROUP, sizes.turns)
memory = Memory()
of_model = time_quantized_steps(arms, rounds=rounds, before=memory.read)
show_steps(of_model, memory.bandwidth, "the fine-tuned model")
note_model(results, of_model, memory.bandwidth)
draw_steps(of_model, "The fine-tuned model: a step by rows and format")
read_steps(of_model, "the fine-tuned model")

# %% [markdown]
# ## Answers against speed, and llama.cpp beside it
#
# The same weights in llama.cpp's formats: **Q8_0** has blocks of 32 in 8 bits with a scale, **Q4_1** is the base's own format. Its formats have scales of their own, so that the bits are not quite ours: the table says how many bytes a step reads. Every point shows the answers of exactly the layers that were timed, output layer in 8 bits included. Then what a user waits for: whole answers, prefill and all.

# %%
from helpers.notebook.quantization_answers import (
    answers_by_speed,
    draw_speed,
    show_whole_answers,
    time_llama,
)

prompts, few = [prompt for prompt, _ in texts.pairs], slice(sizes.timed)
paths, llama = time_llama(results, opened, of_model, prompts, sizes)
some = texts.test[: sizes.answers]
both = of_model, paths, llama
by_speed = answers_by_speed(results, arms, *both, tokenizer, some, sizes)
draw_speed(by_speed)
asked = texts.test[few], prompts[few]
show_whole_answers(results, arms, tokenizer, *asked, sizes.longest)
del arms

# %% [markdown]
# ## From the disk, and served
#
# A quantized model is also a smaller file. And an engine reads it: the codes, in the format **compressed-tensors**, are what vLLM serves. W8A8 from plain rounding, W4A16 (4-bit weights, 16-bit activations) with AWQ's codes. Does it answer as our own model does?

# %%
from helpers.notebook.quantization_files import show_load, show_vllm
from helpers.notebook.quantization_models import in_bfloat16

to_write = {"bf16": tuned, "int8": kept["int8"], "int4": kept["awq"]}
halves = {name: in_bfloat16(model) for name, model in to_write.items()}
show_load(results, halves, sizes.runs)
checkpoints = {"w8a8": kept["int8"], "w4a16": kept["awq"]}
show_vllm(results, checkpoints, tokenizer, sizes)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **No kernel for it.** Codes that are widened in memory first cost the reading of the codes, and the writing and reading of the wide weights. Such formats save memory and cost time. On most CPUs that is bitsandbytes; on a GPU it has kernels. The NF4 that was timed above shows that the format is not to blame.
# * **Many rows.** Under batching, and under speculation with many guesses, a step computes more than it reads. Look at the rows above before you combine.
# * **Activations in float32.** These kernels multiply bfloat16.
# * **Small matrices.** Overhead stays, and a scale for each row of a small matrix is a larger share.
#
# | you see | do |
# |---|---|
# | "Groups of ... don't divide rows of ..." | the divisor in the message, or "channel" |
# | the model is as large as before after loading it in 4 bits | its embedding is still in 16 bits: a fifth of this model's weights, and after that half of its bytes |
# | answers changed after `merge_and_unload` on a 4-bit base | merge into the unquantized one (03 says why) |
# | vLLM refuses the checkpoint in float32 | `dtype="bfloat16"`: its integer kernels take nothing else |

# %%
from helpers.notebook.quantization_speed import read_formats

read_formats(of_model, of_library)

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A row has weights of size 0.02, and one of 2. In 4 bits with one scale for the row, what becomes of the small ones? (a) they are rounded as finely as in a row without the large one (b) they all become 0 (c) they overflow
#
# <details><summary>Answer</summary>
#
# (b): the levels are 2 / 7 = 0.29 apart, and what lies below half of that becomes 0. A group without the large weight keeps them. (a) would be so with a scale of their own. (c) nothing overflows: the largest sets the scale.
# </details>
#
# **2.** You serve 32 users at once on a CPU. int4 is twice as fast as bfloat16 for one user. For 32? (a) twice as fast, too (b) measure it: a step with 32 rows computes more than it reads (c) 64 times as fast
#
# <details><summary>Answer</summary>
#
# (b): with many rows arithmetic decides, and the codes have to become numbers first. (a) holds while reading is most of the step. (c) rows don't multiply a gain.
# </details>
#
# **3.** Of a small model's right answers, plain rounding to 4 bits breaks one in five, GPTQ one in fifteen, int8 one in a hundred. Yours has 70 billion weights. What do you expect? (a) the same shares (b) 4 bits cost less there, so count its own answers before you pay for 8 (c) nothing is lost whatever you do
#
# <details><summary>Answer</summary>
#
# (b): large models have more to spare, and how much only their own answers tell. (a) takes one model for all. (c) fewer bits and coarser groups break any model at some point.
# </details>
#
# **The rule:** take 8 bits, a scale a channel, where answers must not change, 4 bits in groups where memory or one user's speed decides; keep embedding and output layer wider; choose the format by the kernel that you have, and judge it by answers, paired.
#
# **What limits it now:** overhead, which fewer bytes don't shorten (09), and for many rows the arithmetic. Weights that are 0 could need hardly any bits: that is notebook 04. Training on such a base is 03.
#
# References: Dettmers et al., *LLM.int8()* (2022); Dettmers et al., *QLoRA* (2023); Lin et al., *AWQ* (2023); Frantar et al., *GPTQ* (2022);
# Xiao et al., *SmoothQuant* (2022); Jacob et al., *Quantization and Training of Neural Networks* (2018).
