# ---
# jupyter:
#   course:
#     minutes: 15
#     headline: >-
#       heads alone {medusa.speedup:.2f} times as fast, with prompt lookup in the same tree
#       {medusa.speedup.with_lookup:.2f}, {medusa.identical_outputs.count} of {medusa.identical_outputs.of}
#       outputs identical; {medusa.speedup_over_strongest_greedy:.2f} against the fastest plain decoding
#       here
# ---

# %% [markdown] tags=["card"]
# # 08 · Medusa
#
# **Can the model guess its own next tokens, without a second model?**
#
# | | |
# |---|---|
# | previous, next | 07 speculative decoding, 09 compilation |
# | the term it attacks | tokens per step, at the price of more tokens read in a step |
# | you will be able to | train Medusa heads; choose the tree that pays on your machine; show that not one token changes; say what is left of a speedup beside the fastest plain decoding |
# | time | 45 minutes for you; about 15 for the machine under the profile `cpu` |
# | memory | 4 GiB |
#
# A draft model is a second model: to train, to load, to run layer by layer. But the model's last hidden state already knows much of what comes. *Medusa* (Cai et al. 2024) reads it out with a few small heads, all at once.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# The published notebook: average latency 0.95 s without heads and 0.53 s with them, and the same output for 450 of 450 prompts. There it was a model of 7 billion weights on GPUs. Here it is this machine and a model about 500 times as small.
#
# How many times as fast will a whole request be with heads alone? Write it into `GUESS_SPEEDUP`.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "fine-tuned"  # the frozen model: the course's, a folder, or owner/name
HEADS: str = "provided"  # the course's; "own": those trained below; else a folder
SEED: int = 0  # of everything random
GUESS_SPEEDUP: float = 1.5  # your guess: so many times as fast, with heads alone

# %%
import helpers

lesson = helpers.start("08_medusa", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, lesson.sizes
results.prediction("medusa.speedup", GUESS_SPEEDUP, "x")

# %% [markdown] tags=["build"]
# ## A head
#
# The model's own `lm_head` reads the hidden state $h_t$ and says token $t+1$. Head $i$ reads the same $h_t$ and guesses token $t+1+i$, without knowing what stands between. It is one residual block, then an `lm_head`:
#
# $$z_i = h_t + \mathrm{SiLU}(W_i h_t + b_i), \qquad \text{guess}_i = \mathrm{lm\_head}(z_i)$$
#
# $W_i$ and $b_i$ start as zero. Then a head begins as exactly what the model's own `lm_head` is.
#
# **Exercise 08.1** (3 minutes) *Why it matters: this line is all that is added to the model.*


# %%
def my_residual_block(x, weight, bias):  # (n, hidden), (hidden, hidden), (hidden,)
    return None  # your code


from helpers.notebook.exercises import check, hint, solution

# hint("08.1")  # solution("08.1")
residual_block = check("08.1", my_residual_block)
import torch

x, weight, bias = torch.tensor([[1.0, -2.0]]), torch.zeros(2, 2), torch.zeros(2)
print("untrained, it changes nothing:", residual_block(x, weight, bias))

# %% [markdown]
# All heads at once. Here they share the model's own `lm_head`; in the paper each has one of its own, which costs more to read and on a model this small brings nothing (the script trains either).

# %%
from torch.nn import functional as F

from helpers import models
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads

# %%
# show: helpers.speculation.medusa_heads:MedusaHeads.states
# %%
# show: helpers.speculation.medusa_heads:MedusaHeads.forward
# %% [markdown]
# ## Train them
#
# The model is **frozen**: it answers exactly as before, whatever the heads learn. So its hidden states are computed once, and training sees nothing else. The heads learn from the model's *own* answers to the training questions (**self-distillation**), and from no token of a prompt: they are to guess what the model says, right or wrong.
#
# The loss adds up the heads' cross-entropies, with less weight for the later ones:
# %%
from helpers.training.completions import IGNORED
from helpers.training.launch import launch

# %%
# show: helpers.training.train_medusa_heads:loss_of

# %%
SCRIPT = "helpers.training.train_medusa_heads"
AT_ONCE = dict(inside=PROFILE == "smoke")
settings = dict(eval_samples=150, epochs=4)
if PROFILE == "smoke":
    settings = dict(max_examples=40, eval_samples=8, epochs=1)
own = launch(SCRIPT, MODEL_ID, settings | dict(seed=SEED), **AT_ONCE)

# %%
import json

import matplotlib.pyplot as plt

from helpers.notebook import plots

report = json.loads((own / "report.json").read_text())
results.metric("medusa.train_seconds", report["seconds"], "s")
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(report["losses"], marker="")
left.set_title("The heads' loss while they learn")
left.set(xlabel="step (count)", ylabel="weighted cross-entropy (nats)")
for i, top in enumerate(report["accuracy"][-1], 1):
    right.plot(range(1, len(top) + 1), top, label=f"head {i}, token t+{i + 1}")
    results.metric(f"medusa.head_accuracy.own.head_{i}", top[0], "share")
right.set_title("How often a head's k best hold what came")
right.set(xlabel="k (guesses)", ylabel="share of positions", ylim=(0, 1))
right.legend(fontsize=8)
print(f"trained in {report['seconds']:.0f} s,", end=" ")
print("the model's own answers and hidden states included")

# %% [markdown]
# The first head is right far more often than the last. But its second and third best guesses are worth something, too: that is what the tree will be for.
#
# **Don't expect as much of your own model.** SQL from a generator is easy to foresee. And this base was *pretrained* to foresee: five look-ahead heads took part in it and were thrown away after it, so its hidden states know more of what comes than most models' do (data/models/base/README.md). The paper's first head is right about half the time.
#
# The heads that are provided were trained by the same script for six epochs instead of four, and on 4,000 generated questions beside the training split's own.

# (`packed_linear` below is notebook 00's: linear layers that take PyTorch's fastest kernel for few tokens. All arms have it.)

# %%
from helpers.kernels import packed_linear
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

DTYPES = ("float32", "bfloat16")
if lesson.device != "cpu":
    DTYPES += ("float16",)
heads_place = {"provided": "medusa", "own": own / "heads"}.get(HEADS, HEADS)
models.check_made_for(heads_place, MODEL_ID)
target, heads = {}, {}
for d in DTYPES:
    model, tokenizer = models.load(MODEL_ID, dtype=d, device=lesson.device)
    heads[d] = packed_linear.install(load(heads_place, model))
    target[d] = packed_linear.install(model)
size = sum(p.numel() for p in heads["float32"].trained()) / 1e6
model_size = sum(p.numel() for p in target["float32"].parameters()) / 1e6
print(f"{heads['float32'].count} heads, {size:.2f} million weights,", end=" ")
print(f"beside the model's {model_size:.1f}")

# %% [markdown]
# ## First a chain
#
# Each head's best guess, one after the other: a chain, checked as in the last notebook. The head that guessed a token is named behind it, `·` is the model's own.

# %%
from helpers.decoding.generate import generate
from helpers.decoding.transcript import transcript


def ids_of(text):
    return tokenizer(text, add_special_tokens=False).input_ids


test = load_split("test")
prompts = [prompt_for(tokenizer, e) for e in test]
print("ask:", test[1].question)
chain = Medusa(heads["float32"], CHAIN[: heads["float32"].count])
answer = generate(target["float32"], tokenizer, prompts[1], proposer=chain)
print(f"{len(answer.token_ids)} tokens in {len(answer.steps)} steps")
print(*transcript(answer, tokenizer), sep="\n")

# %% [markdown]
# How such a proposal is made, for any tree of guesses (`picks` holds for each node the place of its guess among the best ones of all heads):

# %%
from torch import Tensor  # what the function below needs

from helpers.decoding.proposals import Proposal
from helpers.decoding.sequence import Sequence

print(Proposal([7, 8, 9], [-1, -1, 0], ["head 1", "head 1", "head 2"]))

# %%
# show: helpers.speculation.medusa:Medusa.propose

# %% [markdown]
# ## Then a tree
#
# If the first head's best guess is wrong, the whole chain is lost. A **tree** also checks its second best, and what may follow each. All candidates are read in *one* step: each sees the prompt and its own ancestors, and none of its rivals. Two rivals for the same place also have the same **position**: the distance from the certain token.
#
# **Exercise 08.2** (3 minutes) *Why it matters: wrong positions are the usual bug of tree decoding, and nothing crashes.*
#
# A guess's *parent* is the index of the guess that it follows, -1 for the certain token. Return how far each guess lies after the certain token, from 1.


# %%
def my_depths(parents):  # a list: parents[i] < i
    return None  # your code


# hint("08.2")  # solution("08.2")
depths = check("08.2", my_depths)

# %%
from helpers.decoding.feed import Feed
from helpers.decoding.masks import step_mask

example = Medusa(heads["float32"], ((0,), (1,), (0, 0), (0, 1), (1, 0)))
names = ["certain", *example.names]
mask = step_mask([Feed(0, range(len(names)), example.parents)], [0])[0, 0]
fig, ax = plt.subplots(figsize=(4.2, 3.6))
ax.imshow(mask, cmap="Greys", vmin=0, vmax=1.6)
ax.set_title("Which token of a step sees which")
ax.set(xlabel="is seen (token)", ylabel="sees (token)")
places = range(len(names))
ax.set_xticks(places, names, rotation=60, fontsize=8)
distances = (0, *depths(example.parents))
ax.set_yticks(places, [f"{n}, +{d}" for n, d in zip(names, distances)], fontsize=8)
ax.grid(visible=False)

# %% [markdown]
# ## Which tree?
#
# More nodes: more tokens a step, and a dearer step. Both can be measured before anything is built. First, on **validation** answers: at each position, which *rank* did each head give to the token that really came? (0 is the best guess.) A path of the tree, (0, 2) say, is right where the first head's rank was 0 and the second's 2. Count how often: the most frequent paths are the best tree of that size.

# %%
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from helpers.speculation.tree_choice import (
    Ranks,
    Shares,
    best_tree,
    choose_tree,
    decode_seconds,
    path_shares,
    ranks_of,
    tokens_per_step,
)

# %%
# show: helpers.speculation.tree_choice:path_shares

# %% [markdown]
# **Exercise 08.3** (7 minutes) *Why it matters: with it you know a tree's worth without running it once.*
#
# An answer is a list: for each position the ranks of what came after it, by head, as far as the answer goes (so the last entry is empty). The tree is a collection of paths: `((0,), (1,), (0, 0))`. Return how many tokens each step emits. Begin at position 0. Go down the tree along the ranks as far as it has them: so many guesses are accepted, and one token of the model's own comes on top, if the answer still has one. The next step begins where this one ended.
#
# For `[[1, 5], [0, 0], [0], []]` and that tree: from position 0 the path (1,) is in the tree and (1, 5) isn't, so 2 tokens; from position 2 there is (0,), the answer's last: 1 token. `[2, 1]`.


# %%
def my_accepted_steps(answer, tree):
    return None  # your code


# hint("08.3")  # solution("08.3")
accepted_steps = check("08.3", my_accepted_steps)

# %%
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache

num_validation = max(4, min(100, sizes.answers))
validation = [prompt_for(tokenizer, e) for e in load_split("validation")]
validation = validation[:num_validation]
validation_ids = [ids_of(prompt) for prompt in validation]
plain_validation = [generate(target["float32"], tokenizer, p) for p in validation]


def ranks_with(model, heads, prompts, answers):
    """Of each answer, at each position, the ranks that the heads gave to what came."""
    forward, ranks = Forward(model), []
    for prompt, answer in zip(prompts, answers):  # token ids
        feed = Feed(0, [*prompt, *answer[:-1]], num_logits=len(answer))
        [reading] = forward([feed], KVCache.for_model(model, len(feed)))
        ranks.append(ranks_of(heads, reading.hidden, answer))
    return ranks


answers = [c.token_ids for c in plain_validation]
ranks = ranks_with(target["float32"], heads["float32"], validation_ids, answers)
shares = path_shares(ranks)
for size in (1, 3, 5, 8, 16, 32, 64):
    tree = best_tree(shares, size)
    print(f"{size:2} nodes: {tokens_per_step(ranks, tree):.2f} tokens a step")
print(f"a chain of 5: {tokens_per_step(ranks, CHAIN):.2f};", end=" ")
print("the first answer with 64 nodes, step by step:", accepted_steps(ranks[0], tree))

# %% [markdown]
# Now what a step costs, by the tokens that it reads, and what asking the heads costs inside the loop (`Clocked` is a stopwatch around a proposer):

# %%
from statistics import median

from helpers.profiling.breakdown import Clocked
from helpers.profiling.step_time import step_seconds, steps_in_turns
from helpers.speculation.cost import accepted_per_step, interpolated

NUM_TOKENS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 24, 32, 65)
times = steps_in_turns(target, NUM_TOKENS, rounds=sizes.rounds)
step_of = {d: {n: median(s) for n, s in times[d].items()} for d in DTYPES}
middle = sorted(map(len, validation_ids))[len(validation_ids) // 2]
prefills = steps_in_turns(target, (middle,), context=0, rounds=9)
prefill_of = {d: median(seconds[middle]) for d, seconds in prefills.items()}
heads_cost = {}
for d in DTYPES:
    clock = Clocked(Medusa(heads[d], best_tree(shares, 5)))
    for prompt in validation[:10]:
        generate(target[d], tokenizer, prompt, proposer=clock)
    heads_cost[d] = median(seconds for _, seconds in clock.later)
    shown = {n: 1e3 * step_of[d][n] for n in (1, 4, 8, 16, 32, 65)}
    in_ms = ", ".join(f"{n}: {ms:.1f}" for n, ms in shown.items())
    print(f"{d:9} ms a step by the tokens that it reads: {in_ms};", end=" ")
    print(f"asking the heads {1e3 * heads_cost[d]:.2f} ms;", end=" ")
    print(f"a prefill {1e3 * prefill_of[d]:.0f}")

# %% [markdown]
# Multiply. For each size of tree: how many times as fast would a whole request be, prompt and all? The best is taken for each dtype, and the prediction saved before any request is timed. (The paper's own tree has 64 nodes. It was made for a GPU, where further tokens cost less.)

# %%
positions = sum(len(answer) for answer in ranks)
trees = {size: best_tree(shares, size) for size in range(1, 65)}


def predicted_speedup(tree, d):
    """How many times as fast the validation requests would be with this tree."""
    prefill, cost = len(ranks) * prefill_of[d], interpolated(step_of[d])
    plain = prefill + (positions - len(ranks)) * cost(1)
    asked_first = len(ranks) * heads_cost[d]
    decode = decode_seconds(ranks, tree, cost, heads_cost[d])
    return plain / (prefill + asked_first + decode)


def replayed_speedup(d, done, asking):
    """How many times as fast as plain decoding, by what steps and prefills cost."""
    cost, prefill = interpolated(step_of[d]), len(done) * prefill_of[d]
    decode = [step for c in done for step in c.steps if step.kind == "decode"]
    tokens = sum(len(c.token_ids) - 1 for c in plain_validation[: len(done)])
    spent = prefill + sum(cost(step.num_tokens) for step in decode) + asking
    return (prefill + tokens * cost(1)) / spent


# %%
tree_of, expected = {}, {}
fig, ax = plt.subplots(figsize=(7, 3.2))
for d, marker in zip(DTYPES, ("o", "s", "^")):
    line = {size: predicted_speedup(tree, d) for size, tree in trees.items()}
    tree_of[d] = trees[max(line, key=line.get)]
    expected[d], size = max(line.values()), len(tree_of[d])
    look = dict(marker=marker, markevery=[size - 1])
    ax.plot(list(line), list(line.values()), label=f"{d}, best: {size} nodes", **look)
    tokens = tokens_per_step(ranks, tree_of[d])
    print(f"{d:9} {size:2} nodes, {tokens:.2f} tokens a step:", end=" ")
    print(f"{expected[d]:.2f}x (predicted); 64 nodes {line[64]:.2f}x")
ax.axhline(1, color="#555555", linestyle=":", marker="")
ax.set(
    title="Which size of tree pays on this machine (predicted)",
    xlabel="nodes of the tree (count)",
    ylabel="speedup of a request (times)",
)
ax.legend()
results.prediction("medusa.predicted_speedup", max(expected.values()), "x")
for d in DTYPES:
    results.prediction(f"medusa.predicted_speedup.{d}", expected[d], "x")

# %% [markdown]
# The tree itself. A node's number is the guess's rank; a wide branch is right often.

# %%
best_dtype = max(expected, key=expected.get)
nodes = sorted(tree_of[best_dtype], key=lambda path: (len(path), path))
place = {(): (0.0, 0)}
for depth in range(1, heads[best_dtype].count + 1):
    level = [path for path in nodes if len(path) == depth]
    place |= {path: (i - (len(level) - 1) / 2, depth) for i, path in enumerate(level)}
fig, ax = plt.subplots(figsize=(7, 3.2))
line = dict(color=plots.COLORS[0], linestyle="-", marker="")
text = dict(ha="center", va="center", fontsize=8)
box = dict(facecolor="white", edgecolor=plots.COLORS[0])
for path in nodes:
    (x0, y0), (x1, y1) = place[path[:-1]], place[path]
    ax.plot([x0, x1], [y0, y1], linewidth=0.5 + 7 * shares[path], **line)
    ax.text(x1, y1, f"{path[-1]}\n{shares[path]:.0%}", bbox=box, **text)
ax.text(0, 0, "certain", bbox=dict(facecolor="#dddddd"), **text)
title = "The chosen tree: rank of each guess, and how often all up to it are right"
ax.set_title(title)
ax.set(ylabel="depth (tokens ahead)", xlabel="rivals (nodes)", xticks=[])
ax.set_ylim(max(map(len, nodes), default=1) + 0.4, -0.4)
ax.grid(visible=False)

# %% [markdown]
# ## Heads and lookup in one tree
#
# A head reads one hidden state: it knows phrases by heart, and seldom which *name* comes. Prompt lookup copies names and knows no phrase. A tree doesn't care who proposed a node: put both into it, duplicates merged. (Two other ways from 07 are tried as well: "first", the lookup, and the heads only where it has no guess; "relay", where a bigram table goes on when the copy ends.)

# %%
from itertools import product

from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence
from helpers.speculation.combine import FirstOf, Relay, Together, merged
from helpers.speculation.ngram import BigramTable, PromptLookup

# %%
# show: helpers.speculation.combine:Together

# %%
training = [[*ids_of(e.answer), tokenizer.eos_token_id] for e in load_split("train")]


def both(d, nodes, copied, kind):
    """Heads with a tree of so many nodes, and a lookup of so many tokens."""
    lookup, guesses = PromptLookup(count=copied), Medusa(heads[d], trees[nodes])
    if kind == "relay":  # where the copy ends, a bigram table goes on
        lookup = Relay(lookup, BigramTable(training, count=1), count=copied)
    return FirstOf(lookup, guesses) if kind == "first" else Together(guesses, lookup)


SIZES = ((3, 4), (5, 4), (8, 3), (8, 4), (12, 3), (12, 5))
if PROFILE == "smoke":
    SIZES = ((3, 3), (5, 4))
tuning = validation[: {"smoke": 2, "full": 60}.get(PROFILE, 24)]
tried = {}
for d, kind, (nodes, copied) in product(DTYPES, ("tree", "first", "relay"), SIZES):
    clock = Clocked(both(d, nodes, copied, kind))
    done = [generate(target[d], tokenizer, p, proposer=clock) for p in tuning]
    asking = sum(seconds for _, seconds in clock.first + clock.later)
    tried[d, nodes, copied, kind] = (
        replayed_speedup(d, done, asking),
        accepted_per_step(done),
    )

# %%
combined = {}
for d in DTYPES:
    ranking = sorted((key for key in tried if key[0] == d), key=tried.get, reverse=True)
    combined[d] = ranking[0]
    for key in ranking[:4]:
        (_, nodes, copied, kind), (speed, tokens) = key, tried[key]
        print(f"{d:9} {nodes} nodes of the heads, {copied} copied, {kind:5}:", end=" ")
        print(f"{tokens:.2f} tokens a step, {speed:.2f}x (predicted)")
value = max(tried[key][0] for key in combined.values())
results.prediction("medusa.speedup.with_lookup.predicted", value, "x")

# %% [markdown]
# Who guessed which token right? (What both guessed counts for the head.)

# %%
credit, proposer = Counter(), both(*combined["float32"])
for prompt in validation[: {"smoke": 2}.get(PROFILE, 40)]:
    done = generate(target["float32"], tokenizer, prompt, proposer=proposer)
    for step in (s for s in done.steps if s.kind == "decode"):
        credit.update(step.proposal.proposers[i] for i in step.accepted)
        credit["the model itself"] += len(step.emitted) - len(step.accepted)
fig, ax = plt.subplots(figsize=(7, 2.6))
order = {who: n / credit.total() for who, n in credit.most_common()}
ax.barh(list(order), list(order.values()), color=plots.COLORS[0])
ax.invert_yaxis()
ax.set_title("Whose tokens they were (validation questions)")
_ = ax.set(xlabel="share of the tokens of decode steps", ylabel="guesser (name)")

# %% [markdown]
# ## Where a step's time goes
#
# A step of this small model is more than its matrix products: each layer adds many small operations with a call of their own. A **fused** step does the same with fewer: one product for queries, keys and values, one for gate and up, one operation for a norm. *Standard* is transformers' own step with notebook 00's linear layers, as all arms here have it; *untouched* is the same with PyTorch's usual ones. *All else* is what speculation itself adds outside of model and heads: top-k, tree, mask, acceptance, cache.

# %%
from helpers.errors import CourseError
from helpers.kernels.fused_llama import FusedLlama
from helpers.profiling.breakdown import step_breakdown

fused = {}
try:
    for d in DTYPES if lesson.device == "cpu" else ():
        fused[d] = packed_linear.install(FusedLlama(models.load(MODEL_ID, dtype=d)[0]))
except CourseError as reason:
    print("left out:", reason)

# %%
untouched = {d: models.load(MODEL_ID, dtype=d, device=lesson.device)[0] for d in DTYPES}
groups = {"untouched": untouched, "standard": target, "fused": fused}
ladder = {f"{d}, {kind}": (d, m) for kind, g in groups.items() for d, m in g.items()}


def key_of(name):
    """The results have had "lean" for fused from the start."""
    return name.lower().replace("fused", "lean").replace(", ", ".").replace(" ", "_")


few = validation_ids[: {"smoke": 3}.get(PROFILE, 30)]
columns = f"{'1 token':>8} {'forward':>8} {'heads':>7} {'all else':>9}"
print(f"{'':20} {columns}   (ms a step)")
parts = {}
for name, (d, m) in ladder.items():
    parts[name] = step_breakdown(m, heads[d], tree_of[d], few)
for name, (d, m) in ladder.items():
    one = 1e3 * median(step_seconds(m, (1,), rounds=sizes.rounds)[1])
    p = parts[name]
    forward, asking, rest = (1e3 * s for s in (p.forward, p.heads, p.rest))
    print(f"{name:20} {one:8.2f} {forward:8.2f} {asking:7.2f} {rest:9.2f}", end="   ")
    print(f"{len(tree_of[d]) + 1} tokens")
    total = forward + asking + rest
    results.metric(f"medusa.step_ms.{key_of(name)}", total, "ms")
rest = parts[f"{best_dtype}, standard"].rest
results.metric("medusa.overhead_ms_per_step", 1e3 * rest, "ms")
del untouched, groups, ladder

# %% [markdown]
# What a fused step saves it saves in plain decoding, too, and plain decoding takes more steps. So a ratio to plain decoding can fall while the latency falls. Look at both.

# %% [markdown] tags=["library"]
# ## The libraries that people use
#
# **transformers** has no Medusa of its own, but a hook: `model.generate(..., custom_generate=medusa)`. **vLLM** decodes with Medusa heads by a chain. It reads the folder that `save` writes.

# %%
from functools import partial

from helpers.kernels import torch_compile
from helpers.profiling import vllm_baseline
from helpers.speculation.hf_generate import medusa
from helpers.speculation.medusa_files import save

ids = torch.tensor([validation_ids[0]], device=lesson.device)
proposer = Medusa(heads["float32"], tree_of["float32"])
options = dict(max_new_tokens=256, do_sample=False, proposer=proposer)
hooked = target["float32"].generate(ids, custom_generate=medusa, **options)
same = hooked[0, ids.shape[1] :].tolist() == plain_validation[0].token_ids
print("generate(custom_generate=medusa): the same tokens:", same)

# %%
in_vllm = {}
if vllm_baseline.installed() and PROFILE != "smoke":
    folder = helpers.files.build_root() / "artifacts" / "for_vllm"
    models.load(MODEL_ID, "bfloat16")[0].save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    save(heads["bfloat16"], folder / "heads", MODEL_ID)
    test_ids = [ids_of(p) for p in prompts[: {"full": 150}.get(PROFILE, 100)]]
    run = partial(vllm_baseline.run, folder / "model", test_ids, dtype="bfloat16")
    chain = run(heads=folder / "heads", num_guesses=heads["bfloat16"].count)
    both_parts = target["bfloat16"], heads["bfloat16"]
    by_place = vllm_baseline.accepted_by_place
    ours = by_place(*both_parts, test_ids, chain["token_ids"])
    theirs = [count / chain["drafts"] for count in chain["accepted"]]
    for place, (a, b) in enumerate(zip(ours, theirs), 1):
        print(f"accepted at place {place}: ours {a:.3f}, vLLM's {b:.3f}")
    close = sum(abs(a - b) <= 0.02 for a, b in zip(ours, theirs))
    results.invariant("medusa.loads_in_vllm", close == len(ours), close, len(ours))
    if reason := torch_compile.why_not():
        print("vLLM's plain decoding is left out, since it can't compile here:", reason)
    else:
        in_vllm["greedy"] = run(compiled=True)
else:
    print("left out: vLLM is not installed here, or this is the profile smoke")

# %% [markdown] tags=["measure"]
# ## The published protocol
#
# A figure in bfloat16 counts if at least 95 % of the outputs are identical and at most 5 answers broke, as in 07. Lookup, table and draft have the lengths that 07 chose on the reference machine; they are not chosen anew here.
#
# The test prompts one after the other, whole requests; all arms in turns, and each answer compared with plain greedy decoding, token by token. In float32 all must be equal; in bfloat16 two tokens can score the same, and there the share is reported.

# %%
from helpers.measuring.quality import paired
from helpers.measuring.timing import interleave, speedup
from helpers.speculation.draft_model import DraftModel
from helpers.text_to_sql.evaluate import right_answers

DRAFT_SETTINGS = {d: dict(count=3) for d in DTYPES}
DRAFT_SETTINGS["float32"] = dict(count=6, min_probability=0.8)


def decoder(model, proposer=None):
    return lambda prompt: generate(model, tokenizer, prompt, proposer=proposer)


def arms_of(d):
    """What is compared in this dtype."""
    proposers = {
        "greedy": None,
        "medusa": Medusa(heads[d], tree_of[d]),
        "with_lookup": both(*combined[d]),
        "64 nodes": Medusa(heads[d], trees[64]),
        "prompt_lookup": PromptLookup(count=4),
        "bigram": BigramTable(training, count=1),
    }
    if MODEL_ID == "fine-tuned":
        draft = models.load("draft", dtype=d, device=lesson.device)[0]
        draft = packed_linear.install(draft)
        proposers["draft_model"] = DraftModel(draft, target[d], **DRAFT_SETTINGS[d])
    return {name: decoder(target[d], proposer) for name, proposer in proposers.items()}


# %%
asked = prompts[: sizes.answers if PROFILE == "full" else sizes.timed]
timed = {d: interleave(arms_of(d), asked) for d in DTYPES}
gain = {
    (d, name): speedup(timed[d]["greedy"].seconds, arm.seconds)
    for d in DTYPES
    for name, arm in timed[d].items()
    if name != "greedy"
}

# %%
identical, changes = {}, {}
for d in DTYPES:
    plain = timed[d]["greedy"]
    plain_right = right_answers(test[: len(asked)], [c.text for c in plain.results])
    print(f"{d}: plain greedy {1e3 * sum(plain.seconds) / len(asked):.0f} ms a request")
    for name, arm in timed[d].items():
        same = [a.token_ids == b.token_ids for a, b in zip(plain.results, arm.results)]
        right = right_answers(test[: len(asked)], [c.text for c in arm.results])
        identical[d, name], changes[d, name] = same, paired(plain_right, right)
        for example, seconds, c in zip(test, arm.seconds, arm.results):
            written = len(c.token_ids), c.text, None
            results.prompt(example.id, name, d, seconds, *written)
        if name != "greedy":
            tokens, change = accepted_per_step(arm.results), changes[d, name]
            print(f"   {name:14} {tokens:.2f} tokens a step, {gain[d, name]};", end=" ")
            print(f"same output {sum(same)} of {len(same)}, {change}")


# %%
def note(key, comparison):
    interval = dict(low=comparison.low, high=comparison.high, n=comparison.n)
    results.metric(key, comparison.ratio, "x", **interval)


def counts(d, name):
    share, broken = identical[d, name].count(True) / len(asked), changes[d, name].broken
    return d == "float32" or (share >= 0.95 and broken <= 5)


for name, key in (("medusa", ""), ("with_lookup", "with_lookup_")):
    same = identical["float32", name]
    key = f"medusa.{key}identical_outputs"
    results.invariant(key, all(same), sum(same), len(same))
same = identical["bfloat16", "medusa"]
share = sum(same) / len(same)
results.metric("medusa.identical_share.bf16", share, "share", n=len(same))
note("medusa.speedup.fp32", gain["float32", "medusa"])
note("medusa.speedup.bf16", gain["bfloat16", "medusa"])
dtype_of, suffixes = {}, {"medusa": "", "64 nodes": ".tree_64"}
for name in ("medusa", "with_lookup", "64 nodes", "prompt_lookup", "bigram"):
    fair = [d for d in DTYPES if counts(d, name)]
    d = dtype_of[name] = max(fair, key=lambda d: gain[d, name].ratio)
    suffix = suffixes.get(name, f".{name}")
    note(f"medusa.speedup{suffix}", gain[d, name])
    print(f"{'medusa.speedup' + suffix:30} {gain[d, name]}, in {d}")
    if name != "64 nodes":
        tokens, key = accepted_per_step(timed[d][name].results), "accepted_per_step"
        results.metric(f"medusa.{key}{suffix}", tokens, "tokens", n=len(asked))

# %%
import numpy as np

d = dtype_of["medusa"]
(_, nodes, copied, kind), greedy = combined[d], timed[d]["greedy"]
print(f"with lookup, {d}: {kind} of {nodes} nodes of the heads and {copied}", end=" ")
print("copied tokens, as validation chose")
SHOWN = ("greedy", "medusa", "with_lookup")
latencies = {name: np.array(timed[d][name].seconds) for name in SHOWN}


def p90_of(seconds, axis=None):
    return np.percentile(seconds, 90, axis)


note("medusa.p90_speedup", speedup(greedy.seconds, latencies["medusa"], of=p90_of))
if "draft_model" in timed[d]:
    g = speedup(timed[d]["draft_model"].seconds, timed[d]["medusa"].seconds)
    note("medusa.speedup_over_draft_model", g)
step = interpolated(step_of[d])(len(tree_of[d]) + 1) + heads_cost[d]
wanted = sum(greedy.seconds) / 1.8 - len(asked) * (prefill_of[d] + heads_cost[d])
needed = sum(len(c.token_ids) - 1 for c in greedy.results) * step / max(wanted, 1e-9)
results.metric("medusa.accepted_needed_for_1_8x", needed, "tokens")
tokens, ratio = accepted_per_step(timed[d]["medusa"].results), gain[d, "medusa"].ratio
print(f"for 1.8x in {d}, a step would have to bring {needed:.2f} tokens", end=" ")
print(f"with this tree (estimated); it brought {tokens:.2f}")
print(f"predicted {expected[d]:.2f}, measured {ratio:.2f}:", end=" ")
print(f"{expected[d] / ratio - 1:+.0%} off; you guessed {GUESS_SPEEDUP}")

# %%
print(f"{'':12} {'average':>8} {'P90':>8}   ms, {d}")
for name, s in latencies.items():
    print(f"{name:12} {1e3 * s.mean():8.0f} {1e3 * p90_of(s):8.0f}")
fig, ax = plt.subplots(figsize=(7, 3))
edges = np.linspace(0, 1e3 * max(s.max() for s in latencies.values()), 40)
look = dict(bins=edges, histtype="step", linewidth=1.8)
for (name, s), style in zip(latencies.items(), ("-", "--", ":")):
    ax.hist(1e3 * s, linestyle=style, label=name.replace("_", " "), **look)
ax.set_title("How long requests took")
ax.set(xlabel="latency of a request (ms)", ylabel="requests (count)")
_ = ax.legend()

# %% [markdown]
# Three answers, side by side:

# %%
for i in range(min(3, len(asked))):
    print("ask:", test[i].question)
    for name in SHOWN:
        c, ms = timed[d][name].results[i], 1e3 * timed[d][name].seconds[i]
        print(f"   {name:12} {ms:5.0f} ms,", end=" ")
        print(f"{len(c.steps):2} runs of the model: {c.text}")

# %% [markdown]
# ## The strongest opponent
#
# A speedup says little if its opponent was slow. So: what is the fastest *plain* greedy decoding of those that can be had here, and what is the best speculated decoding beside it? Only what writes the same answers takes part: at least 95 % of them identical to the standard greedy decoding of its dtype.

# %%
from helpers.kernels.compiled import CompiledGreedy

plain_arms = {f"{d}, standard": decoder(m) for d, m in target.items()}
plain_arms |= {f"{d}, fused": decoder(m) for d, m in fused.items()}
duel_prompts = asked if PROFILE == "full" else asked[: sizes.timed]
longest = max(len(ids_of(prompt)) for prompt in duel_prompts)
for d in DTYPES if PROFILE != "smoke" else ():
    model, _ = models.load(MODEL_ID, dtype=d, device=lesson.device)
    compiled = CompiledGreedy(model, capacity=longest + 128)
    try:
        compiled(ids_of(duel_prompts[0]), max_new_tokens=4)
    except Exception as error:  # no compiler, say
        reason = str(error).strip().splitlines()[0][:100]
        print(f"torch.compile in {d} is left out: {reason}")
    else:
        plain_arms[f"{d}, torch.compile"] = lambda p, c=compiled: c(ids_of(p))

# %%
fast_arms = {}
for kind, group in (("standard", target), ("fused", fused)):
    for d, m in group.items():
        fast_arms[f"{d}, {kind}, heads and lookup"] = decoder(m, both(*combined[d]))
        fast_arms[f"{d}, {kind}, heads"] = decoder(m, Medusa(heads[d], tree_of[d]))
duel = interleave(plain_arms | fast_arms, duel_prompts)
seconds_of = {n: arm.seconds for n, arm in duel.items()}
tokens_of = {}
for name, arm in duel.items():
    tokens_of[name] = [getattr(c, "token_ids", c) for c in arm.results]
if "greedy" in in_vllm:  # in a process of its own: the same prompts, but not in turns
    seconds_of["bfloat16, vLLM"] = in_vllm["greedy"]["seconds"]
    tokens_of["bfloat16, vLLM"] = in_vllm["greedy"]["token_ids"]
shared = min(map(len, seconds_of.values()))
mean_ms = {n: 1e3 * float(np.mean(s[:shared])) for n, s in seconds_of.items()}
equal = {}
for name, ms in sorted(mean_ms.items(), key=lambda item: -item[1]):
    reference = timed[name.split(", ")[0]]["greedy"].results[:shared]
    equal[name] = sum(t == c.token_ids for t, c in zip(tokens_of[name], reference))
    print(f"{name:34} {ms:6.0f} ms a request;", end=" ")
    print(f"same output {equal[name]} of {shared}")
    results.metric(f"medusa.request_ms.{key_of(name)}", ms, "ms", n=shared)

# %%
fair = [n for n in mean_ms if equal[n] >= 0.95 * shared]
strongest = min((n for n in fair if n not in fast_arms), key=mean_ms.get)
fastest = min((n for n in fair if n in fast_arms), key=mean_ms.get)
g = speedup(seconds_of[strongest][:shared], seconds_of[fastest][:shared])
note("medusa.speedup_over_strongest_greedy", g)
print(f"{fastest} against {strongest}: {g}")
for d in fused:
    name = f"{d}, fused, heads and lookup"
    g = speedup(seconds_of[f"{d}, fused"], seconds_of[name])
    note(f"medusa.speedup.with_lookup.lean.{d}", g)
    print(f"{d}, fused on both sides, heads and lookup against greedy: {g}")
    if d == "float32":
        same = equal[name]
        results.invariant("medusa.lean_identical_outputs", same == shared, same, shared)

# %% [markdown]
# ## Prose, people's questions, larger models
#
# The base model answers in prose. With heads made for *it*, how much is gained there? And how much is accepted in questions that people wrote?

# %%
people = [prompt_for(tokenizer, e) for e in load_split("handwritten")][: sizes.answers]
guess = Medusa(heads["float32"], tree_of["float32"])
done = [generate(target["float32"], tokenizer, p, proposer=guess) for p in people]
tokens = accepted_per_step(done)
results.metric("medusa.accepted_per_step.handwritten", tokens, "tokens", n=len(people))
print(f"questions by people: {tokens:.2f} tokens a step")
if MODEL_ID == "fine-tuned":
    settings = dict(max_examples={"full": 2100}.get(PROFILE, 600), eval_samples=50)
    if PROFILE == "smoke":
        settings = dict(max_examples=40, eval_samples=8, epochs=1)
    trained = launch(SCRIPT, "base", settings | dict(seed=SEED), **AT_ONCE)
    prose, _ = models.load("base", dtype=best_dtype, device=lesson.device)
    prose_heads = packed_linear.install(load(trained / "heads", prose))
    prose = packed_linear.install(prose)

# %%
if MODEL_ID == "fine-tuned":
    d, cost = best_dtype, interpolated(step_of[best_dtype])
    chatty = validation[: {"smoke": 2}.get(PROFILE, 30)]
    answers = [generate(prose, tokenizer, p).token_ids for p in chatty]
    prose_ranks = ranks_with(prose, prose_heads, validation_ids, answers)
    prose_tree = choose_tree(prose_ranks, cost, heads_cost[d], range(1, 65))
    guess = Medusa(prose_heads, prose_tree)
    arms = {"greedy": decoder(prose), "heads": decoder(prose, guess)}
    arms["both"] = decoder(prose, Together(guess, PromptLookup(count=4)))
    chat = interleave(arms, prompts[: {"smoke": 2, "full": 150}.get(PROFILE, 40)])
    for name, key in (("heads", "chatty"), ("both", "chatty.with_lookup")):
        g = speedup(chat["greedy"].seconds, chat[name].seconds)
        note(f"medusa.speedup.{key}", g)
        pairs = zip(chat["greedy"].results, chat[name].results)
        same = sum(a.token_ids == b.token_ids for a, b in pairs)
        tokens = accepted_per_step(chat[name].results)
        print(f"prose, {d}, {name}: {tokens:.2f} tokens a step, {g};", end=" ")
        print(f"same output {same} of {g.n}")
    done, key = chat["heads"].results, "medusa.accepted_per_step.chatty"
    results.metric(key, accepted_per_step(done), "tokens", n=len(done))

# %% [markdown]
# *Suppose* heads were right as often on a larger model (without look-ahead heads in its pretraining they would not be). There a step costs more, and further tokens in it cost less. For one larger shape the steps are measured on random weights; for 7 billion weights notebook 00's equation gives them.

# %%
from helpers.measuring import probes
from helpers.measuring.cost_model import Shape, StepTime

shape, d = "llama-50m" if PROFILE == "smoke" else "llama-300m", best_dtype
giant = packed_linear.install(models.shape_only(shape, d, lesson.device), turns=2)
COUNTS = (1, 2, 4, 6, 8, 11, 16, 32)
times = step_seconds(giant, COUNTS, rounds=max(5, sizes.rounds // 2))
step_of_shape = {shape: {n: median(seconds) for n, seconds in times.items()}}
with torch.device("meta"):
    seven = Shape.of(models.shape_only("llama-7b", d, "meta"))
rate = probes.matmul_rate(models.dtype_of(d), device=lesson.device)
overhead = step_of[d][1] / target[d].config.num_hidden_layers
bandwidth = probes.bandwidth(device=lesson.device)
equation = StepTime("sum", overhead, {d: bandwidth}, {d: rate})
step_of_shape["llama-7b"] = {n: equation(seven, d, n, 128) for n in COUNTS}
for name, times in step_of_shape.items():
    asking = heads_cost[d] / step_of[d][1] * times[1]  # heads grow with the model
    cost = interpolated(times)
    large_tree = choose_tree(ranks, cost, asking, range(1, 32))
    plain = decode_seconds(ranks, (), cost, 0.0)
    value = plain / decode_seconds(ranks, large_tree, cost, asking)
    key = f"medusa.decode_speedup.{name.replace('-', '_')}"
    results.metric(key, value, "x", kind="predicted")
    print(f"{name:11} in {d}, a step {1e3 * times[1]:.0f} ms:", end=" ")
    print(f"{len(large_tree)} nodes, decode {value:.2f} times as fast (predicted)")
del giant

# %% [markdown]
# ## The race
#
# Ask your own: `race(schema, question)`.

# %%
from helpers.notebook.race import Race
from helpers.text_to_sql.generator import Example

racer = fused.get(best_dtype, target[best_dtype])


def race(schema, question):
    example = Example("asked", schema.strip(), question.strip(), "")
    prompt = prompt_for(tokenizer, example)
    lanes = {"greedy": None, "heads and lookup": both(*combined[best_dtype])}
    for _ in range(2):  # the first time warms up
        answers = {name: decoder(racer, p)(prompt) for name, p in lanes.items()}
    return Race(answers, tokenizer, schema)


ours_to_show = race(
    "CREATE TABLE ship (name TEXT, captain TEXT, weight INTEGER, port TEXT)",
    "How many ships have a weight above 300 and the port Bergen?",
)
_ = ours_to_show.figure()

# %%
picture = ours_to_show.gif(helpers.files.build_root() / "race.gif")
print(f"{picture.name}: {picture.stat().st_size / 1e3:.0f} KB")
results.assert_invariants()
path = results.write()
print("written:", path.relative_to(path.parents[3]))

# %% [markdown] tags=["limits"]
# ## When it loses
#
# Many users in a batch fill a step already, as in 07. Heads are made for *one* model: fine-tune it again, and they guess what the old one would have said. And text that can't be foreseen has nothing to guess: here the same heads on text drawn at a high temperature.

# %%
from helpers.decoding.sampling import Sampling

drawn_prompts = prompts[: {"smoke": 2}.get(PROFILE, 20)]
guess = Medusa(heads["float32"], tree_of["float32"])
for temperature in (0.5, 1.0, 1.5):
    for typical in (0.0, 0.09):  # 0: lossless; 0.09 is the paper's
        sampling = Sampling(temperature, seed=SEED, typical=typical)
        options = dict(sampling=sampling, max_new_tokens=60, proposer=guess)
        network = target["float32"]
        drawn = [generate(network, tokenizer, p, **options) for p in drawn_prompts]
        tokens = accepted_per_step(drawn)
        kind = "typical acceptance, another distribution" if typical else "lossless"
        print(f"temperature {temperature}: {tokens:.2f} tokens a step, {kind}")

# %% [markdown]
# Lossless: a guess is kept if the model itself draws it. The paper's *typical acceptance* keeps what the model finds likely enough: more tokens a step, and another distribution.
#
# | error | remedy |
# |---|---|
# | "These heads were made for a model of ..." | another width or vocabulary: train heads for this model |
# | "... was made for another model" | the card names another target: `HEADS = "own"` |
# | vLLM accepts far less than you do | `medusa_fc_bias` is missing in config.json: vLLM drops the biases silently |
# | the heads guess well in training and badly here | trained on a quantized model, or with the prompt's tokens: train on the model that you serve, on its completions |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A tree of 64 nodes brings more tokens a step than one of 8, and requests take longer. Why? (a) the mask grows (b) further tokens cost more than the added guesses bring (c) the heads are slower
#
# <details><summary>Answer</summary>
#
# (b): the last nodes are seldom right, and each is a token to read. (a) is tiny. (c): the heads run once a step, whatever the tree.
# </details>
#
# **2.** After a faster kernel the speedup of speculation fell from 1.8 to 1.5, and each request is faster than before. Is that a step back? (a) yes (b) no (c) the measurement is wrong
#
# <details><summary>Answer</summary>
#
# (b): a user waits for seconds, not for ratios. Plain decoding gained more, since it takes more steps.
# </details>
#
# **3.** Your answers are mostly names copied from the prompt. Begin with (a) heads (b) prompt lookup (c) a draft model
#
# <details><summary>Answer</summary>
#
# (b): it copies, its guesses cost only their place in a step, and it needs no training. Then put heads beside it, in the same tree, for what is not copied.
# </details>
#
# **The rule:** count ranks on your own answers, measure step(num_tokens), multiply; put every cheap guesser into one tree.
#
# *Medusa-2* trains the model along with its heads and reports 2.3 to 3.6 times where Medusa-1 reports 2.2. *EAGLE* (Li et al. 2024) drafts with one small layer on the hidden states, one token after the other, and reports 2.7 to 3.5 times on the same kind of task. Medusa-2 changes the model that is served. EAGLE leaves it as it is; its draft layer has a cache and a step of its own, which on a model of few layers costs as much as 07's draft did. Heads on a frozen model cost one small product a step and can be taken off again. That is why this course stays with them.
#
# **What limits it now:** the overhead of a step. The next notebook compiles it away.
#
# References: Cai et al., *Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads* (2024); Ankner et al., *Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding* (2024); Li et al., *EAGLE* (2024); AWS, *Achieve ~2x speed-up in LLM inference with Medusa-1 on Amazon SageMaker AI* (2025).
