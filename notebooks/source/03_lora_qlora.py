# ---
# jupyter:
#   course:
#     minutes: 10
#     headline: >-
#       {lora.tokens_per_answer_ratio:.0%} of the tokens, a request {lora.latency_speedup:.2f} times as
#       fast; SQL right for {lora.execution_accuracy:.1%} (base {lora.execution_accuracy.base:.1%})
# ---

# %% [markdown] tags=["card"]
# # 03 · LoRA and QLoRA
#
# **How do you teach a model to say less, by training a few percent of its numbers?**
#
# | | |
# |---|---|
# | previous, next | 02 quantization, 04 pruning |
# | the term it attacks | tokens |
# | you will be able to | write LoRA and merge it; fine-tune on a 4-bit base; say what each method keeps in memory; serve several adapters with one base |
# | time | 45 minutes for you; about 10 for the machine under the profile `cpu` |
# | memory | 5 GiB |
#
# The base model answers in prose, with the SQL somewhere inside. A program that wants the SQL pays for every other token, one step each. Here the model learns to leave them out.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# The fine-tuned model has other weights, but just as many, in the same shapes: a step takes as long as before. Only the answers get shorter: the SQL alone instead of the SQL in prose.
#
# How many times as fast will a whole request be? Write it into `GUESS_LATENCY_SPEEDUP`.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # to fine-tune: the course's, a folder, or owner/name on the Hub
SEED: int = 0  # of everything random
GUESS_LATENCY_SPEEDUP: float = 1.5  # your guess: a request is so many times as fast
RANK: int = 16  # of the adapters
LEARNING_RATE: float = 1e-3  # of LoRA and QLoRA
SHAPE: str = "auto"  # random weights for memory: llama-150m (full: -300m), or a name

# %%
import helpers

lesson = helpers.start("03_lora_qlora", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, lesson.sizes
results.prediction("lora.latency_speedup", GUESS_LATENCY_SPEEDUP, "x")

# %% [markdown] tags=["build"]
# ## Answers that say too much
#
# The first question of the published data set, *sql-create-context*:

# %%
from helpers import models
from helpers.kernels import packed_linear
from helpers.notebook.ask import make_ask

base, tokenizer = models.load(MODEL_ID, device=lesson.device)
SCHEMA = "CREATE TABLE head (age INTEGER)"
QUESTION = "How many heads of the departments are older than 56?"
chatty = make_ask(base, tokenizer)(SCHEMA, QUESTION)
print(f"\n{len(chatty.token_ids)} tokens, {len(chatty.steps)} runs of the model")

# %% [markdown]
# One token costs one run of the model. Which of these tokens does a program need?
#
# A better prompt, or cutting the answer off, may help a large model. Training makes it a habit: show the model questions with the answer that you want. Whether the answers stay right is measured below.
#
# ## LoRA
#
# Training changes each weight matrix $W$ by some $\Delta W$ of the same size. **LoRA** (Hu et al. 2021) learns a change of low **rank**: the product of a tall matrix and a wide one. (The rank is how many independent rows a matrix has; all others are sums of multiples of these.)
#
# $$y = W x + \frac{\alpha}{r} B A x$$
#
# For $W$ of 512 × 512, $A$ is $r$ × 512 and $B$ is 512 × $r$. $W$ is **frozen**: training leaves it alone. $\alpha$ is a number that you choose, and $s = \alpha / r$ the **scaling**: how strongly the change counts.
#
# A small one, to look at:

# %%
import math

import torch
from torch import nn

from helpers.weights.adapters.lora import LoraLinear

torch.manual_seed(SEED)
small = LoraLinear(nn.Linear(4, 3, bias=False))  # W is (3, 4)
small.add("example", rank=1, alpha=2)
a, b = small.a["example"], small.b["example"]
print("A", tuple(a.shape), a.detach().numpy().round(2))
print("B", tuple(b.shape), b.detach().numpy().T.round(2))
print("A's numbers are drawn from plus and minus", 1 / math.sqrt(small.in_features))
b.data = torch.tensor([[1.0], [0.0], [-2.0]])
print("scaling x B A, a change of rank 1: its rows are multiples of one row")
print((small.scaling["example"] * b @ a).detach().numpy().round(2))

# %% [markdown]
# $B$ starts as zero, so training starts with the model as it is. ($A$ starts as any linear layer does, at random.) The whole of it, for a linear layer:

# %%
# show: helpers.weights.adapters.lora:LoraLinear.add

# %%
# show: helpers.weights.adapters.lora:LoraLinear.change

# %% [markdown]
# **Exercise 03.1** (4 minutes) *Why it matters: gradients are kept for what is trained and for nothing else, and so are the optimizer's states (Adam keeps two running averages of each number that it trains).*
#
# All linear layers get an adapter, except the last one, which makes the logits.
#
# How many numbers do adapters of rank `rank` have, beside linear layers of these shapes, each `(out, in)`?

# %%
from helpers.notebook.exercises import check, hint, solution


def my_lora_parameters(shapes, rank):  # a list of pairs, a whole number
    return None  # your code


# hint("03.1")  # solution("03.1")
lora_parameters = check("03.1", my_lora_parameters)


def linear_shapes(model):
    head = model.get_output_embeddings()
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return [tuple(m.weight.shape) for m in linears if m is not head]


with torch.device("meta"):  # the shape alone, no memory
    seven = models.shape_only("llama-7b", device="meta")
for name, model in (("this model", base), ("llama-7b", seven)):
    adapter = lora_parameters(linear_shapes(model), RANK)
    total = sum(p.numel() for p in model.parameters())
    share = f"adapters of rank {RANK}: {adapter / total:.2%} more"
    print(f"{name:11} {total / 1e6:8.1f} million numbers, {share}")

# %% [markdown]
# The larger the matrices, the smaller the share: $r$ × (in + out) beside in × out.
#
# **PEFT** (*parameter-efficient fine-tuning*) is Hugging Face's library for this. It must agree with ours: the same adapter gives the same loss, and the same gradients of $A$ and $B$.

# %%
import copy

from peft import PeftModel

from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.adapters import lora, peft_files

test = load_split("test")
prompts = [prompt_for(tokenizer, e) for e in test]
as_tensor = dict(add_special_tokens=False, return_tensors="pt")
ids = [tokenizer(p, **as_tensor).input_ids.to(lesson.device) for p in prompts[:20]]


def with_learned(model, seed):
    """An adapter as if it had learned something: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora.layers(model):
        for b in layer.b.values():
            b.data = (0.02 * torch.randn(b.shape, generator=generator)).to(b.device)
    return model


ours = with_learned(lora.install(copy.deepcopy(base), rank=RANK), SEED)
folder = helpers.files.build_root() / "artifacts" / "example-adapter"
peft_files.save_adapter(ours, folder)  # the files are PEFT's
theirs = PeftModel.from_pretrained(copy.deepcopy(base), folder, is_trainable=True)


# %%
def loss_and_gradients(model, tokens, names):
    """The loss on a text, and the gradients of all A, then of all B."""
    model.zero_grad()
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    trained = [p for name in names for n, p in model.named_parameters() if name in n]
    return loss.item(), torch.cat([p.grad.flatten() for p in trained])


equal = 0
for tokens in ids:
    loss, gradient = loss_and_gradients(ours, tokens, (".a.", ".b."))
    peft_loss, peft_gradient = loss_and_gradients(theirs, tokens, ("lora_A", "lora_B"))
    error = (gradient - peft_gradient).abs().max()
    close = bool(error <= 1e-3 * peft_gradient.abs().max())
    equal += close and abs(loss - peft_loss) <= 1e-4 * peft_loss
results.invariant("lora.equals_peft", equal == len(ids), equal, len(ids))
print(f"the same loss and the same gradients on {equal} of {len(ids)} texts")

# %% [markdown]
# ## Merging
#
# An adapter costs time: two more products in each layer. After training it isn't needed as such.
#
# **Exercise 03.2** (3 minutes) *Why it matters: merged, a fine-tuned model is exactly as fast as its base.*
#
# $W x + s B A x = (W + s B A) x$. Return the merged matrix, in the dtype of `weight`. Add in float32, since the change is small.


# %%
def my_merged_weight(weight, a, b, scaling):  # (out, in), (rank, in), (out, rank), 1.5
    return None  # your code


# hint("03.2")  # solution("03.2")
merged_weight = check("03.2", my_merged_weight)
plain = lora.merge(copy.deepcopy(ours))
print("layers that are still adapted:", len(list(lora.layers(plain))))


@torch.no_grad()
def differences(model, other):
    """For each text the largest difference between two models' logits."""
    pairs = ((model(input_ids=t).logits, other(input_ids=t).logits) for t in ids)
    return [(one - two).abs().max().item() for one, two in pairs]


worst = differences(plain, ours)
with torch.no_grad():
    largest = max(ours(tokens).logits.abs().max().item() for tokens in ids)
close = sum(w <= 1e-4 * largest for w in worst)
results.invariant("lora.merged_equals_adapter", close == len(ids), close, len(ids))
print(f"merged and unmerged logits, of up to {largest:.1f},", end=" ")
print(f"differ by {max(worst):.1e} at most")

# %% [markdown]
# ## What is learned, and what is only read
#
# A training example is a prompt and a completion. The loss should count the **completion only**: the model has to answer questions, not to invent them.
#
# And it must learn to stop: the end-of-sequence token (EOS) is part of the completion. Short rows are filled up with a padding token. Many tokenizers have none, so people use EOS. Then the code that hides padding from the loss hides the real EOS, too, and the model never learns to stop.
#
# **Labels** stand at the same place as their tokens: transformers compares the model's guess at a place with the label one place later. -100 is torch's sign for "no loss here".
#
# **Exercise 03.3** (4 minutes) *Why it matters: the two most common mistakes of fine-tuning are in this function.*
#
# Return the token ids of prompt, completion and `eos`, and their labels: the token itself where it is learned, -100 where it is not.


# %%
def my_with_labels(prompt, completion, eos):  # two lists of token ids, and a token id
    return None  # your code: (ids, labels)


# hint("03.3")  # solution("03.3")
with_labels = check("03.3", my_with_labels)
sample_prompt = tokenizer("How many?<|assistant|>").input_ids
sample_sql = tokenizer("SELECT 1").input_ids
sample = with_labels(sample_prompt, sample_sql, tokenizer.eos_token_id)
for token, label in zip(*sample):
    print(f"{tokenizer.decode([token])!r:16} {'learned' if label != -100 else 'read'}")

# %% [markdown]
# Examples have all lengths. One in each row, padded to the longest, most of a batch would be padding. **Packing** puts several into one row. Each has its own positions, from 0 on, and a mask hides the others; questions about the same tables also share the tables' tokens, as branches of a tree. The script tests that a model takes such a mask, and packs nothing where it doesn't.

# %%
from collections.abc import Sequence  # what the function below needs

from helpers.errors import CourseError
from helpers.training.completions import encode
from helpers.training.packing import Tree, pack

# %%
# show: helpers.training.packing:pack

# %%
encoded = [encode(e, tokenizer) for e in load_split("train")]
lengths = [len(e.ids) for e in encoded]
learned = sum(label != -100 for e in encoded for label in e.labels)
rows = pack([Tree((e,)) for e in encoded], 512)
padded_size, packed_size = max(lengths) * len(encoded), 512 * len(rows)
print(f"{len(encoded)} examples, {sum(lengths)} tokens, of which {learned} are learned")
print(f"padded, one example a row: {sum(lengths) / padded_size:.0%} of it are tokens;")
print(f"   packed: {sum(lengths) / packed_size:.0%}")

# %% [markdown]
# ## Train
#
# `helpers/training/fine_tune_llm.py` is a script like the published one: PEFT's adapters, Hugging Face's Trainer. It runs from here, from the shell, under `torchrun`, and as a SageMaker training job (notebook 12). The first run also answers validation questions at the end of its epoch, and runs their SQL; the later ones skip that to save time.
#
# It is started as a process of its own, so that its memory is its own. What it made is kept: run this cell again, and it is there.

# %%
from helpers.training.launch import launch

SCRIPT = "helpers.training.fine_tune_llm"
STEPS = {"smoke": 3, "full": 100}.get(PROFILE, 50)
COMMON = dict(seed=SEED, per_device_train_batch_size=4, lora_r=RANK, warmup_steps=5)
COMMON |= dict(lora_alpha=2.0 * RANK)
SHORT = COMMON | dict(max_steps=STEPS, eval_samples=0)
SHORT_LORA = SHORT | dict(lr=LEARNING_RATE)
AT_ONCE = dict(inside=PROFILE == "smoke")  # loading the libraries anew takes too long
length = dict(max_steps=STEPS) if PROFILE == "smoke" else dict(epochs=1.0)
length |= dict(eval_samples={"smoke": 4, "full": 450}.get(PROFILE, 100))
own = launch(SCRIPT, MODEL_ID, COMMON | length | dict(lr=LEARNING_RATE))

# %% [markdown]
# And once more for as many steps as the other methods will get, to compare time and memory:

# %%
made = {"lora": own if PROFILE == "smoke" else launch(SCRIPT, MODEL_ID, SHORT_LORA)}

# %% [markdown]
# ## QLoRA: the base in four bits
#
# While an adapter is trained, the base is only read. **QLoRA** (Dettmers et al. 2023) keeps it in **NF4**. Weights are cut into blocks of 64. A block keeps its largest absolute value, the **scale**. Each weight is stored as the number of the nearest of 16 levels between -1 and 1; read back (**dequantized**), it is level × scale. The levels lie closer together where a normal distribution has more of its numbers, since weights look like one.

# %%
import bitsandbytes.functional as bnb
import matplotlib.pyplot as plt

from helpers.notebook import plots
from helpers.weights.quantization import nf4

levels = bnb.get_4bit_type("nf4", device="cpu").numpy()
first = next(m for m in base.modules() if isinstance(m, nn.Linear))
blocks = first.weight.detach().float().cpu().reshape(-1, 64)
scaled = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()
fig, ax = plt.subplots(figsize=(8, 3))
ax.hist(scaled.numpy(), 81, color=plots.COLORS[2], label="weights of one layer")
height = ax.get_ylim()[1] / 4
ax.vlines(levels, 0, height, color=plots.COLORS[0], label="the 16 levels of NF4")
ax.set(
    title="NF4 has more levels where there are more weights",
    xlabel="weight / largest of its block (ratio)",
    ylabel="weights (count)",
)
ax.legend()

four_bits = nf4.nf4(MODEL_ID, device=lesson.device)
nf4_bytes = nf4.linear_bytes(four_bits)
ratio = nf4_bytes / (2 * nf4.linear_numbers(base))
results.metric("qlora.linear_weight_bytes_ratio", ratio, "ratio")
print(f"linear layers: {nf4_bytes / 1e6:.2f} MB in NF4, scales included:", end=" ")
print(f"{ratio:.3f} of fp16's")

# %% [markdown]
# Gradients flow *through* the four-bit weights to the adapters, which are in float32. bitsandbytes does this on CPUs, too.

# %%
made["qlora"] = launch(SCRIPT, MODEL_ID, SHORT_LORA | dict(method="qlora"), **AT_ONCE)

# %% [markdown]
# Where does the adapter go after training? Into the **unquantized** base, as it was before. Merging into four bits means: read the weights back, add, round again. Most of the change is smaller than half the distance between two levels, and rounding loses it. And on a CPU there is a trap: after the first forward pass in eval mode bitsandbytes stores the weights in another order. What `dequantize_4bit` reads then is garbage, and nothing says so.

# %%
by_name = dict(four_bits.named_modules())
name = next(n for n, m in by_name.items() if type(m).__name__ == "Linear4bit")
layer = by_name[name]
original = base.get_submodule(name).weight


def error_of(layer):
    read = bnb.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return ((read - original).norm() / original.norm()).item()


before = error_of(layer)
with torch.no_grad():
    four_bits.eval()(ids[0])
print(f"{name}: relative error of the weights as read {before:.1%},", end=" ")
print(f"and after one forward pass {error_of(layer):.1%}")
del four_bits, by_name, layer

# %% [markdown]
# ## LLaMA-Adapter
#
# Another way to train little: **LLaMA-Adapter** (Zhang et al. 2023). Each layer gets some learned prompts, vectors that it attends to beside its own text:
#
# $$y = \text{attention}(x) + W_o\,(g \cdot \text{softmax}(q k^T / \sqrt{d})\, v)$$
#
# $k$ and $v$ are made of the prompts, $q$ of the text. $g$, the **gate**, is one learned number; at 0, where it starts, the new part is silent. (`rotated` turns queries by their position, as in the attention itself.)

# %%
from torch.nn import functional as F  # what the class below needs

from helpers.weights.adapters import llama_adapter
from helpers.weights.adapters.llama_adapter import PromptedAttention, rotated

print(llama_adapter.__doc__.splitlines()[0])

# %%
# show: helpers.weights.adapters.llama_adapter:PromptedAttention

# %% [markdown]
# PEFT calls it *adaption prompt*. Same prompts in, same logits out:

# %%
from peft import AdaptionPromptConfig, get_peft_model

if hasattr(base, "model") and base.config.model_type in ("llama", "mistral"):
    mine = copy.deepcopy(base)
    for layer in mine.model.layers:
        layer.self_attn = PromptedAttention(layer.self_attn, count=8)
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=8)
    config.adapter_layers = base.config.num_hidden_layers
    peft_s = get_peft_model(copy.deepcopy(base), config)
    unchanged = torch.equal(mine(ids[0]).logits, base(ids[0]).logits)
    prompted = [m for m in mine.modules() if isinstance(m, PromptedAttention)]
    adapted = [m for m in peft_s.modules() if hasattr(m, "adaption_prompt")]
    for one, other in zip(prompted, adapted, strict=True):
        one.gate.data.fill_(0.5), other.adaption_gate.data.fill_(0.5)
        other.adaption_prompt.data.copy_(one.prompts.data)
    close = sum(w < 1e-3 for w in differences(mine, peft_s))
    results.invariant("llama_adapter.equals_peft", close == len(ids), close, len(ids))
    print(f"gates shut, the logits are exactly the base's: {unchanged};", end=" ")
    print(f"open, they are PEFT's on {close} of {len(ids)} texts")
    options = SHORT | dict(method="llama_adapter", lr=10 * LEARNING_RATE)
    made["llama_adapter"] = launch(SCRIPT, MODEL_ID, options, **AT_ONCE)
else:
    print("left out: LLaMA-Adapter is written for models built like Llama")

# %% [markdown]
# It trains fewer numbers than LoRA, but it can't be merged: each step pays for it for ever. *Version 2* (Gao et al. 2023) also trains the norms and adds a bias and a scale to every linear layer, and puts image prompts in early layers and text prompts in late ones, so that one model follows instructions about pictures.
#
# And, for comparison, every weight:

# %%
every_weight = SHORT | dict(method="full", lr=LEARNING_RATE / 3)
made["full"] = launch(SCRIPT, MODEL_ID, every_weight, **AT_ONCE)

# %% [markdown]
# ## What each one costs
#
# Compare time and memory, not the loss: each method has its own learning rate, and few steps say little. *Memory* is what the process took beyond its libraries, at its peak. On a model this small it is mostly activations, which are the same for all. So the same again on random weights of a larger shape, one packed row at a time:

# %%
import json

import numpy as np

shape = SHAPE
if SHAPE == "auto":
    shape = {"full": "llama-300m"}.get(PROFILE, "llama-150m")
place = helpers.files.build_root() / "artifacts" / f"random-{shape}"
THREE = ("full", "lora", "qlora")
LARGE = dict(max_steps=3, per_device_train_batch_size=1, max_seq_length=320)
LARGE |= dict(lora_r=RANK, eval_samples=0, merge_weights=False, save_steps=1000)
if PROFILE == "smoke":  # no time for a large shape: the table repeats the small model's
    shape, large = "the same", {m: made[m] for m in THREE}
else:
    if not (place / "model.safetensors").exists():
        random_weights = models.shape_only(shape, "bfloat16", vocab_size=len(tokenizer))
        random_weights.save_pretrained(place)
        tokenizer.save_pretrained(place)
    large = {m: launch(SCRIPT, str(place), LARGE | dict(method=m)) for m in THREE}


# %%
def report_of(folder):
    report = json.loads((folder / "report.json").read_text())
    return report | dict(seconds_per_step=report["seconds"] / report["steps"])


reports = {method: report_of(folder) for method, folder in made.items()}
of_large = {method: report_of(folder) for method, folder in large.items()}
total = sum(p.numel() for p in base.parameters())
print(
    f"{'':14} {'trained':>8} {'steps':>6} {'s/step':>7} {'loss at the end':>16}",
    end=" ",
)
print(f"{'peak memory':>12} {'of ' + shape:>16}")
for method, r in reports.items():
    loss, gib = np.mean(r["loss"][-5:]), f"{r['peak_memory_gib']:8.2f} GiB"
    if method in of_large:
        gib += f" {of_large[method]['peak_memory_gib']:12.2f} GiB"
    counts = f"{r['trainable'] / total:8.1%} {r['steps']:6}"
    print(f"{method:14} {counts} {r['seconds_per_step']:7.2f} {loss:16.3f} {gib}")
results.metric("lora.trainable_share", reports["lora"]["trainable"] / total, "share")
for suffix, of_method in (("", reports), (".large", of_large)):
    for method in ("lora", "qlora"):
        peak, of_full = (of_method[m]["peak_memory_gib"] for m in (method, "full"))
        results.metric(f"{method}.peak_memory_ratio{suffix}", peak / of_full, "ratio")
for method in ("lora", "qlora"):
    seconds = reports[method]["seconds_per_step"]
    results.metric(f"{method}.seconds_per_step", seconds, "s")

# %% [markdown]
# And a model of 7 billion? Here computed: weights, gradients and the optimizer's states, which all grow with the number of weights. Activations come on top. Full training keeps all of it in float32. LoRA's base is only read, so bfloat16 is enough; QLoRA's linear layers are in NF4. Adapters, their gradients and states are in float32.

# %%
from helpers.training.memory import training_bytes

linear = sum(out * into for out, into in linear_shapes(seven))
other = sum(p.numel() for p in seven.parameters()) - linear
adapter = lora_parameters(linear_shapes(seven), RANK)
needed = {m: training_bytes(m, linear, other, adapter * (m != "full")) for m in THREE}
fig, ax = plt.subplots(figsize=(8, 2.6))
LOOKS = {"weights": dict(color=plots.COLORS[0])}
LOOKS["gradients"] = dict(color=plots.COLORS[2], hatch="//")
LOOKS["optimizer"] = dict(color="white", hatch="..")
left = dict.fromkeys(THREE, 0.0)
for kind, look in LOOKS.items():
    widths = [needed[method][kind] / 1e9 for method in THREE]
    starts = list(left.values())
    ax.barh(THREE, widths, left=starts, edgecolor=plots.COLORS[0], label=kind, **look)
    left = {m: start + width for m, start, width in zip(THREE, starts, widths)}
for method, gb in left.items():
    results.metric(f"{method}.training_gb.7b", gb, "GB", kind="predicted")
    print(f"llama-7b, {method:6} {gb:6.1f} GB (computed)")
title = "What fine-tuning a model of 7 billion keeps in memory (computed)"
ax.set(title=title, xlabel="memory (GB)", ylabel="method")
ax.invert_yaxis()
_ = ax.legend()

# %% [markdown]
# ## Several adapters on one base
#
# A second task: the SQL, *and* what it asks for as a comment. Its adapter is trained on the same base.

# %%
explained = SHORT_LORA | dict(answers="explained", merge_weights=False)
made["explained"] = launch(SCRIPT, MODEL_ID, explained, **AT_ONCE)

# %% [markdown]
# Both on one base: each *sequence of a batch* may name its own adapter (Punica, Chen et al. 2023). The base's product is shared, the low-rank ones are each sequence's own.

# %%
# show: helpers.weights.adapters.lora:LoraLinear.forward

# %%
from helpers.text_to_sql.evaluate import answer_in_batches

both = copy.deepcopy(base)
for adapter_name, made_in in (("sql", own), ("explained", made["explained"])):
    peft_files.load_adapter(both, made_in / "adapter", adapter_name)
wanted = ["sql", "explained", None]
for who in wanted:  # one request after the other: the adapter is switched
    print(f"--- {who or 'the base alone'}")
    print(answer_in_batches(lora.use(both, who), tokenizer, prompts[:1])[0])

# %% [markdown]
# Now in one batch: request 1 uses the adapter `sql`, request 2 `explained`, request 3 none, and so on. Each answer must be the one that it gets alone.

# %%
count = {"smoke": 6}.get(PROFILE, 48)
few, alone = prompts[:count], {}
for who in wanted:
    alone[who] = answer_in_batches(lora.use(both, who), tokenizer, few)
mix = [wanted[i % 3] for i in range(count)]
mixed = answer_in_batches(lora.use(both, mix), tokenizer, few, batch_size=count)
same = sum(alone[who][i] == answer for i, (who, answer) in enumerate(zip(mix, mixed)))
results.invariant("lora.two_adapters_in_one_batch", same == count, same, count)
one_model = sum(p.nbytes for p in base.parameters())
two_adapters = sum(p.nbytes for p in both.parameters())
ratio = two_adapters / (2 * one_model)
results.metric("lora.two_adapters_memory_ratio", ratio, "ratio")
print(f"--- in one batch: {same} of {count} answers as by itself;", end=" ")
print(f"{two_adapters / 1e6:.1f} MB, two merged models {2 * one_model / 1e6:.1f} MB")

# %% [markdown] tags=["library"]
# ## The library that people use
#
# The training above is PEFT's and transformers' already. In the shell, the same runs are
#
#     python -m helpers.training.fine_tune_llm --method qlora --epochs 3
#     torchrun --nproc-per-node 2 -m helpers.training.fine_tune_llm --epochs 3
#
# `tensorboard --logdir build` shows their curves. Loading what came out takes three lines with PEFT, and none of ours:

# %%
again = PeftModel.from_pretrained(copy.deepcopy(base), own / "adapter")
loaded = again.merge_and_unload().eval()
reread, _ = models.load(own / "merged", device=lesson.device)
error = max(differences(loaded, reread))
print("PEFT's merge and the merged model on disk: logits differ by", end=" ")
print(f"{error:.1e} at most")

# %% [markdown] tags=["measure"]
# ## Fewer tokens, the same answers?
#
# The shipped fine-tuned model, `data/models/fine-tuned`, was made by the same script; its card says with what settings. (With another `MODEL_ID` it is your own, made above.)

# %%
from helpers.measuring.quality import paired, wilson
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.prompts import extract_sql

tuned = {"own": loaded}
if MODEL_ID == "base":
    tuned = {"shipped": models.load("fine-tuned", device=lesson.device)[0], **tuned}
asked, first = test[: sizes.answers], next(iter(tuned))
right, bare = {}, {}
for who, model in {"base": base, **tuned}.items():
    texts = answer_in_batches(model, tokenizer, prompts[: len(asked)])
    right[who] = right_answers(asked, texts)
    bare[who] = [bool(text) and extract_sql(text) == text.strip() for text in texts]
    low, high = wilson(sum(right[who]), len(asked))
    counts = f"right {sum(right[who])} of {len(asked)} ({low:.0%} to {high:.0%})"
    change = "" if who == "base" else f"; {paired(right['base'], right[who])}"
    print(f"{who:8} {counts}, SQL alone {sum(bare[who])} of {len(asked)}{change}")


def note_share(key, flags, **interval):
    results.metric(key, sum(flags) / len(flags), "share", n=len(flags), **interval)


low, high = wilson(sum(right[first]), len(asked))
note_share("lora.execution_accuracy", right[first], low=low, high=high)
note_share("lora.execution_accuracy.own", right["own"])
note_share("lora.execution_accuracy.base", right["base"])
note_share("lora.bare_sql_rate.base", bare["base"])
note_share("lora.bare_sql_rate.fine_tuned", bare[first])

# %% [markdown]
# Now the time of whole requests, prompt and all, base and fine-tuned in turns. As many weights, the same kernels, the same step: what is saved is tokens.

# %%
from helpers.decoding.generate import generate
from helpers.measuring.timing import interleave, speedup

fast = {"base": copy.deepcopy(base), "fine-tuned": copy.deepcopy(tuned[first])}
fast = {who: packed_linear.install(model) for who, model in fast.items()}
arms = {who: (lambda p, m=m: generate(m, tokenizer, p)) for who, m in fast.items()}
timed = interleave(arms, prompts[: sizes.timed])
gain = speedup(timed["base"].seconds, timed["fine-tuned"].seconds)
interval = dict(low=gain.low, high=gain.high, n=gain.n)
results.metric("lora.latency_speedup", gain.ratio, "x", **interval)
tokens = {who: sum(len(c.token_ids) for c in arm.results) for who, arm in timed.items()}
ratio = tokens["fine-tuned"] / tokens["base"]
results.metric("lora.tokens_per_answer_ratio", ratio, "ratio", n=sizes.timed)
for who, arm in timed.items():
    ok = right_answers(test[: sizes.timed], [c.text for c in arm.results])
    for example, seconds, c, good in zip(test, arm.seconds, arm.results, ok):
        answer = len(c.token_ids), c.text, good
        results.prompt(example.id, who, "float32", seconds, *answer)
    step_ms = 1e3 * np.median([s.seconds for c in arm.results for s in c.steps[1:]])
    print(f"{who:10} {tokens[who] / sizes.timed:5.1f} tokens an answer,", end=" ")
    print(f"{np.mean(arm.seconds) * 1e3:6.0f} ms a request, {step_ms:.1f} ms a step")
print("a request, fine-tuned against base:", gain)
print(f"you guessed {GUESS_LATENCY_SPEEDUP}; by the tokens alone it would be", end=" ")
print(f"{1 / ratio:.2f}: the prompt has to be read in both")

# %% [markdown]
# And an adapter that isn't merged, what does that cost in each step?

# %%
from helpers.profiling.step_time import steps_in_turns

unmerged = peft_files.load_adapter(copy.deepcopy(base), own / "adapter")
arms = {"merged": loaded, "unmerged": unmerged}
steps = steps_in_turns(arms, (1,), rounds=sizes.rounds)
slower = speedup(steps["merged"][1], steps["unmerged"][1], of=np.median)
interval = dict(low=slower.low, high=slower.high, n=slower.n)
results.metric("lora.unmerged_step_speedup", slower.ratio, "x", **interval)
print("a step with an adapter beside the weights, against the merged one:", slower)

# %%
example_ask = make_ask(fast["fine-tuned"], tokenizer)
short = example_ask(SCHEMA, QUESTION)
print(f"\n{len(short.token_ids)} tokens instead of {len(chatty.token_ids)}")
lanes = {}
for who, model in fast.items():
    lanes[who], now = [], 0.0
    for step in generate(model, tokenizer, prompts[0]).steps:
        lanes[who].append((1e3 * now, 1e3 * step.seconds, len(step.emitted)))
        now += step.seconds
title = "The same question, before and after: a block is a run of the model"
ax = plots.timeline_of_steps(lanes, title=title)
_ = ax.figure.set_size_inches(9, 2.2)

# %% [markdown]
# Ask it something yourself:

# %%
ship_schema = "CREATE TABLE ship (name TEXT, age INTEGER, harbour TEXT)"
mine_asked = example_ask(ship_schema, "What is the name of the oldest ship?")

# %%
results.assert_invariants()
path = results.write()
print("written:", path.relative_to(path.parents[3]))

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **The base can't do it.** A small change teaches a form, a tone, a task that the base nearly knows. What it doesn't know at all needs far more than a small change on few examples.
# * **Too long, too fast.** Trained for more epochs or at a higher rate, a model can get worse on questions that it has not seen: watch the validation answers, not the loss.
# * **An unmerged adapter** does more work than the base in every step. Merge, unless many adapters share a base.
# * **QLoRA saves memory, not time.** Each product first has to bring the weights back from four bits.
#
# | error | remedy |
# |---|---|
# | answers never stop | the EOS was hidden from the loss, or is missing: look at the labels |
# | the merged model answers like the base | it was merged into quantized weights, which lost the change |
# | the merged model talks nonsense | quantized weights were read in the wrong order: merge into the unquantized base |
# | "The adapter in ... is for another model" | load the base that its card names |
# | out of memory | `--gradient_checkpointing True`, fewer rows with more `--gradient_accumulation_steps`, `--method qlora` |

# %%
slower = reports["qlora"]["seconds_per_step"] / reports["lora"]["seconds_per_step"]
print(f"on this machine a step of QLoRA took {slower:.2f} times as long as one of LoRA")

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
# **2.** Twenty customers, each with an adapter, few requests each. (a) twenty merged models (b) one base, an adapter for each sequence (c) one model trained on everything
#
# <details><summary>Answer</summary>
#
# (b): the base is held once, an adapter is a few percent of it, and requests of different customers share a batch. (a) holds twenty times the weights. (c) mixes what the customers want to keep apart.
# </details>
#
# **3.** A 7B model has to be fine-tuned on a GPU of 24 GB. (a) all weights, in float32 (b) LoRA with the base in 16 or 4 bits (c) it can't be
#
# <details><summary>Answer</summary>
#
# (b): look at the computed figure above, and leave room for activations. (a): Adam's states alone don't fit. (c) it is what QLoRA was made for.
# </details>
#
# **The rule:** before you make a step faster, leave steps out: fine-tune for the answer that you need, and merge.
#
# **What limits it now:** each token that is left still takes a run of the whole model. Pruning (04) makes the run smaller, speculation (07, 08) gets several tokens out of one.
#
# References: Hu et al., *LoRA* (2021); Dettmers et al., *QLoRA* (2023); Zhang et al., *LLaMA-Adapter* (2023); Gao et al., *LLaMA-Adapter V2* (2023); Chen et al., *Punica: Multi-Tenant LoRA Serving* (2023); Krell et al., *Efficient Sequence Packing* (2021).
