# ---
# jupyter:
#   course:
#     minutes: 7
#     headline: >-
#       SmolLM2-135M, fine-tuned, whole requests one after the other, against plain greedy decoding on the same fused step.
#       bfloat16: heads alone {medusa.speedup:.2f} times as fast (validation promised {medusa.predicted_speedup:.2f}), all
#       guessers in one tree {medusa.speedup.with_lookup:.2f} ({medusa.speedup.with_lookup.n} prompts, several
#       processes; {medusa.identical_share.with_lookup.bf16:.1%} of the answers token for token the same). float32:
#       {medusa.identical_outputs.count} of {medusa.identical_outputs.of} answers identical. On people's questions
#       {medusa.speedup.with_lookup.handwritten:.2f}, on the base's prose {medusa.speedup.with_lookup.chatty:.2f}
# ---

# %% [markdown] tags=["card"]
# # 08 · Medusa
#
# **Can the model guess its own next tokens, without a second model?**
#
# | | |
# |---|---|
# | previous, next | 07 speculative decoding, 09 compilation; extra: 08b the strongest opponents |
# | the term it attacks | tokens per step, at the price of more tokens read in a step |
# | you will be able to | train Medusa heads; judge a tree of guesses; choose, by what each guess is worth on your machine, which ones a step checks; answer what a sceptic asks of a speedup |
# | time | 45 minutes for you, 20 of them for one exercise; about 7 for the machine under the profile `cpu` |
# | memory | 7 GiB |
#
# A draft model is a second model: to train, to load, to run layer by layer. But the model's last hidden state already knows something of what comes. *Medusa* (Cai et al. 2024) reads it out with a few small heads, all at once.
#
# AWS published a notebook that does so: a chat model fine-tuned on text-to-SQL, heads on the frozen model, 450 requests one after the other. This notebook repeats that experiment. Then it tries to do better.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# The published result: average latency 0.95 s without heads and 0.53 s with them, and the same output for 450 of 450 prompts. There it was a model of 7 billion weights on a GPU. Here it is this machine, and a model about 50 times as small, which nobody prepared for heads.
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
from helpers.notebook.medusa_bench import SIZES

lesson = helpers.start("08_medusa", profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, SIZES[PROFILE]
results.prediction("medusa.speedup", GUESS_SPEEDUP, "x")

# %% [markdown] tags=["build"]
# ## Heads on the hidden state
#
# The model's own `lm_head` reads the last hidden state $h_t$ and gives token $t+1$. Head $i$ reads the same $h_t$ and guesses token $t+1+i$, without knowing what stands between. It is one **residual block**, and then an `lm_head`:
#
# $$z_i = h_t + \mathrm{SiLU}(W_i h_t + b_i), \qquad \text{guess}_i = \mathrm{lm\_head}(z_i)$$
#
# $W_i$ and $b_i$ start as zero, so that an untrained head is exactly the model's own `lm_head`.

# %%
import torch
from torch.nn import functional as F

from helpers.notebook.diagrams import draw_medusa_heads
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.training.completions import IGNORED

read, guesses = ["How", "many", "ships", "?"], [" COUNT", "(", "*", ")", " FROM"]
picture = draw_medusa_heads(read, "SELECT", guesses, width=576)

# %%
# show: helpers.speculation.medusa_heads:residual_block
# %% [markdown]
# Here all heads share the model's own `lm_head`; in the paper each has one of its own (the script trains either). And they guess only among the tokens that answers use, a few thousand of 49,152. Reading the whole `lm_head` five times would be most of what heads cost. A guess is checked anyway, so nothing can go wrong with the others.
#
# ## Train them
#
# **Medusa-1**: the model is frozen. It answers exactly as before, whatever the heads learn. So its hidden states are computed once, and training sees nothing else. The heads learn from the model's *own* answers to the training questions (**self-distillation**), and from no token of a prompt: they are to guess what the model says, right or wrong.
#
# The loss adds up the heads' cross-entropies, with less weight for the later ones:

# %%
# show: helpers.training.train_medusa_heads:loss_of
# %%
from helpers.notebook.medusa_bench import SCRIPT
from helpers.notebook.medusa_training import show_training
from helpers.training.launch import launch

settings = {"seed": SEED} | sizes.train
own = launch(SCRIPT, MODEL_ID, settings, inside=PROFILE == "smoke")
show_training(results, own)

# %% [markdown]
# The first head is right most often, the last one least: the further ahead, the less the state knows. But a head's second and third best guesses are worth something, too. That is what a tree will be for. (On their blog the paper's authors give their first head about 60 %.)
#
# From here on the notebook uses the heads that `HEADS` names. The course's were trained by the same script on more questions; their card says how.

# %%
from helpers.notebook.medusa_bench import FLOAT32, open_bench
from helpers.notebook.medusa_step import show_first_steps
from helpers.speculation.medusa import CHAIN, Medusa

bench = open_bench(lesson, HEADS, own)
test, prompts = bench.split("test", sizes.identity)
print("\nquestion:", test[0].question)
chain = Medusa(bench.heads[FLOAT32], CHAIN[: bench.heads[FLOAT32].count])
show_first_steps(bench, bench.answer(prompts[0], chain))

# %% [markdown]
# That was a **chain**: each head's best guess, one after the other, checked as in 07. The head that guessed a token stands behind it, `·` is the model's own, × stands before what was wrong.
#
# ## Then a tree
#
# If the first head's best guess is wrong, the whole chain is lost. A **tree** also checks its second best, and what may follow each. All guesses are read in *one* step. Each sees the prompt, the certain tokens and its own ancestors, and none of its rivals. That is what the mask says:

# %%
from helpers.notebook.medusa_step import SMALL_TREE, draw_step_tree, open_step

rivals = Medusa(bench.heads[FLOAT32], SMALL_TREE)
step = open_step(bench, prompts[0], rivals)
draw_step_tree(bench, step)

# %% [markdown]
# **Exercise 08.1** (3 minutes) *Why it matters: wrong positions are the usual bug of tree decoding, and nothing crashes.*
#
# Two rivals for the same place also have the same **position**: the distance from the certain token. A guess's *parent* is the index of the guess that it follows, -1 for the certain token. Return how far each guess lies after the certain token, from 1.

# %%
from helpers.notebook.exercises import check, hint, solution


def my_depths(parents):  # a list: parents[i] < i
    return None  # your code: a list of as many numbers


# hint("08.1")  # uncomment for help; solution("08.1") shows the course's own
depths = check("08.1", my_depths)

# %% [markdown]
# **Exercise 08.2** (20 minutes) *Why it matters: this function decides that not one token changes. Every guesser of the course, and every tree, goes through it.*
#
# One step has read the certain token and all guesses. Which guesses are accepted, and which token comes after them?
#
# * `proposal.tokens[i]` is guess i, `proposal.parents[i]` the guess that it follows, -1 for the certain token.
# * `own_token(row)` is the token that the model itself writes: row 0 after the certain token, row i + 1 after guess i. (A function, and not a list: where answers are sampled the token is drawn when it is asked for. So ask only where you stand.)
#
# Return a tuple: the list of accepted guesses, by index, in their order; and the **bonus token**, the model's own after the last of them.


# %%
def my_longest_path(proposal, own_token):
    return None  # your code: (accepted, bonus)


# hint("08.2")  # solution("08.2")
longest_path = check("08.2", my_longest_path)

# %% [markdown]
# The step of the picture above in slow motion, judged by your function (or the course's):

# %%
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from helpers.notebook.medusa_step import show_judged
from helpers.speculation.tree_choice import Ranks, Shares, path_shares

show_judged(bench, step, longest_path)

# %% [markdown]
# ## Which tree?
#
# More nodes bring more tokens a step, and make the step dearer. Both can be known before anything is built. On **validation** answers, at each position: which *rank* did each head give to the token that really came? (0 is the best guess.) A path of the tree, (0, 2) say, is right where the first head's rank was 0 and the second's 2. Count how often. The most frequent paths are the best tree of that size.

# %%
# show: helpers.speculation.tree_choice:path_shares
# %%
from helpers.notebook.medusa_choice import all_ranks, known_answers, measure_prices
from helpers.notebook.medusa_training import show_head_accuracy

_, unseen = bench.split("validation", sizes.validation)
known = known_answers(bench, unseen)
ranks = all_ranks(bench, known)
show_head_accuracy(results, ranks, bench.heads[FLOAT32].count)
prices = measure_prices(bench, unseen)

# %% [markdown]
# The last lines are the **verify cost** of this machine. Multiply: for each size of tree, how many times as fast would a whole request be, prompt and all? The tree's shape is counted on one half of the validation answers, its size is chosen on the other. (The paper's tree has 64 nodes, for a GPU, where further tokens cost less.)

# %%
from collections import abc

from helpers.notebook import medusa_choice as choice
from helpers.speculation.worthwhile import Node

fixed = choice.choose_fixed_tree(prices, ranks)
choice.show_fixed_tree(results, fixed)
choice.draw_paths(path_shares(ranks), fixed.tree)

# %% [markdown]
# ## A head that reads its own guesses
#
# All heads read the same $h_t$. None of them knows which token the model made of it, though that is certain before a head is asked. And the third head doesn't know what the second one guessed. A **recurrent drafter** knows both (Zhang et al. 2024; *Hydra*, Ankner et al. 2024, is close to it). One small network goes on from guess to guess:
#
# $$s_0 = h_t, \qquad s_i = s_{i-1} + V\,\mathrm{SiLU}(W\,[s_{i-1};\, e(x_{i-1})] + b), \qquad \text{guess } x_i = \mathrm{lm\_head}(s_i)$$
#
# $x_0$ is the token that $h_t$ made, $e$ the model's own embedding. It is trained as heads are, on the same frozen model and the same answers. The price: one depth comes after the other, where all heads are one product. Its likeliest paths, a **beam**, are a tree like any other.

# %%
# show: helpers.speculation.recurrent_drafter:RecurrentDrafter.next_state
# %% [markdown]
# ## All guessers in one tree
#
# Heads and drafter read hidden states. They know phrases by heart, and seldom which *name* comes. The guessers of 07 copy names, cost next to nothing and were trained by nobody. A tree doesn't care who proposed a node. So ask them all and merge what they say. Then check only the nodes that are **worth** it:
#
# * **What a node brings.** How often were guesses of its kind right? A kind is a head's guess of such a depth and such a confidence, or a copy after so many equal tokens. Counted on validation. Where several guessers propose the same token, all of them would have to be wrong.
# * **What a token is worth**: the seconds that one costs now.
# * **What a node costs**: what a step takes longer that reads one token more. Measured above.
#
# The nodes are added from the likeliest down, and the tree ends where it gains most. It is another one at every step:

# %%
# show: helpers.speculation.worthwhile:worthwhile
# %% [markdown]
# Which guessers belong together? Each set is replayed on the validation answers, as it would have gone there, with what its guesses cost inside the loop. The best set is what is measured below.

# %%
from helpers.notebook.medusa_step import show_who_guessed

recorded = choice.record_guessers(bench, known)
plan = choice.show_plans(results, choice.choose_plan(prices, recorded))
show_who_guessed(bench, plan, unseen[: 3 * sizes.tuning])

# %% [markdown] tags=["library"]
# ## The libraries that people use
#
# **transformers** has no Medusa of its own, but a hook: `model.generate(..., custom_generate=medusa)`.
#
# **vLLM** decodes with Medusa heads, by a chain. It reads the folder that `save` writes. One thing to know: vLLM 0.32 reads the list of tokens of heads that guess among a few, and then stops because of it. The course's own process gets it past that. For `vllm serve` on its own, train heads over all tokens: `--vocabulary all`.

# %%
from helpers.notebook.medusa_vllm import show_in_vllm
from helpers.speculation.hf_generate import medusa

ids = torch.tensor([prompts[0]], device=lesson.device)
options = dict(max_new_tokens=sizes.longest, do_sample=False, proposer=rivals)
hooked = bench.models[FLOAT32].generate(ids, custom_generate=medusa, **options)
same = hooked[0, ids.shape[1] :].tolist() == bench.answer(prompts[0]).token_ids
print("generate(custom_generate=medusa): the same tokens:", same)
show_in_vllm(bench, results, prompts[: sizes.vllm])

# %% [markdown] tags=["measure"]
# ## The published protocol
#
# First the claim that has no tolerance. In float32, are all answers the same, token for token?

# %%
from helpers.notebook import medusa_duel as duel

proposers = {
    duel.ALONE: Medusa(bench.heads[FLOAT32], fixed.tree),
    duel.ALL: bench.planned(plan, FLOAT32),
}
duel.show_identity(bench, results, proposers, prompts)

# %% [markdown]
# Then the speed, in bfloat16, as published: whole requests, one after the other. All arms take turns on each prompt. Two processes on one machine can differ by a tenth, so it is done in several fresh ones, and the interval covers them, too.
#
# Where the step runs in C++ the answers are the same in bfloat16, too: it adds in the same order however many tokens it reads (00c). Other steps round otherwise when they read more tokens, and where two tokens score almost the same the rounding decides. So the share of equal answers is reported, and how many SQL answers were put right or wrong; the ratio is over the prompts answered alike. People's questions run in the same processes.

# %%
from helpers.speculation.tree_choice import best_tree

widest = best_tree(path_shares(ranks), 64)  # about the paper's size
arms = duel.chosen_arms(bench, fixed, plan, widest) | duel.draft_arm(bench)
people, their_prompts = bench.split("handwritten", sizes.people)
asked = prompts[: sizes.timed] + their_prompts
runs = duel.timed_runs(bench, arms, asked, unseen[:2], sizes.runs)
of_test = duel.part(runs, 0, sizes.timed)
gains = duel.show_speed(bench, results, of_test, test[: sizes.timed])
duel.score_predictions(gains, fixed, plan, GUESS_SPEEDUP)
duel.show_latencies(results, of_test)

# %% [markdown]
# ## People's questions, and prose
#
# The test questions come from a generator, and so did the training. What is left on questions that people wrote, and are the answers right?

# %%
theirs = duel.part(runs, sizes.timed)
of_people = duel.show_speed(bench, results, theirs, people, "handwritten")

# %% [markdown]
# And text that is no SQL? The base model answers the same questions in prose. The course has heads for it, too, made in the same way from what it says. The tree is chosen in the same way, and the same arms are measured:

# %%
from helpers.notebook.medusa_prose import PROSE_SETS, prose_bench

chat = {}
if MODEL_ID == "fine-tuned":
    prose = prose_bench(lesson)
    questions, asked_base = prose.split("test", prose.sizes.timed)
    _, unseen_base = prose.split("validation", prose.sizes.validation)
    known_base = known_answers(prose, unseen_base)
    prices_base = measure_prices(prose, unseen_base)
    tree = choice.choose_fixed_tree(prices_base, all_ranks(prose, known_base))
    recorded_base = choice.record_guessers(prose, known_base)
    plans = choice.choose_plan(prices_base, recorded_base, PROSE_SETS)
    best = max(plans.values(), key=lambda each: each.speedup)
    arms = duel.chosen_arms(prose, tree, best)
    runs = duel.timed_runs(prose, arms, asked_base, unseen_base[:1], prose.sizes.runs)
    chat = duel.show_speed(prose, results, runs, questions, "chatty")
    del prose, prices_base

# %% [markdown]
# ## What a sceptical engineer asks
#
# A speedup says little by itself. Against what? How much of it is heads? First the ladder: four kinds of step (transformers' own; with packed linears; fused in PyTorch; in C++, where that can be had), three ways to guess, milliseconds a token, and the **floor**: the weights' bytes over this machine's bandwidth.

# %%
from helpers.notebook import medusa_sceptic as sceptic

ladder = sceptic.measure_ladder(bench, fixed, plan, prompts[: 2 * sizes.tuning])
sceptic.show_ladder(results, ladder)

# %% [markdown]
# Then what can only be predicted here: several users in one step, and a large model. The tree is chosen anew for each. (Long contexts are measured: a step with guesses against one without.) Below that stand the questions, each with an answer made from the results.

# %%
asking = prices.asking(bench.planned(plan, prices.dtype))
batches = sceptic.show_batches(prices, recorded, plan, asking)
contexts = sceptic.show_long_contexts(bench, plan)
large = sceptic.show_large_model(lesson, recorded, plan, prices, asking)
print()
answers = dict(gains=gains, people=of_people, prose=chat)
sceptic.answer_the_sceptic(lesson, ladder, batches, contexts, large, **answers)

# %% [markdown]
# ## The race
#
# Ask your own: change the tables and the question. Each block is one run of the model, with its true time.

# %%
from helpers.notebook.medusa_race import run_race

SCHEMA = "CREATE TABLE ship (name TEXT, captain TEXT, weight INTEGER, port TEXT)"
QUESTION = "How many ships have a weight above 300 and the port Bergen?"
race = run_race(bench, plan, SCHEMA, QUESTION)
_ = race.figure()
slower = 1 if PROFILE == "smoke" else 8
picture = race.gif(helpers.files.build_root() / "race.gif", slower)
print(f"{picture.name}: {picture.stat().st_size / 1e3:.0f} KB")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# Many users in a batch fill a step already. Heads are made for *one* model: fine-tune it again, and they guess what the old one would have said. And text that can't be foreseen has nothing to guess, as below, where answers are drawn at a temperature.
#
# A sampled answer can keep the model's own distribution: a guess is kept if the model itself draws it. The paper's **typical acceptance** keeps more: every guess whose probability is above $\min(\epsilon, \delta\, e^{-H})$, where $H$ is the entropy of the model's distribution there. 0.09 for $\epsilon$ and 0.3 for $\delta$ are the defaults of the reference code. The distribution is then another one.
#
# | error | remedy |
# |---|---|
# | "These heads were made for a model of ..." | another width or vocabulary: train heads for this model |
# | "... was made for another model" | the card names another target: `HEADS = "own"` |
# | vLLM accepts far less than you do | `medusa_fc_bias` is missing in config.json: vLLM drops the biases silently |
# | the heads guess well in training and badly here | trained on a quantized model, or with the prompt's tokens: train on the model that you serve, on its completions |

# %%
from helpers.decoding.generate import generate
from helpers.decoding.sampling import Sampling
from helpers.speculation.cost import accepted_per_step

options = dict(max_new_tokens=min(40, sizes.longest), proposer=proposers[duel.ALONE])
network, tokenizer = bench.fast[FLOAT32], bench.tokenizer
for temperature in (0.5, 1.0, 1.5):
    for typical in (0.0, 0.09):  # epsilon; 0: lossless
        sampling = Sampling(temperature, seed=SEED, typical=typical)
        draw = dict(options, sampling=sampling)
        drawn = [generate(network, tokenizer, p, **draw) for p in prompts[:4]]
        kind = "typical acceptance" if typical else "lossless"
        tokens = accepted_per_step(drawn)
        print(f"temperature {temperature}, {kind}: {tokens:.2f} tokens a step")

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
# **The rule:** count on your own answers how often each kind of guess is right, measure what further tokens in a step cost, and check the nodes that are worth it, whoever guessed them.
#
# *Medusa-2* trains the model along with its heads; the paper's abstract on arXiv reports 2.3 to 3.6 times for it where Medusa-1 reports 2.2 (other versions of the paper have other figures). It changes the model that is served. *EAGLE* (Li et al. 2024) leaves it as it is, drafts with one small layer on the hidden states, one token after the other, and reports 2.7 to 3.5 times for LLaMA2-Chat 70B; its draft layer has a cache and a step of its own. Heads and a recurrent drafter on a frozen model cost a few small products a step and can be taken off again. That is why this course stays with them. (TensorRT-LLM runs recurrent drafters on GPUs, as *ReDrafter*.)
#
# **What limits it now:** the ladder above says what is left between a step and its bytes. The next notebook attacks the overhead in it. The extra 08b sets all this against llama.cpp, vLLM and torch.compile.
#
# References: Cai et al., *Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads* (2024); Ankner et al., *Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding* (2024); Zhang et al., *Recurrent Drafter for Fast Speculative Decoding in Large Language Models* (2024); Li et al., *EAGLE* and *EAGLE-2* (2024); AWS, *Achieve ~2x speed-up in LLM inference with Medusa-1 on Amazon SageMaker AI* (2025).
