# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       SmolLM2-135M, float32: {lora.two_adapters_in_one_batch.count} of {lora.two_adapters_in_one_batch.of} answers of
#       two LoRA adapters in one batch are those that each request gets alone, in {lora.two_adapters_memory_ratio:.0%}
#       of the memory of two merged models; LLaMA-Adapter (trained here): SQL right for
#       {llama_adapter.execution_accuracy:.0%} of {llama_adapter.execution_accuracy.n}, a step
#       {llama_adapter.step_speedup:.2f} times as fast as the base's
# ---

# %% [markdown] tags=["card"]
# # 03b · More adapters
#
# **Must an adapter change the weights, and can many of them share one base?**
#
# | | |
# |---|---|
# | belongs to | 03 LoRA and QLoRA (an extra: skip it if you like) |
# | the term it attacks | tokens, as 03 does; and memory, where many tasks share a base |
# | you will be able to | write attention to learned prompts; say why a gate starts shut; serve several adapters in one batch; say what that costs |
# | time | 30 minutes for you; about 5 for the machine under the profile `cpu` |
# | memory | 6 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# LoRA adds a product beside each matrix, and can be merged. **LLaMA-Adapter** adds a few learned vectors that each layer attends to beside its text. It trains even fewer numbers, and it can't be merged.
#
# How many times as long will a decode step take with such vectors in every layer?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # to fine-tune: the course's, a folder, or owner/name on the Hub
SEED: int = 0  # of everything random
GUESS_STEP: float = 1.1  # your guess: a step with prompts over one without
PROMPTS: int = 16  # learned vectors in each layer
LEARNING_RATE: float = 2e-2  # of prompts and gates, larger than LoRA's

# %%
import helpers
from helpers.notebook.tuning import TUNING

NAME = "03b_more_adapters"
lesson = helpers.start(NAME, profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes, tuning = lesson.results, lesson.sizes, TUNING[PROFILE]
results.prediction("llama_adapter.step_speedup", 1 / GUESS_STEP, "x")

# %% [markdown] tags=["build"]
# ## Attention to learned prompts
#
# **LLaMA-Adapter** (Zhang et al. 2023) leaves all weights alone. A layer gets $K$ learned vectors, the **prompts**. Its own frozen matrices make keys and values of them, and the text's queries ask them, in a softmax of their own:
#
# $$y = \text{attention}(x) + W_o\,\big(g \cdot \text{softmax}(q k^T / \sqrt{d})\, v\big)$$
#
# $g$ is a **gate**. It starts at 0, so that training starts with the model as it is: random prompts would spoil every answer, and the first gradients would be about repairing that.
#
# The paper adapts the **topmost layers**, and in its code each **head** has a gate of its own, $g = \tanh(\text{a learned number})$, so that no gate is ever larger than 1. PEFT calls the method *adaption prompt*, and has one learned number a layer, without tanh. The package's `PromptedAttention` can do both.
#
# **Exercise 03b.1** (8 minutes) *Why it matters: the same few lines are prefix tuning, cross-attention, and the attention of every model here.*
#
# Return what each query takes from the prompts, times its head's gate. `q` is `(batch, heads, tokens, head_dim)`, `k` and `v` are `(batch, kv_heads, prompts, head_dim)`, `gates` is `(heads,)`. Neighbouring heads share keys and values: with 6 heads and 3 KV heads, heads 0 and 1 share the first. The prompts stand nowhere in the text, so there is no mask.

# %%
import torch

from helpers.notebook.exercises import check, hint, solution
from helpers.weights.adapters.llama_adapter import rotated  # for the function below


def my_prompt_attention(q, k, v, gates):
    return None  # your code: a tensor like q


# hint("03b.1")  # solution("03b.1")
prompt_attention = check("03b.1", my_prompt_attention)

# %% [markdown]
# The forward pass of an adapted layer, which calls your function. (`rotated` turns queries by their position, as in the attention itself.)

# %%
# show: helpers.weights.adapters.llama_adapter:PromptedAttention.forward

# %% [markdown]
# Same prompts in, same logits as PEFT's out:

# %%
from helpers import models
from helpers.notebook.many_adapters import compare_prompts_with_peft
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

base, tokenizer = models.load(MODEL_ID, device=lesson.device)
test = load_split("test")
texts = [prompt_for(tokenizer, example) for example in test]
prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
some = [torch.tensor([ids], device=lesson.device) for ids in prompts[: tuning.texts]]
compare_prompts_with_peft(results, base, some, PROMPTS)

# %% [markdown]
# ## Train it
#
# The same script as in 03, `--method llama_adapter`. The learning rate is larger than LoRA's: Adam moves a gate by about the learning rate in each step, and until it is open the prompts learn next to nothing.

# %%
from helpers.notebook.tuning import reports_of, train_adapter

options = dict(method="llama_adapter", adapter_len=PROMPTS, compiled="False")
made = {"llama_adapter": train_adapter(lesson, LEARNING_RATE, **options)}
report = reports_of(made)["llama_adapter"]
total = sum(p.numel() for p in base.parameters())
share = report["trainable"] / total
results.metric("llama_adapter.trainable_share", share, "share")
print(f"{report['trainable']:,} numbers are trained,", end=" ")
print(f"{share:.2%} of the model's;", end=" ")
print(f"the loss fell from {report['loss'][0]:.2f} to {report['loss'][-1]:.2f}")

# %%
from helpers.models.sharing import sharing_copy
from helpers.notebook.many_adapters import draw_gates
from helpers.weights.adapters import llama_adapter

folder = made["llama_adapter"] / "adapter"
prompted = llama_adapter.load_from_peft(sharing_copy(base), folder).eval()
draw_gates(results, prompted)

# %% [markdown]
# Has it learned the task?

# %%
from helpers.kernels.fastest_step import fastest_step
from helpers.notebook.answers import Judged
from helpers.notebook.many_adapters import show_prompted_answers

asked = test[: tuning.own]
limits = dict(max_new_tokens=tuning.longest)
by_base = Judged.by(fastest_step(base, tuning.turns), tokenizer, asked, **limits)
by_prompts = Judged.by(prompted, tokenizer, asked, **limits)
show_prompted_answers(results, by_base, by_prompts)

# %% [markdown]
# *Version 2* (Gao et al. 2023) also trains the norms and adds a bias and a scale to every linear layer, and puts image prompts in early layers and text prompts in late ones, so that one model follows instructions about pictures.
#
# ## Several adapters on one base
#
# Twenty customers, each with a task of their own, need twenty merged models, or one base with twenty adapters. A second task: the SQL, *and* what it asks for as a comment. Its adapter goes on from the first one, so that a few steps are enough.

# %%
from helpers.errors import CourseError  # for the function below

shipped = MODEL_ID == "base"
explained = dict(answers="explained", lora_r=16, lora_alpha=32.0)
if shipped:
    explained |= dict(begin_with="fine-tuned")
    sql = models.folder_of("fine-tuned")
else:
    sql = train_adapter(lesson, 1e-3, lora_r=16, lora_alpha=32.0) / "adapter"
made["explained"] = train_adapter(lesson, 1e-3, **explained)
folders = {"sql": sql, "explained": made["explained"] / "adapter"}

# %% [markdown]
# This is the forward pass that you wrote in 03. With a list in `active`, each **sequence of a batch** has its own adapter (Punica, Chen et al. 2023): the base's product is shared, the low-rank ones are each sequence's own.

# %%
# show: helpers.weights.adapters.lora:LoraLinear.forward

# %%
from helpers.notebook.ask import make_ask
from helpers.weights.adapters import lora, peft_files

both = sharing_copy(base)
for name, place in folders.items():
    peft_files.load_adapter(both, place, name)
SCHEMA = "CREATE TABLE ships (ship TEXT, harbour TEXT, built INTEGER)"
QUESTION = "Which ships were built after 1990?"
for name in ("sql", "explained", None):  # one request after the other
    print(f"--- {name or 'the base alone'}")
    make_ask(lora.use(both, name), tokenizer, tuning.longest)(SCHEMA, QUESTION)

# %% [markdown]
# Now in one batch: request 1 uses the adapter `sql`, request 2 `explained`, request 3 none, and so on. Each answer must be the one that it gets alone.

# %%
from helpers.notebook.many_adapters import show_mixed_batch

names = ["sql", "explained", None]
few, short = texts[: tuning.batch], min(48, tuning.longest)
show_mixed_batch(results, both, tokenizer, few, names, short)

# %% [markdown] tags=["library"]
# ## The library that people use
#
# PEFT switches adapters with `set_adapter(name)`, and takes `adapter_names=[...]` for a batch. vLLM does it for many users with `--enable-lora`, with kernels that gather each sequence's matrices.

# %%
from helpers.notebook.many_adapters import show_peft_batch

show_peft_batch(base, folders, both, tokenizer, few, short)

# %% [markdown] tags=["measure"]
# ## What they cost
#
# A step with prompts, and a step of a batch whose sequences have an adapter each.

# %%
from helpers.notebook.many_adapters import show_batch_costs, show_prompted_step

show_prompted_step(results, base, prompted, sizes.rounds, GUESS_STEP)
show_batch_costs(results, base, both, names, tuning.batch, sizes.rounds)

# %%
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Prompts need long training.** They begin behind a shut gate, and change what is attended to, not what is computed. LoRA learns a form of answer in a few steps.
# * **Prompts cost time for ever.** Merged LoRA costs nothing.
# * **Adapters beside the weights** add small operations to every layer. With many adapters in a batch there are more of them; special kernels join them.
#
# | you see | do |
# |---|---|
# | the loss does not move, the gates stay near 0 | a larger learning rate: the prompts' is ten times LoRA's and more |
# | "There are 3 adapters for a batch of 2" | name one for each sequence |
# | "The adapter in ... is more than plain LoRA" | load it with PEFT |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Why does the gate start at 0? (a) to save time (b) so that random prompts don't disturb the model at first (c) so that the prompts stay small
#
# <details><summary>Answer</summary>
#
# (b): training starts with the model as it is. (a) the products are computed all the same. (c) the gate says nothing about the prompts' size.
# </details>
#
# **2.** Twenty customers, each with an adapter, few requests each. (a) twenty merged models (b) one base, an adapter for each sequence (c) one model trained on everything
#
# <details><summary>Answer</summary>
#
# (b): the base is held once, an adapter is a few percent of it, and requests of different customers share a batch. (a) holds twenty times the weights. (c) mixes what the customers want to keep apart.
# </details>
#
# **3.** One task, and every millisecond counts. (a) LoRA, merged (b) LoRA beside the weights (c) LLaMA-Adapter
#
# <details><summary>Answer</summary>
#
# (a): merged, the model is exactly as fast as its base. (b) and (c) pay in each step.
# </details>
#
# **The rule:** one task: merge. Many tasks with few requests each: adapters beside one base, chosen for each sequence.
#
# **What limits it now:** each token still takes a run of the whole base. Notebooks 07 and 08 get several tokens out of one.
#
# References: Zhang et al., *LLaMA-Adapter* (2023); Gao et al., *LLaMA-Adapter V2* (2023); Chen et al., *Punica: Multi-Tenant LoRA Serving* (2023); Li, Liang, *Prefix-Tuning* (2021).
