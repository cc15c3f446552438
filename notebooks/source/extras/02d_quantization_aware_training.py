# ---
# jupyter:
#   course:
#     minutes: 2
#     headline: >-
#       SmolLM2-135M, fine-tuned, 3 bits a weight, a scale a channel: {qat.training_steps:.0f} steps of training with
#       rounded weights bring the perplexity of {qat.perplexity.qat.3bit.n} reference answers from
#       {qat.perplexity.rtn.3bit:.3f} (plain rounding) to {qat.perplexity.qat.3bit:.3f}; GPTQ
#       {qat.perplexity.gptq.3bit:.3f}. Of {qat.answers_broken.qat.3bit.n} answers {qat.answers_broken.qat.3bit:.0f}
#       broken, plain rounding {qat.answers_broken.rtn.3bit:.0f}
# ---

# %% [markdown] tags=["card"]
# # 02d · Quantization-aware training
#
# **Rounding has no gradient. How can weights learn to be rounded?**
#
# | | |
# |---|---|
# | belongs to | 02 quantization (an extra: skip it if you like) |
# | the term it attacks | weight bytes / bandwidth: fewer bits than calibration alone allows |
# | you will be able to | write the straight-through estimator; train a layer through its rounding; say when training is worth its price |
# | time | 25 minutes for you, 10 of them for one exercise; about 2 for the machine under the profile `cpu` |
# | memory | 8 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 02 and 02b rounded a finished model. **Quantization-aware training** goes on training it, with its weights rounded in every forward pass.
#
# In 3 bits plain rounding breaks answers. What share of those will a short training save?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_SAVED: float = 0.5  # your guess: share of the broken answers that training saves
LEARNING_RATE: float = 1e-4  # of AdamW, at the first step; it falls to zero

# %%
import helpers
from helpers.notebook.quantization_models import open_models, texts_for
from helpers.notebook.quantization_sizes import QUANTIZATION

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("02d_quantization_aware_training", **options)
results, sizes, BITS = lesson.results, QUANTIZATION[PROFILE], 3
results.prediction("qat.answers_saved.3bit", GUESS_SAVED, "share")

# %% [markdown] tags=["build"]
# ## Straight through
#
# A rounded weight is a staircase over the weight. Nearly everywhere it is flat: the gradient is 0, and nothing would ever learn. At the steps it has none.
#
# The **straight-through estimator** (Bengio et al. 2013) tells a useful lie: forward it rounds, backward it pretends that the staircase was a straight line. So the model keeps a weight with all its bits *behind* each rounded one. The gradient, taken where the rounded weight stands, moves the one behind. When that has crossed a step, the rounded one jumps.
#
# **Exercise 02d.1** (10 minutes) *Why it matters: all training in few bits, from models in phones to one-bit language models, rests on this line.*
#
# One linear layer, by hand. It should give `y` (tokens, out) for `x` (tokens, in), with its weight rounded: the loss is the mean of `(x @ rounded.T - y) ** 2` over all its numbers. Return the weight (out, in) *after one step of gradient descent*, the one with all its bits. `round_to_nearest(weight, bits, group)` rounds.

# %%
from helpers.notebook.exercises import check, hint, solution
from helpers.weights.quantization.integer import round_to_nearest


def my_straight_through_step(weight, x, y, bits, lr, group="channel"):
    return None  # your code


# hint("02d.1")  # solution("02d.1")
step = check("02d.1", my_straight_through_step)

# %% [markdown]
# Nobody writes gradients by hand. With autograd it is one line, and the gradient takes its course:

# %%
from torch import Tensor

from helpers.notebook.quantization_qat import compare_with_autograd, draw_layer
from helpers.weights.quantization.integer import Group

# %%
# show: helpers.weights.quantization.qat:straight_through

# %%
compare_with_autograd(results, step)
draw_layer(step)

# %% [markdown]
# On the right is one weight's way: the one behind moves a little at each step, the rounded one waits, then jumps. Near a border it may jump back and forth. That is why the learning rate falls to zero.

# %% [markdown] tags=["library"]
# ## The library that people use
#
# torchao calls it *fake quantization*: a configuration puts it into a model's linear layers, training goes on as always, and at the end another call stores the codes. Are the rounded weights of its forward pass ours?

# %%
from helpers.notebook.quantization_qat import compare_with_torchao

compare_with_torchao(results)

# %% [markdown] tags=["measure"]
# ## The model in 3 bits
#
# A scale a channel, as in 02's hardest comparison. Three ways from the same fine-tuned weights: plain rounding, GPTQ, and a short training with rounded weights on the training split. All have the same codes to choose from, and the same bytes.

# %%
from helpers.notebook.quantization_qat import draw_losses, train_models, training_pairs

opened = open_models(lesson, sizes)
tuned, tokenizer = opened.tuned, opened.tokenizer
texts = texts_for(tokenizer, sizes, SEED)
pairs, settings = training_pairs(tokenizer), (BITS, sizes, LEARNING_RATE, SEED)
trained, losses = train_models(results, tuned, pairs, texts.calibration, *settings)
draw_losses(losses, BITS)

# %% [markdown]
# Perplexity of test questions' reference answers, and the answers:

# %%
from helpers.notebook.quantization_qat import compare_trained, show_trained_answers

found = compare_trained(results, tuned, trained, texts, BITS)

# %%
ways = dict(texts=texts, sizes=sizes, bits=BITS, guess=GUESS_SAVED)
show_trained_answers(results, tuned, trained, tokenizer, **ways)
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **It is training.** Weights in float32, gradients and AdamW's two averages: 16 bytes a weight while training, so that most of 4 bytes (float32) or 2 (bfloat16) can go afterwards. Calibration needs minutes and little memory.
# * **It needs the data.** A model that was trained on everything, and is trained on SQL for its last steps, forgets the rest.
# * **With 4 bits and groups** there is less to win back: 02 counts the answers that calibration leaves broken.
#
# | you see | do |
# |---|---|
# | the loss jumps about and doesn't fall | a smaller learning rate: weights hop over their steps |
# | "The loss is NaN or infinite" | the same, or train in float32 |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Why keep weights with all their bits while training? (a) the rounded ones would never move: a step is smaller than half a level (b) rounded ones can't be multiplied (c) AdamW wants float32
#
# <details><summary>Answer</summary>
#
# (a): each small change would be rounded away. The weight behind collects them. (b) they are multiplied in every forward pass. (c) it takes other formats, too.
# </details>
#
# **2.** Where is the gradient taken? (a) at the weight behind (b) at the rounded weight, and applied to the one behind (c) at both
#
# <details><summary>Answer</summary>
#
# (b): the loss has only seen the rounded one. (a) would be the gradient of another function, (c) twice the work.
# </details>
#
# **3.** You have a 7B model, an afternoon and one GPU, and want 4 bits. (a) QAT (b) AWQ or GPTQ (c) plain rounding without groups
#
# <details><summary>Answer</summary>
#
# (b): minutes, and models of billions lose little. (a) is for fewer bits, or for those who train the model anyway. (c) saves no time worth having.
# </details>
#
# **The rule:** calibrate first. Train only if the answers say that calibration wasn't enough.
#
# **What limits it now:** the price of training. QLoRA (03) goes the other way round: the rounded weights stay as they are, and a small adapter beside them learns to make up for it.
#
# References: Bengio, Léonard, Courville, *Estimating or Propagating Gradients Through Stochastic Neurons* (2013); Jacob et al., *Quantization and Training of Neural Networks* (2018);
# Liu et al., *LLM-QAT* (2023).
