# ---
# jupyter:
#   course:
#     minutes: 10
#     headline: >-
#       SmolLM2-135M, the shipped LoRA adapter, float32: SQL right for {lora.execution_accuracy:.0%} of
#       {lora.execution_accuracy.n} test questions (zero-shot base: {lora.execution_accuracy.base:.0%} of
#       {lora.execution_accuracy.base.n}; spelled as the reference: {lora.normalized_match:.0%});
#       {lora.tokens_per_answer_ratio:.0%} of the tokens, a request {lora.latency_speedup:.2f} times as fast
#       ({lora.latency_speedup.n} prompts, one after the other)
# ---

# %% [markdown] tags=["card"]
# # 03 · LoRA and QLoRA
#
# **How do you teach a model to say less, by training a few percent of its numbers?**
#
# | | |
# |---|---|
# | previous, next | 02 quantization, 04 pruning; extra: 03b more adapters |
# | the term it attacks | tokens |
# | you will be able to | write LoRA and merge it; say what is learned and what is only read; make a training step faster; fine-tune on a 4-bit base; say what each method keeps in memory |
# | time | 60 minutes for you, 20 of them for one exercise; about 5 for the machine under the profile `cpu` |
# | memory | 8 GiB |
#
# The base model answers in prose, with the SQL somewhere inside, and the SQL is mostly wrong. A program that wants the SQL pays for every other token, one step each. Here the model learns to leave them out, and to get the rest right.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# The fine-tuned model has other weights, but just as many, in the same shapes: a step takes as long as before. Only the answers get shorter: the SQL alone instead of prose.
#
# 1. How many times as fast will a whole request be?
# 2. What share of test questions does the shipped adapter answer rightly?
#
# Write both guesses below.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # to fine-tune: the course's, a folder, or owner/name on the Hub
SEED: int = 0  # of everything random
GUESS_LATENCY_SPEEDUP: float = 1.5  # your guess: a request is so many times as fast
GUESS_RIGHT: float = 0.5  # your guess: share of test questions answered rightly
RANK: int = 16  # of the adapters that are trained here
LEARNING_RATE: float = 1e-3  # of LoRA and QLoRA

# %%
import helpers
from helpers.notebook.tuning import TUNING

lesson = helpers.start("03_lora_qlora", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, tuning = lesson.results, lesson.sizes, TUNING[PROFILE]
results.prediction("lora.latency_speedup", GUESS_LATENCY_SPEEDUP, "x")
results.prediction("lora.execution_accuracy", GUESS_RIGHT, "share")

# %% [markdown] tags=["build"]
# ## Answers that say too much
#
# A question that a person wrote; what the base answers, and what the fine-tuned model answers. Which of these tokens does a program need?

# %%
from helpers import models
from helpers.notebook.answers import read_side_by_side, side_by_side
from helpers.notebook.start_models import base_and_fine_tuned
from helpers.text_to_sql.dataset import load_split

base, tuned, tokenizer, _ = base_and_fine_tuned(lesson)
asked = load_split("handwritten")[0]
pair = {"base": base, "fine-tuned": tuned}
read_side_by_side(side_by_side(asked, pair, tokenizer, tuning.longest_prose))

# %% [markdown]
# A better prompt, or cutting the answer off, may help a large model. Training makes it a habit: show the model questions with the answer that you want.
#
# ## LoRA
#
# Training changes each weight matrix $W$ by a $\Delta W$ of the same size. **LoRA** (Hu et al. 2021) learns a change of low **rank**: the product of a tall matrix and a wide one.
#
# $$y = W x + \frac{\alpha}{r} B A x$$
#
# $W$ is **frozen**: training leaves it alone. $A$ ($r$ × in) and $B$ (out × $r$) are trained. Here is one layer of this model, drawn to scale:

# %%
from helpers.notebook.diagrams import draw_lora
from helpers.notebook.lora_parts import linear_shapes

out_features, in_features = max(linear_shapes(base), key=lambda shape: shape[0])
picture = draw_lora(in_features, out_features, RANK, 2.0 * RANK)

# %% [markdown]
# The **rank** $r$ says how many independent rows the change may have: all others are sums of multiples of these. $\alpha$ is a number that you choose, and $\alpha / r$ the **scaling**: how strongly the change counts. People keep $\alpha / r$ fixed when they try other ranks, so that the learning rate still fits.
#
# $B$ starts as zero, so training starts with the model as it is. $A$ starts as any linear layer does, at random. (If both were zero, neither would ever get a gradient.) A small one, to look at:

# %%
import torch
from torch import nn

from helpers.weights.adapters.lora import LoraLinear

torch.manual_seed(SEED)
small = LoraLinear(nn.Linear(4, 3, bias=False))  # W is (3, 4)
small.add("example", rank=1, alpha=2)
a, b = small.a["example"], small.b["example"]
print("A", tuple(a.shape), a.detach().numpy().round(2))
print("B", tuple(b.shape), b.detach().numpy().T.round(2), "as it starts")
b.data = torch.tensor([[1.0], [0.0], [-2.0]])
print("with B = 1, 0, -2 the change is, scaling x B A:")
print((small.scaling["example"] * b @ a).detach().numpy().round(2))
print("a change of rank 1: each row is a multiple of one row")

# %% [markdown]
# **Exercise 03.1** (20 minutes) *Why it matters: this is all of LoRA that runs. From here on this notebook's adapters run through your function.*
#
# Write the forward pass of a linear layer that may have several adapters.
#
# * `layer.linear(x)` is the frozen layer. `x` is `(sequences, tokens, in)`.
# * `layer.a[name]`, `layer.b[name]` and `layer.scaling[name]` are an adapter's $A$ (rank, in), $B$ (out, rank) and $\alpha / r$. They are in float32.
# * `layer.active` says which one counts: `None` for none, a name for the whole batch, or a list with a name (or `None`) for each sequence. A name that this layer does not have changes nothing.
# * The result has the dtype that `layer.linear(x)` has. The change is computed in float32, since it is small. Never make the matrix $B A$: it would be as large as $W$.


# %%
from helpers.notebook.exercises import check, hint, solution


def my_forward(layer, x):
    return None  # your code


# hint("03.1")  # solution("03.1")
forward = check("03.1", my_forward)

# %% [markdown]
# How many numbers is that? Gradients are kept for what is trained and for nothing else, and so are the optimizer's states: Adam keeps two running averages of each number that it trains.

# %%
from helpers.notebook.lora_parts import show_ranks

show_ranks(results, base, RANK)

# %% [markdown]
# **PEFT** (*parameter-efficient fine-tuning*) is Hugging Face's library for this. It must agree with ours: the same adapter gives the same loss, and the same gradients of $A$ and $B$.

# %%
from helpers.models.sharing import sharing_copy
from helpers.notebook.lora_parts import as_if_trained, compare_with_peft, with_forward
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.adapters import lora

test = load_split("test")
texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
some = [torch.tensor([ids], device=lesson.device) for ids in prompts[: tuning.texts]]
ours = with_forward(lora.install(sharing_copy(base), rank=RANK), forward)
as_if_trained(ours, SEED)
compare_with_peft(results, ours, base, some, MODEL_ID)

# %% [markdown]
# ## Merging
#
# An adapter costs time: two more products in each layer. After training it isn't needed as such.
#
# **Exercise 03.2** (3 minutes) *Why it matters: merged, a fine-tuned model is exactly as fast as its base.*
#
# $W x + s B A x = (W + s B A) x$. Return the merged matrix, in the dtype of `weight`. Add in float32, since the change is small.


# %%
from helpers.notebook.lora_parts import merged_by, show_merged


def my_merged_weight(weight, a, b, scaling):  # (out, in), (rank, in), (out, rank), 1.5
    return None  # your code


# hint("03.2")  # solution("03.2")
merged_weight = check("03.2", my_merged_weight)
show_merged(results, merged_by(ours, merged_weight), ours, some)

# %% [markdown]
# ## What is learned, and what is only read
#
# The loss should count the **completion only**: the model has to answer questions, not to invent them. And it must learn to stop: the end-of-sequence token (EOS) is part of the completion. Many tokenizers have no padding token, so people pad with EOS. Then the code that hides padding from the loss hides the real EOS, too, and answers never end.
#
# **Labels** stand at the same place as their tokens: transformers compares the model's guess at a place with the label one place later. -100 is torch's sign for "no loss here".
#
# **Exercise 03.3** (4 minutes) *Why it matters: the two most common mistakes of fine-tuning are in this function.*
#
# Return the token ids of prompt, completion and `eos`, and their labels: the token itself where it is learned, -100 where it is not.


# %%
from helpers.notebook.lora_parts import show_labels


def my_with_labels(prompt, completion, eos):  # two lists of token ids, and a token id
    return None  # your code: (ids, labels)


# hint("03.3")  # solution("03.3")
with_labels = check("03.3", my_with_labels)
ending = tokenizer("How many?<|im_end|>\n<|im_start|>assistant\n").input_ids
sql, eos = tokenizer("SELECT 1").input_ids, tokenizer.eos_token_id
show_labels(tokenizer, *with_labels(ending, sql, eos))

# %% [markdown]
# ## A training step in half the time
#
# Plain PyTorch takes a batch of examples, fills all rows up to the longest, computes logits for every place and attends with its fused kernel. Five savings, each on top of the one before:
#
# 1. **Packing**: several examples share a row. Each has its own positions, from 0 on, and a mask hides the others.
# 2. **Shared tables**: questions about the same tables share their tokens, as the branches of a tree. They are read once.
# 3. **Logits of answers only**: a prompt's 49,152 scores a place are not learned from.
# 4. **Attention by products**: fused attention saves memory. On a CPU, with short rows, its backward pass is slower than the two products that it is made of.
# 5. **Compiled layers**: what stands between the products (norms, rotations, the adapters' additions) is joined.

# %%
from helpers.notebook.training_costs import show_packing
from helpers.notebook.tuning import encoded_examples, groups_for_a_step
from helpers.training.completions import by_schema

examples, encoded = encoded_examples(tokenizer)
show_packing(encoded, by_schema(examples, encoded), tuning.length)

# %% [markdown]
# Here is a step of LoRA, forward and backward, on the same examples each time. The ways take turns. *Tokens* are those of the examples, each with its whole prompt, however few of them are computed.

# %%
from helpers.kernels import torch_compile
from helpers.notebook.training_costs import show_ways
from helpers.training.fine_tune_llm import Arguments, prepared
from helpers.training.step_speed import time_ways

a = Arguments(model_id=MODEL_ID, lora_r=RANK, lora_alpha=2.0 * RANK)
dtype = a.compute_dtype(lesson.device)
learner = prepared(a, dtype, lesson.device)
step_groups = groups_for_a_step(examples, encoded, tuning)
compiled = PROFILE != "smoke" and lesson.device == "cpu" and not torch_compile.why_not()
options = dict(rounds=tuning.rounds, compiled=compiled, dtype=dtype)
pad = tokenizer.pad_token_id
times = time_ways(learner, step_groups, tuning.length, pad, **options)
show_ways(results, times)
del learner

# %% [markdown]
# ## Train
#
# `helpers/training/fine_tune_llm.py` is a script like the published one: PEFT's adapters, Hugging Face's Trainer, and the savings above. It runs from here, from the shell, under `torchrun`, and as a SageMaker training job.
#
# It is started as a process of its own, so that its memory is its own. What it made is kept: run this cell again, and it is there. A few steps are all that this profile has time for. The shipped adapter took longer; its card says how long.

# %%
from helpers.notebook.adapter_card import draw_losses, show_card
from helpers.notebook.tuning import reports_of, train_own

made = {"lora": train_own(lesson, RANK, LEARNING_RATE)}
card = models.card("fine-tuned") if MODEL_ID == "base" else {}
show_card(card)
draw_losses(reports_of(made)["lora"]["loss"], card)

# %% [markdown]
# ## QLoRA: the base in four bits
#
# While an adapter is trained, the base is only read. **QLoRA** (Dettmers et al. 2023) keeps it in **NF4**. Weights are cut into blocks of 64. A block keeps its largest absolute value, the **scale**. Each weight is stored as the number of the nearest of 16 levels between -1 and 1; read back (**dequantized**), it is level × scale. The levels lie closer together where a normal distribution has more of its numbers, since weights look like one.

# %%
from helpers.notebook.nf4_base import draw_levels, show_bits
from helpers.weights.quantization import nf4

four_bits = nf4.nf4(MODEL_ID, device=lesson.device)
draw_levels(base)
show_bits(results, four_bits)

# %% [markdown]
# Gradients flow *through* the four-bit weights to the adapters, which are in float32. bitsandbytes does this on CPUs, too. Here a few steps of QLoRA, and, for comparison, a few that train every weight. Their losses say nothing after so few steps; their time and memory do.

# %%
from helpers.notebook.training_costs import draw_memory_of_7b, show_costs
from helpers.notebook.tuning import train_briefly

made["qlora"] = train_briefly(lesson, "qlora", RANK, LEARNING_RATE)
made["full"] = train_briefly(lesson, "full", RANK, LEARNING_RATE / 3)
show_costs(results, reports_of({m: made[m] for m in ("full", "lora", "qlora")}), base)

# %% [markdown]
# A model of 7 billion, computed. All three parts grow with the number of weights. Full training keeps them in float32. LoRA's base is only read, so bfloat16 is enough; QLoRA's linear layers are in NF4.

# %%
draw_memory_of_7b(results, RANK)

# %% [markdown]
# ### Where does a QLoRA adapter go?
#
# Into the **unquantized** base. Merging into four bits would mean: read the weights back, add, round again, and rounding loses most of a small change.
#
# But then the adapter meets **another base than it was trained with**: it has learned to make up for NF4's rounding, too, and that rounding is gone. How much does that matter? **Perplexity** is between how many tokens the model hesitates at each token of the reference answers.

# %%
from helpers.notebook.nf4_base import show_bases

adapters = {"qlora": made["qlora"] / "adapter"}
if MODEL_ID == "base":
    adapters["shipped"] = models.folder_of("fine-tuned")
answers = [tokenizer(e.answer, add_special_tokens=False).input_ids for e in test]
answers = [[*ids, tokenizer.eos_token_id] for ids in answers[: 2 * tuning.texts]]
show_bases(results, four_bits, base, adapters, list(zip(prompts, answers)))
del four_bits

# %% [markdown] tags=["library"]
# ## The library that people use
#
# The training above is PEFT's and transformers' already. In the shell, the same runs are
#
#     python -m helpers.training.fine_tune_llm --method qlora --epochs 3
#     torchrun --nproc-per-node 2 -m helpers.training.fine_tune_llm --epochs 3
#
# `tensorboard --logdir build` shows their curves. Loading what came out takes two lines with PEFT, and none of ours:

# %%
import copy

from peft import PeftModel

from helpers.notebook.lora_parts import logit_differences

with_adapter = PeftModel.from_pretrained(copy.deepcopy(base), made["lora"] / "adapter")
own = with_adapter.merge_and_unload().eval()
reread, _ = models.load(made["lora"] / "merged", device=lesson.device)
worst = max(difference for difference, _ in logit_differences(own, reread, some))
print("PEFT's merge and the merged model on disk:", end=" ")
print(f"logits differ by {worst:.1e} at most")
del reread, with_adapter

# %% [markdown] tags=["measure"]
# ## The same answers, merged?
#
# The shipped adapter beside the weights of its base, and merged into them. They compute the same function; do they write the same answers, and what does a step cost? (With another `MODEL_ID` it is your own adapter.)

# %%
from helpers.notebook.tuned_answers import show_identical, show_unmerged_step
from helpers.weights.adapters import peft_files

shipped = MODEL_ID == "base"
folder = models.folder_of("fine-tuned") if shipped else made["lora"] / "adapter"
merged = tuned if shipped else own
adapted = with_forward(peft_files.load_adapter(sharing_copy(base), folder), forward)
show_identical(results, merged, adapted, prompts[: tuning.own], tuning.longest)
show_unmerged_step(results, merged, adapted, sizes.rounds)
del adapted, ours

# %% [markdown]
# ## Are the answers right?
#
# Three counts. **Right when run**: the SQL returns what the reference returns. **Normalized match**: it is the reference, but for case and spaces. **Exact match**: the whole answer is the reference. Publications often report the last two; nothing has to run for them.

# %%
from helpers.notebook.tuned_answers import BASE, OWN, SHIPPED, judge, show_quality

who = {BASE: (base, tuning.base, tuning.longest_prose)}
who[OWN] = (own, tuning.own, tuning.longest)
if shipped:
    who[SHIPPED] = (tuned, tuning.shipped, tuning.longest)
judged = judge(who, tokenizer, test, tuning.turns)
show_quality(results, judged)
best = list(judged.values())[-1]
print(f"Your guess was {GUESS_RIGHT:.0%}, it was {best.share:.0%}.")

# %% [markdown]
# ## What it fails on
#
# Right answers by four families of queries, and some of the wrong ones.

# %%
from helpers.notebook.answers import show_families, show_wrong

show_wrong(best)
title = "Test questions, answered by the fine-tuned model"
show_families(best, f"{title} (n = {len(best.right)})")

# %% [markdown]
# ## How much faster is a request?
#
# Whole requests, prompt and all, one after the other, base and fine-tuned in turns, both by the fastest step that notebook 00 had. As many weights, the same kernels: what is saved is tokens.

# %%
from helpers.notebook.tuned_answers import show_latency, time_requests

del own  # make room
few, options = slice(tuning.timed), (tuning.longest_prose, tuning.turns)
timed = time_requests(base, merged, tokenizer, prompts[few], *options)
show_latency(results, timed, test[few], GUESS_LATENCY_SPEEDUP)

# %% [markdown]
# Ask it something yourself:

# %%
from helpers.notebook.ask import make_ask

SCHEMA = "CREATE TABLE ships (ship TEXT, harbour TEXT, built INTEGER, length_m REAL)"
QUESTION = "What is the oldest ship in Genoa?"
mine = make_ask(merged, tokenizer, tuning.longest)(SCHEMA, QUESTION)
print(f"{len(mine.token_ids)} tokens, {len(mine.steps)} steps of the model")

# %%
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **The base can't do it.** A small change teaches a form, a tone, a task that the base nearly knows. What it doesn't know at all needs far more than a small change on few examples.
# * **Too long, too fast.** Trained for more epochs or at a higher rate, a model can get worse on questions that it has not seen: watch the validation answers, not the loss.
# * **An unmerged adapter** does more work than the base in every step. Merge, unless many adapters share a base (03b).
# * **QLoRA saves memory, not time.** Each product first has to bring the weights back from four bits.
#
# | error | remedy |
# |---|---|
# | answers never stop | the EOS was hidden from the loss, or is missing: look at the labels |
# | the merged model answers like the base | it was merged into quantized weights, which lost the change |
# | the merged model talks nonsense | quantized weights were read in the wrong order: merge into the unquantized base |
# | "The adapter in ... is for another model" | load the base that its card names |
# | out of memory | `--gradient_checkpointing True`, fewer rows with more `--gradient_accumulation_steps`, `--method qlora` |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Your fine-tuned model answers well, and then goes on and on. What happened? (a) the rank is too low (b) the EOS token was never learned (c) it was merged wrongly
#
# <details><summary>Answer</summary>
#
# (b): the loss never saw an end, because EOS served as padding, or was not in the examples. (a) a low rank makes worse answers, not endless ones. (c) a wrong merge spoils the answers from the first token on.
# </details>
#
# **2.** You trained with QLoRA and merged into the unquantized base. Validation is a little worse than during training. Why? (a) merging rounds the adapter away (b) the adapter was trained beside other weights (c) NF4 was too coarse to train on
#
# <details><summary>Answer</summary>
#
# (b): it learned beside the rounded weights, and to make up for the rounding. (a) is what happens when one merges into four bits. (c) then training itself would have gone badly.
# </details>
#
# **3.** A 7B model has to be fine-tuned on a GPU of 24 GB. (a) all weights, in float32 (b) LoRA with the base in 16 or 4 bits (c) it can't be
#
# <details><summary>Answer</summary>
#
# (b): look at the computed figure above, and leave room for activations. (a): Adam's averages alone don't fit. (c) it is what QLoRA was made for.
# </details>
#
# **The rule:** before you make a step faster, leave steps out: fine-tune for the answer that you need, and merge.
#
# **What limits it now:** each token that is left still takes a run of the whole model. Speculation (07, 08) gets several tokens out of one.
#
# References: Hu et al., *LoRA* (2021); Dettmers et al., *QLoRA* (2023); Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021); Loshchilov, Hutter, *Decoupled Weight Decay Regularization* (2019).
