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
# | the term it attacks | tokens per step, at the price of rows |
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
MODEL_ID: str = "fine-tuned"  # the frozen model: the course's, a folder, or a model of the Hub as owner/name
HEADS: str = "provided"  # "provided": the course's; "own": those trained below; else a folder with heads
SEED: int = 0  # of everything random
GUESS_SPEEDUP: float = 1.5  # your guess: a request is so many times as fast with heads alone

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

print("untrained, it changes nothing:", residual_block(torch.tensor([[1.0, -2.0]]), torch.zeros(2, 2), torch.zeros(2)))

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
quick = dict(max_examples=40, eval_samples=8, epochs=1) if PROFILE == "smoke" else dict(eval_samples=150, epochs=4)
own = launch(SCRIPT, MODEL_ID, quick | dict(seed=SEED), **AT_ONCE)

# %%
import json

import matplotlib.pyplot as plt

from helpers.notebook import plots

report = json.loads((own / "report.json").read_text())
results.metric("medusa.train_seconds", report["seconds"], "s")
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(report["losses"], marker="")
left.set(title="The heads' loss while they learn", xlabel="step (count)", ylabel="weighted cross-entropy (nats)")
for i, top in enumerate(report["accuracy"][-1], 1):
    right.plot(range(1, len(top) + 1), top, label=f"head {i}, token t+{i + 1}")
right.set(
    title="How often a head's k best hold what came", xlabel="k (guesses)", ylabel="share of positions", ylim=(0, 1)
)
right.legend(fontsize=8)
for i, top in enumerate(report["accuracy"][-1], 1):
    results.metric(f"medusa.head_accuracy.own.head_{i}", top[0], "share")
print(f"trained in {report['seconds']:.0f} s, the model's own answers and hidden states included")

# %% [markdown]
# The first head is right far more often than the last. But its second and third best guesses are worth something, too: that is what the tree will be for.
#
# **Don't expect as much of your own model.** SQL from a generator is easy to foresee. And this base was *pretrained* to foresee: five look-ahead heads took part in it and were thrown away after it, so its hidden states know more of what comes than most models' do (data/models/base/README.md). The paper's first head is right about half the time.
#
# The heads that are provided were trained by the same script for six epochs instead of four, and on 4,000 generated questions beside the training split's own.

# (`few_rows` below is notebook 00's: linear layers that take PyTorch's fastest way for few rows. All arms have it.)

# %%
from helpers.kernels import packed_linear
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

DTYPES = ("float32", "bfloat16") if lesson.device == "cpu" else ("float32", "bfloat16", "float16")
heads_place = {"provided": "medusa", "own": own / "heads"}.get(HEADS, HEADS)
models.check_made_for(heads_place, MODEL_ID)
target, heads = {}, {}
for dtype in DTYPES:
    model, tokenizer = models.load(MODEL_ID, dtype=dtype, device=lesson.device)
    heads[dtype] = packed_linear.install(load(heads_place, model))
    target[dtype] = packed_linear.install(model)
size = sum(p.numel() for p in heads["float32"].trained())
print(f"{heads['float32'].count} heads, {size / 1e6:.2f} million weights, beside the model's "
      f"{sum(p.numel() for p in target['float32'].parameters()) / 1e6:.1f}")  # fmt: skip

# %% [markdown]
# ## First a chain
#
# Each head's best guess, one after the other: a chain, checked as in the last notebook. A digit says which head guessed a token, `·` is the model's own.

# %%
from helpers.decoding.generate import generate
from helpers.decoding.transcript import transcript

test = load_split("test")
prompts = [prompt_for(tokenizer, e) for e in test]
print("ask:", test[1].question)
answer = generate(
    target["float32"], tokenizer, prompts[1], proposer=Medusa(heads["float32"], CHAIN[: heads["float32"].count])
)
print(f"{len(answer.token_ids)} tokens in {len(answer.steps)} steps", *transcript(answer, tokenizer), sep="\n")

# %% [markdown]
# How such a proposal is made, for any tree of guesses (`at` holds for each node its head and the rank of its guess):

# %%
from collections.abc import Sequence  # what the function below needs

from helpers.decoding.proposals import Proposal

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
from helpers.decoding.masks import tree_mask

example = Medusa(heads["float32"], ((0,), (1,), (0, 0), (0, 1), (1, 0)))
names = ["certain", *(f"{who}" for who in example.names)]
mask = tree_mask(example.parents, 0)[0, 0]
fig, ax = plt.subplots(figsize=(4.2, 3.6))
ax.imshow(mask, cmap="Greys", vmin=0, vmax=1.6)
ax.set(title="Which token of a step sees which", xlabel="is seen (token)", ylabel="sees (token)")
ax.set_xticks(range(len(names)), names, rotation=60, fontsize=8)
ax.set_yticks(range(len(names)), [f"{n}, +{d}" for n, d in zip(names, (0, *depths(example.parents)))], fontsize=8)
ax.grid(visible=False)

# %% [markdown]
# ## Which tree?
#
# More nodes: more tokens a step, and a dearer step. Both can be measured before anything is built. First, on **validation** answers: at each position, which *rank* did each head give to the token that really came? (0 is the best guess.) A path of the tree, (0, 2) say, is right where the first head's rank was 0 and the second's 2. Count how often: the most frequent paths are the best tree of that size.

# %%
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from helpers.speculation.medusa import Tree
from helpers.speculation.tree_choice import (
    Ranks,
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
validation = [prompt_for(tokenizer, e) for e in load_split("validation")[: max(4, min(100, sizes.answers))]]
said = [generate(target["float32"], tokenizer, prompt) for prompt in validation]
asked_ids = [tokenizer(prompt, add_special_tokens=False).input_ids for prompt in validation]


def ranks_with(model, some_heads, prompt_ids, answer_ids):
    """Of each answer, at each position, the ranks of what came."""
    found = []
    for prompt, tokens in zip(prompt_ids, answer_ids):
        with torch.inference_mode():
            hidden = model(
                torch.tensor([prompt + tokens], device=lesson.device), output_hidden_states=True
            ).hidden_states[-1][0]
        found.append(ranks_of(some_heads, hidden[len(prompt) - 1 : -1], tokens))
    return found


ranks = ranks_with(target["float32"], heads["float32"], asked_ids, [c.token_ids for c in said])
for size in (1, 3, 5, 8, 16, 32, 64):
    tree = best_tree(path_shares(ranks), size)
    print(f"{size:2} nodes: {tokens_per_step(ranks, tree):.2f} tokens a step")
print(
    f"a chain of 5: {tokens_per_step(ranks, CHAIN):.2f}; the first answer with 64 nodes, step by step:",
    accepted_steps(ranks[0], tree),
)

# %% [markdown]
# Now what a step costs, by its rows, and what asking the heads costs inside the loop (`Clocked` is a stopwatch around a proposer):

# %%
from statistics import median

from helpers.profiling.breakdown import Clocked
from helpers.profiling.step_time import step_seconds, steps_in_turns
from helpers.speculation.cost import accepted_per_step, interpolated

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 24, 32, 65)
times = steps_in_turns(target, ROWS, rounds=sizes.rounds)
step_of = {d: {n: median(s) for n, s in times[d].items()} for d in DTYPES}
middle = sorted(map(len, asked_ids))[len(asked_ids) // 2]
prefill_of = {d: median(s[middle]) for d, s in steps_in_turns(target, (middle,), context=0, rounds=9).items()}
heads_cost = {}
for d in DTYPES:
    clock = Clocked(Medusa(heads[d], best_tree(path_shares(ranks), 5)))
    for prompt in validation[:10]:
        generate(target[d], tokenizer, prompt, proposer=clock)
    heads_cost[d] = median(seconds for _, seconds in clock.later)
    told = ", ".join(f"{n}: {1e3 * s:.1f}" for n, s in step_of[d].items() if n in (1, 4, 8, 16, 32, 65))
    print(
        f"{d:9} ms a step by rows: {told}; asking the heads {1e3 * heads_cost[d]:.2f} ms; a prefill {1e3 * prefill_of[d]:.0f}"
    )

# %% [markdown]
# Multiply. For each size of tree: how many times as fast would a whole request be, prompt and all? The best is taken for each dtype, and the prediction saved before any request is timed. (The paper's own tree has 64 nodes. It was made for a GPU, where rows cost less.)

# %%
positions = sum(len(answer) for answer in ranks)
trees = {size: best_tree(path_shares(ranks), size) for size in range(1, 65)}


def foretold(tree, d):
    """How many times as fast the validation requests would be with this tree."""
    prefill, cost = len(ranks) * prefill_of[d], interpolated(step_of[d])
    plain = prefill + (positions - len(ranks)) * cost(1)
    return plain / (prefill + len(ranks) * heads_cost[d] + decode_seconds(ranks, tree, cost, heads_cost[d]))


# %%
tree_of, expected = {}, {}
fig, ax = plt.subplots(figsize=(7, 3.2))
for d, marker in zip(DTYPES, ("o", "s", "^")):
    line = {size: foretold(tree, d) for size, tree in trees.items()}
    tree_of[d] = trees[max(line, key=line.get)]
    expected[d] = max(line.values())
    ax.plot(
        list(line),
        list(line.values()),
        marker=marker,
        markevery=[len(tree_of[d]) - 1],
        label=f"{d}, best: {len(tree_of[d])} nodes",
    )
    print(
        f"{d:9} {len(tree_of[d]):2} nodes, {tokens_per_step(ranks, tree_of[d]):.2f} tokens a step: {expected[d]:.2f}x (predicted); 64 nodes {line[64]:.2f}x"
    )
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
chosen, shares = sorted(tree_of[best_dtype], key=lambda p: (len(p), p)), path_shares(ranks)
at = {(): (0.0, 0)}
for depth in range(1, 6):
    row = [p for p in chosen if len(p) == depth]
    at |= {p: (i - (len(row) - 1) / 2, depth) for i, p in enumerate(row)}
fig, ax = plt.subplots(figsize=(7, 3.2))
for p in chosen:
    (x0, y0), (x1, y1) = at[p[:-1]], at[p]
    ax.plot([x0, x1], [y0, y1], color=plots.COLORS[0], linestyle="-", marker="", linewidth=0.5 + 7 * shares[p])
    ax.text(
        x1,
        y1,
        f"{p[-1]}\n{shares[p]:.0%}",
        ha="center",
        va="center",
        fontsize=8,
        bbox=dict(facecolor="white", edgecolor=plots.COLORS[0]),
    )
ax.text(0, 0, "certain", ha="center", va="center", fontsize=8, bbox=dict(facecolor="#dddddd"))
ax.set(
    title="The chosen tree: rank of each guess, and how often all up to it are right",
    ylabel="depth (tokens ahead)",
    xlabel="rivals (nodes)",
    xticks=[],
)
ax.set_ylim(max(map(len, chosen), default=1) + 0.4, -0.4)
ax.grid(visible=False)

# %% [markdown]
# ## Heads and lookup in one tree
#
# A head reads one hidden state: it knows phrases by heart, and seldom which *name* comes. Prompt lookup copies names and knows no phrase. A tree doesn't care who proposed a node: put both into it, duplicates merged. (Two other ways from 07 are tried as well: "first", the lookup, and the heads only where it has no guess; "relay", where a bigram table goes on when the copy ends.)

# %%
from helpers.decoding.proposals import NOTHING, Proposal, Proposer, chain
from helpers.speculation.combine import FirstOf, Relay, Together, merged, want_hidden
from helpers.speculation.ngram import BigramTable, PromptLookup

# %%
# show: helpers.speculation.combine:Together

# %%
training = [
    [*tokenizer(e.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for e in load_split("train")
]


def both(d, nodes, copied, how):
    """Heads with a tree of so many nodes, and a lookup of so many tokens; with "relay" the lookup goes on by a bigram table."""
    copies, guesses = PromptLookup(count=copied), Medusa(heads[d], trees[nodes])
    if how == "relay":
        copies = Relay(copies, BigramTable(training, count=1), count=copied)
    return FirstOf(copies, guesses) if how == "first" else Together(guesses, copies)


SIZES = ((3, 3), (5, 4)) if PROFILE == "smoke" else ((3, 4), (5, 4), (8, 3), (8, 4), (12, 3), (12, 5))
some = validation[: {"smoke": 2, "full": 60}.get(PROFILE, 24)]
plain = {d: sum((len(c.token_ids) - 1) * step_of[d][1] + prefill_of[d] for c in said[: len(some)]) for d in DTYPES}
told = {}
for d in DTYPES:
    for how in ("tree", "first", "relay"):
        for nodes, copied in SIZES:
            clock = Clocked(both(d, nodes, copied, how))
            done = [generate(target[d], tokenizer, prompt, proposer=clock) for prompt in some]
            cost, decode = interpolated(step_of[d]), [s for c in done for s in c.steps if s.kind == "decode"]
            spent = (
                len(done) * prefill_of[d]
                + sum(cost(s.rows) for s in decode)
                + sum(s for _, s in clock.first + clock.later)
            )
            told[d, nodes, copied, how] = plain[d] / spent, accepted_per_step(done)

# %%
for d in DTYPES:
    ranking = sorted((key for key in told if key[0] == d), key=lambda key: -told[key][0])
    for key in ranking[:4]:
        print(
            f"{d:9} {key[1]} nodes of the heads, {key[2]} copied, {key[3]:5}: {told[key][1]:.2f} tokens a step, {told[key][0]:.2f}x (predicted)"
        )
combined = {d: max((key for key in told if key[0] == d), key=lambda key: told[key][0]) for d in DTYPES}
results.prediction("medusa.speedup.with_lookup.predicted", max(told[key][0] for key in combined.values()), "x")

# %% [markdown]
# Who guessed which token right? (What both guessed counts for the head.)

# %%
credit = Counter()
for prompt in validation[: {"smoke": 2}.get(PROFILE, 40)]:
    done = generate(target["float32"], tokenizer, prompt, proposer=both(*combined["float32"]))
    for step in (s for s in done.steps if s.kind == "decode"):
        credit.update(step.proposal.proposers[i] for i in step.accepted)
        credit["the model itself"] += len(step.emitted) - len(step.accepted)
fig, ax = plt.subplots(figsize=(7, 2.6))
order = sorted(credit, key=lambda who: -credit[who])
ax.barh(order, [credit[who] / sum(credit.values()) for who in order], color=plots.COLORS[0])
ax.invert_yaxis()
_ = ax.set(
    title="Whose tokens they were (validation questions)",
    xlabel="share of the tokens of decode steps",
    ylabel="guesser (name)",
)

# %% [markdown]
# ## Where a step's time goes
#
# A step of this small model is more than its matrix products: each layer adds many small operations with a call of their own. A **lean** step does the same with fewer: one product for queries, keys and values, one for gate and up, one operation for a norm. *Standard* is transformers' own step with notebook 00's linear layers, as all arms here have it; *untouched* is the same with PyTorch's usual ones. *All else* is what speculation itself adds outside of model and heads: top-k, tree, mask, acceptance, cache.

# %%
from helpers.errors import CourseError
from helpers.kernels.fused_llama import Lean
from helpers.profiling.breakdown import step_breakdown

lean = {}
try:
    for d in DTYPES if lesson.device == "cpu" else ():
        lean[d] = packed_linear.install(Lean(models.load(MODEL_ID, dtype=d)[0]))
except CourseError as reason:
    print("left out:", reason)

# %%
untouched = {d: models.load(MODEL_ID, dtype=d, device=lesson.device)[0] for d in DTYPES}
ladder = {
    f"{d}, {kind}": (m, heads[d], tree_of[d])
    for kind, group in (("untouched", untouched), ("standard", target), ("lean", lean))
    for d, m in group.items()
}
few = asked_ids[: {"smoke": 3}.get(PROFILE, 30)]
print(f"{'':20} {'one row':>8} {'forward':>8} {'heads':>7} {'all else':>9}   (ms a step)")
parts = {name: step_breakdown(*given, few) for name, given in ladder.items()}
for name, (m, _, tree) in ladder.items():
    one = median(step_seconds(m, (1,), rounds=sizes.rounds)[1])
    p = parts[name]
    print(
        f"{name:20} {1e3 * one:8.2f} {1e3 * p.forward:8.2f} {1e3 * p.heads:7.2f} {1e3 * p.rest:9.2f}   {len(tree) + 1} rows"
    )
results.metric("medusa.overhead_ms_per_step", 1e3 * parts[f"{best_dtype}, standard"].rest, "ms")
for name, p in parts.items():
    results.metric(f"medusa.step_ms.{name.replace(', ', '.')}", 1e3 * (p.forward + p.heads + p.rest), "ms")
del untouched

# %% [markdown]
# What a lean step saves it saves in plain decoding, too, and plain decoding takes more steps. So a ratio to plain decoding can fall while the latency falls. Look at both.

# %% [markdown] tags=["library"]
# ## The libraries that people use
#
# **transformers** has no Medusa of its own, but a hook: `model.generate(..., custom_generate=medusa)`. **vLLM** decodes with Medusa heads by a chain. It reads the folder that `save` writes.

# %%
from helpers.profiling import vllm_baseline
from helpers.speculation.hf_generate import medusa
from helpers.speculation.medusa_files import save

ids = torch.tensor([asked_ids[0]], device=lesson.device)
hooked = target["float32"].generate(
    ids,
    max_new_tokens=256,
    do_sample=False,
    custom_generate=medusa,
    proposer=Medusa(heads["float32"], tree_of["float32"]),
)
print("generate(custom_generate=medusa): the same tokens:", hooked[0, ids.shape[1] :].tolist() == said[0].token_ids)

# %%
vllm_said = {}
if vllm_baseline.installed() and PROFILE != "smoke":
    folder = helpers.files.build_root() / "artifacts" / "for_vllm"
    exported, count = models.load(MODEL_ID, "bfloat16")[0], {"full": 150}.get(PROFILE, 100)
    exported.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    save(heads["bfloat16"], folder / "heads", MODEL_ID)
    test_ids = [tokenizer(p, add_special_tokens=False).input_ids for p in prompts[:count]]
    vllm_said["chain"] = vllm_baseline.run(
        folder / "model", test_ids, dtype="bfloat16", heads=folder / "heads", guesses=heads["bfloat16"].count
    )
    vllm_said["greedy"] = vllm_baseline.run(folder / "model", test_ids, dtype="bfloat16", compiled=True)
    mine = vllm_baseline.accepted_by_place(
        target["bfloat16"], heads["bfloat16"], test_ids, vllm_said["chain"]["token_ids"]
    )
    theirs = [n / vllm_said["chain"]["drafts"] for n in vllm_said["chain"]["accepted"]]
    for place, (a, b) in enumerate(zip(mine, theirs), 1):
        print(f"accepted at place {place}: ours {a:.3f}, vLLM's {b:.3f}")
    close = sum(abs(a - b) <= 0.02 for a, b in zip(mine, theirs))
    results.invariant("medusa.loads_in_vllm", close == len(mine), close, len(mine))
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


def asks(model, proposer=None):
    return lambda prompt: generate(model, tokenizer, prompt, proposer=proposer)


DRAFT_HOW = {"float32": dict(count=6, least=0.8), "bfloat16": dict(count=3), "float16": dict(count=3)}


def arms_of(d):
    """What is compared in this dtype."""
    draft = (
        packed_linear.install(models.load("draft", dtype=d, device=lesson.device)[0])
        if MODEL_ID == "fine-tuned"
        else None
    )
    arms = {"greedy": None, "medusa": Medusa(heads[d], tree_of[d]), "with_lookup": both(*combined[d]),
            "64 nodes": Medusa(heads[d], trees[64]), "prompt_lookup": PromptLookup(count=4), "bigram": BigramTable(training, count=1)}  # fmt: skip
    return {
        n: asks(target[d], p)
        for n, p in (arms | ({"draft_model": DraftModel(draft, target[d], **DRAFT_HOW[d])} if draft else {})).items()
    }


# %%
asked = prompts[: sizes.timed if PROFILE != "full" else sizes.answers]
taken = {d: interleave(arms_of(d), asked) for d in DTYPES}
gain = {
    (d, n): speedup(taken[d]["greedy"].seconds, arm.seconds)
    for d in DTYPES
    for n, arm in taken[d].items()
    if n != "greedy"
}

# %%
counts = {}
for d in DTYPES:
    plain_said = taken[d]["greedy"].results
    right = right_answers(test[: len(asked)], [c.text for c in plain_said])
    print(f"{d}: plain greedy {1e3 * sum(taken[d]['greedy'].seconds) / len(asked):.0f} ms a request")
    for name, arm in taken[d].items():
        same = [a.token_ids == b.token_ids for a, b in zip(plain_said, arm.results)]
        counts[d, name] = same, paired(right, right_answers(test[: len(asked)], [c.text for c in arm.results]))
        for example, seconds, c in zip(test, arm.seconds, arm.results):
            results.prompt(example.id, name, d, seconds, len(c.token_ids), c.text, None)
        if name != "greedy":
            print(
                f"   {name:14} {accepted_per_step(arm.results):.2f} tokens a step, {gain[d, name]}; same output {sum(same)} of {len(same)}, {counts[d, name][1]}"
            )

# %%
for name, key in (("medusa", "medusa.identical_outputs"), ("with_lookup", "medusa.with_lookup_identical_outputs")):
    same = counts["float32", name][0]
    results.invariant(key, all(same), sum(same), len(same))
results.metric("medusa.identical_share.bf16", sum(counts["bfloat16", "medusa"][0]) / len(asked), "share", n=len(asked))
counting = {(d, n): g for (d, n), g in gain.items()
            if d == "float32" or (sum(counts[d, n][0]) >= 0.95 * len(asked) and counts[d, n][1].broken <= 5)}  # fmt: skip
for d, short in (("float32", "fp32"), ("bfloat16", "bf16")):
    g = gain[d, "medusa"]
    results.metric(f"medusa.speedup.{short}", g.ratio, "x", low=g.low, high=g.high, n=g.n)
dtype_of = {
    name: max((d for d, n in counting if n == name), key=lambda d: counting[d, name].ratio)
    for name in ("medusa", "with_lookup", "64 nodes", "prompt_lookup", "bigram")
}
for name, key in (("medusa", "medusa.speedup"), ("with_lookup", "medusa.speedup.with_lookup"), ("64 nodes", "medusa.speedup.tree_64"),
                  ("prompt_lookup", "medusa.speedup.prompt_lookup"), ("bigram", "medusa.speedup.bigram")):  # fmt: skip
    g = counting[dtype_of[name], name]
    results.metric(key, g.ratio, "x", low=g.low, high=g.high, n=g.n)
    print(f"{key:30} {g}, in {dtype_of[name]}")
for name, key in (
    ("medusa", ""),
    ("with_lookup", ".with_lookup"),
    ("prompt_lookup", ".prompt_lookup"),
    ("bigram", ".bigram"),
):
    value = accepted_per_step(taken[dtype_of[name]][name].results)
    results.metric(f"medusa.accepted_per_step{key}", value, "tokens", n=len(asked))

# %%
import numpy as np

d = dtype_of["medusa"]
print(
    f"with lookup, {d}: {combined[d][3]} of {combined[d][1]} nodes of the heads and {combined[d][2]} copied tokens, as validation chose"
)
latencies = {n: np.array(taken[d][n].seconds) for n in ("greedy", "medusa", "with_lookup")}
p90 = {n: float(np.percentile(s, 90)) for n, s in latencies.items()}
g = speedup(latencies["greedy"], latencies["medusa"], of=lambda seconds, axis=None: np.percentile(seconds, 90, axis))
results.metric("medusa.p90_speedup", g.ratio, "x", low=g.low, high=g.high, n=g.n)
if "draft_model" in taken[d]:
    g = speedup(taken[d]["draft_model"].seconds, taken[d]["medusa"].seconds)
    results.metric("medusa.speedup_over_draft_model", g.ratio, "x", low=g.low, high=g.high, n=g.n)
wanted = sum(latencies["greedy"]) / 1.8 - len(asked) * (prefill_of[d] + heads_cost[d])
tokens = sum(len(c.token_ids) - 1 for c in taken[d]["greedy"].results)
needed = tokens * (interpolated(step_of[d])(len(tree_of[d]) + 1) + heads_cost[d]) / max(wanted, 1e-9)
results.metric("medusa.accepted_needed_for_1_8x", needed, "tokens")
brought = accepted_per_step(taken[d]["medusa"].results)
print(
    f"for 1.8x in {d}, a step would have to bring {needed:.2f} tokens with this tree (estimated); it brought {brought:.2f}"
)
print(
    f"foretold {expected[d]:.2f}, measured {gain[d, 'medusa'].ratio:.2f}: {expected[d] / gain[d, 'medusa'].ratio - 1:+.0%} off; you guessed {GUESS_SPEEDUP}"
)

# %%
print(f"{'':12} {'average':>8} {'P90':>8}   ms, {d}")
for n, s in latencies.items():
    print(f"{n:12} {1e3 * s.mean():8.0f} {1e3 * p90[n]:8.0f}")
fig, ax = plt.subplots(figsize=(7, 3))
edges = np.linspace(0, 1e3 * max(s.max() for s in latencies.values()), 40)
for (n, s), style in zip(latencies.items(), ("-", "--", ":")):
    ax.hist(1e3 * s, bins=edges, histtype="step", linewidth=1.8, linestyle=style, label=n.replace("_", " "))
ax.set(title="How long requests took", xlabel="latency of a request (ms)", ylabel="requests (count)")
_ = ax.legend()

# %% [markdown]
# Three answers, side by side:

# %%
for i in range(min(3, len(asked))):
    print("ask:", test[i].question)
    for n in ("greedy", "medusa", "with_lookup"):
        c = taken[d][n].results[i]
        print(f"   {n:12} {1e3 * taken[d][n].seconds[i]:5.0f} ms, {len(c.steps):2} runs of the model: {c.text}")

# %% [markdown]
# ## The strongest opponent
#
# A speedup says little if its opponent was slow. So: what is the fastest *plain* greedy decoding of those that can be had here, and what is the best speculated decoding beside it? Only what writes the same answers takes part: at least 95 % of them identical to the standard greedy decoding of its dtype.

# %%
from helpers.kernels.compiled import CompiledGreedy

plain_ways = {f"{d}, standard": asks(target[d]) for d in DTYPES} | {f"{d}, lean": asks(m) for d, m in lean.items()}
few_asked = asked if PROFILE == "full" else asked[: sizes.timed]
longest = max(len(tokenizer(p, add_special_tokens=False).input_ids) for p in few_asked)
for d in DTYPES if PROFILE != "smoke" else ():
    compiled = CompiledGreedy(models.load(MODEL_ID, dtype=d, device=lesson.device)[0], capacity=longest + 128)
    try:
        compiled(asked_ids[0], most=4)
    except Exception as reason:  # no compiler, say
        print(f"torch.compile in {d} is left out: {str(reason).strip().splitlines()[0][:100]}")
    else:
        plain_ways[f"{d}, torch.compile"] = lambda prompt, c=compiled: c(
            tokenizer(prompt, add_special_tokens=False).input_ids
        )

# %%
groups = {"standard": target, "lean": lean}
ways = {
    f"{d}, {kind}, heads and lookup": asks(m, both(*combined[d])) for kind, g in groups.items() for d, m in g.items()
}
ways |= {
    f"{d}, {kind}, heads": asks(m, Medusa(heads[d], tree_of[d])) for kind, g in groups.items() for d, m in g.items()
}
duel = interleave(plain_ways | ways, few_asked)
seconds_of = {n: arm.seconds for n, arm in duel.items()}
said_by = {n: [getattr(c, "token_ids", c) for c in arm.results] for n, arm in duel.items()}
if "greedy" in vllm_said:  # in a process of its own: the same prompts, but not in turns with the others
    seconds_of["bfloat16, vLLM"], said_by["bfloat16, vLLM"] = (vllm_said["greedy"][k] for k in ("seconds", "token_ids"))
shared = min(map(len, seconds_of.values()))
mean_ms, equal = {n: 1e3 * float(np.mean(s[:shared])) for n, s in seconds_of.items()}, {}
for n, ms in sorted(mean_ms.items(), key=lambda item: -item[1]):
    reference = [c.token_ids for c in taken[n.split(", ")[0]]["greedy"].results]
    equal[n] = sum(a == b for a, b in zip(said_by[n][:shared], reference))
    print(f"{n:34} {ms:6.0f} ms a request; same output {equal[n]} of {shared}")
    results.metric(f"medusa.request_ms.{n.lower().replace(', ', '.').replace(' ', '_')}", ms, "ms", n=shared)

# %%
fair = [n for n in mean_ms if equal[n] >= 0.95 * shared]
strongest = min((n for n in fair if n not in ways), key=mean_ms.get)
fastest = min((n for n in fair if n in ways), key=mean_ms.get)
g = speedup(seconds_of[strongest][:shared], seconds_of[fastest][:shared])
results.metric("medusa.speedup_over_strongest_greedy", g.ratio, "x", low=g.low, high=g.high, n=g.n)
print(f"{fastest} against {strongest}: {g}")
for d in lean:
    same = equal[f"{d}, lean, heads and lookup"]
    g = speedup(seconds_of[f"{d}, lean"], seconds_of[f"{d}, lean, heads and lookup"])
    results.metric(f"medusa.speedup.with_lookup.lean.{d}", g.ratio, "x", low=g.low, high=g.high, n=g.n)
    print(f"{d}, lean on both sides, heads and lookup against greedy: {g}")
    if d == "float32":
        results.invariant("medusa.lean_identical_outputs", same == shared, same, shared)

# %% [markdown]
# ## Prose, people's questions, larger models
#
# The base model answers in prose. With heads made for *it*, how much is gained there? And how much is accepted in questions that people wrote?

# %%
people = [prompt_for(tokenizer, e) for e in load_split("handwritten")][: sizes.answers]
found = [
    generate(target["float32"], tokenizer, p, proposer=Medusa(heads["float32"], tree_of["float32"])) for p in people
]
results.metric("medusa.accepted_per_step.handwritten", accepted_per_step(found), "tokens", n=len(people))
print(f"questions by people: {accepted_per_step(found):.2f} tokens a step")
if MODEL_ID == "fine-tuned":
    few_questions = (
        dict(max_examples=40, eval_samples=8, epochs=1)
        if PROFILE == "smoke"
        else dict(max_examples={"full": 2100}.get(PROFILE, 600), eval_samples=50)
    )
    prose_heads = launch(SCRIPT, "base", few_questions | dict(seed=SEED), **AT_ONCE) / "heads"
    talker, _ = models.load("base", dtype=best_dtype, device=lesson.device)
    mouth = packed_linear.install(load(prose_heads, talker))
    talker = packed_linear.install(talker)

# %%
if MODEL_ID == "fine-tuned":
    spoken = [generate(talker, tokenizer, p).token_ids for p in validation[: {"smoke": 2}.get(PROFILE, 30)]]
    prose_ranks = ranks_with(talker, mouth, asked_ids, spoken)
    prose_tree = choose_tree(prose_ranks, interpolated(step_of[best_dtype]), heads_cost[best_dtype], range(1, 65))
    talk = {"greedy": asks(talker), "heads": asks(talker, Medusa(mouth, prose_tree)),
            "both": asks(talker, Together(Medusa(mouth, prose_tree), PromptLookup(count=4)))}  # fmt: skip
    chat = interleave(talk, prompts[: {"smoke": 2, "full": 150}.get(PROFILE, 40)])
    for name, key in (("heads", "chatty"), ("both", "chatty.with_lookup")):
        g = speedup(chat["greedy"].seconds, chat[name].seconds)
        results.metric(f"medusa.speedup.{key}", g.ratio, "x", low=g.low, high=g.high, n=g.n)
        same = sum(a.token_ids == b.token_ids for a, b in zip(chat["greedy"].results, chat[name].results))
        print(
            f"prose, {best_dtype}, {name}: {accepted_per_step(chat[name].results):.2f} tokens a step, {g}; same output {same} of {g.n}"
        )
    results.metric(
        "medusa.accepted_per_step.chatty",
        accepted_per_step(chat["heads"].results),
        "tokens",
        n=len(chat["heads"].results),
    )

# %% [markdown]
# *Suppose* heads were right as often on a larger model (without look-ahead heads in its pretraining they would not be). There a step costs more, and rows beside it cost less. For one larger shape the steps are measured on random weights; for 7 billion weights notebook 00's equation gives them.

# %%
from helpers.measuring import probes
from helpers.measuring.cost_model import Shape, StepTime

shape, dtype = "llama-50m" if PROFILE == "smoke" else "llama-300m", best_dtype
giant = packed_linear.install(models.shape_only(shape, dtype, lesson.device), turns=2)
COUNTS = (1, 2, 4, 6, 8, 11, 16, 32)
giant_step = {n: median(s) for n, s in step_seconds(giant, COUNTS, rounds=max(5, sizes.rounds // 2)).items()}
with torch.device("meta"):
    seven = Shape.of(models.shape_only("llama-7b", dtype, "meta"))
rate, speed = probes.matmul_rate(models.dtype_of(dtype), device=lesson.device), probes.bandwidth(device=lesson.device)
equation = StepTime("sum", step_of[dtype][1] / target[dtype].config.num_hidden_layers, {dtype: speed}, {dtype: rate})
for name, line in ((shape, giant_step), ("llama-7b", {n: equation(seven, dtype, n, 128) for n in COUNTS})):
    share = heads_cost[dtype] / step_of[dtype][1]  # heads grow with the model
    large_tree = choose_tree(ranks, interpolated(line), share * line[1], range(1, 32))
    value = decode_seconds(ranks, (), interpolated(line), 0.0) / decode_seconds(
        ranks, large_tree, interpolated(line), share * line[1]
    )
    results.metric(f"medusa.decode_speedup.{name.replace('-', '_')}", value, "x", kind="predicted")
    print(
        f"{name:11} in {dtype}, a step {1e3 * line[1]:.0f} ms: {len(large_tree)} nodes, decode {value:.2f} times as fast (predicted)"
    )
del giant

# %% [markdown]
# ## The race
#
# Ask your own: `race(schema, question)`.

# %%
from helpers.notebook.race import Race
from helpers.text_to_sql.generator import Example

racer = lean.get(best_dtype, target[best_dtype])


def race(schema, question):
    prompt = prompt_for(tokenizer, Example("asked", schema.strip(), question.strip(), ""))
    lanes = {"greedy": None, "heads and lookup": both(*combined[best_dtype])}
    for proposer in lanes.values():
        generate(racer, tokenizer, prompt, proposer=proposer)  # warm
    return Race({n: generate(racer, tokenizer, prompt, proposer=p) for n, p in lanes.items()}, tokenizer, schema)


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
# Many users in a batch fill the rows already, as in 07. Heads are made for *one* model: fine-tune it again, and they guess what the old one would have said. And text that can't be foreseen has nothing to guess: here the same heads on text drawn at a high temperature.

# %%
from helpers.decoding.sampling import Sampling

for temperature in (0.5, 1.0, 1.5):
    for typical in (0.0, 0.09):  # 0: lossless; 0.09 is the paper's
        how = dict(sampling=Sampling(temperature, seed=SEED, typical=typical), max_new_tokens=60)
        guesser = Medusa(heads["float32"], tree_of["float32"])
        some = prompts[: {"smoke": 2}.get(PROFILE, 20)]
        drawn = [generate(target["float32"], tokenizer, p, proposer=guesser, **how) for p in some]
        kept = "typical acceptance, another distribution" if typical else "lossless"
        print(f"temperature {temperature}: {accepted_per_step(drawn):.2f} tokens a step, {kept}")

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
# **1.** A tree of 64 nodes brings more tokens a step than one of 8, and requests take longer. Why? (a) the mask grows (b) rows cost more than the added guesses bring (c) the heads are slower
#
# <details><summary>Answer</summary>
#
# (b): the last nodes are seldom right, and each is a row. (a) is tiny. (c): the heads run once a step, whatever the tree.
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
# (b): it copies, its guesses cost only their rows, and it needs no training. Then put heads beside it, in the same tree, for what is not copied.
# </details>
#
# **The rule:** count ranks on your own answers, measure step(rows), multiply; put every cheap guesser into one tree.
#
# *Medusa-2* trains the model along with its heads and reports 2.3 to 3.6 times where Medusa-1 reports 2.2. *EAGLE* (Li et al. 2024) drafts with one small layer on the hidden states, one token after the other, and reports 2.7 to 3.5 times on the same kind of task. Medusa-2 changes the model that is served. EAGLE leaves it as it is; its draft layer has a cache and a step of its own, which on a model of few layers costs as much as 07's draft did. Heads on a frozen model cost one small product a step and can be taken off again. That is why this course stays with them.
#
# **What limits it now:** the overhead of a step. The next notebook compiles it away.
#
# References: Cai et al., *Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads* (2024); Ankner et al., *Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding* (2024); Li et al., *EAGLE* (2024); AWS, *Achieve ~2x speed-up in LLM inference with Medusa-1 on Amazon SageMaker AI* (2025).
