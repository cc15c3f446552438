# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       bfloat16, {speculative.speedup.n} prompts, processes of their own: with the guesser that validation chose a
#       request is {speculative.speedup:.2f} times as fast as plain greedy decoding by the same fused step (draft model
#       {speculative.speedup.draft_model:.2f}, prompt lookup {speculative.speedup.prompt_lookup:.2f}, Token Recycling
#       {speculative.speedup.recycling:.2f}, suffix match {speculative.speedup.suffix.cold:.2f} cold and
#       {speculative.speedup.suffix.warm:.2f} warm). float32: {speculative.identical_outputs.count} of
#       {speculative.identical_outputs.of} answers identical with the draft model,
#       {prompt_lookup.identical_outputs.count} of {prompt_lookup.identical_outputs.of} with prompt lookup
# ---

# %% [markdown] tags=["card"]
# # 07 · Speculative decoding
#
# **Can something cheap guess the next tokens, so that the model only has to check them?**
#
# | | |
# |---|---|
# | previous, next | 05 continuous batching (06 several devices: planned), 08 Medusa |
# | the term it attacks | tokens per step, at the price of more tokens read in a step |
# | you will be able to | write the speculative loop; build five guessers, four of them without any training; show that guessing changes no answer; predict from two measurements whether it pays |
# | time | 60 minutes for you, 20 of them for one exercise; about 5 for the machine under the profile `cpu` |
# | memory | 7 GiB |
#
# You need notebook 00: prefill and decode, the KV cache, the equation.
#
# A step reads all weights to make one token. It could check several tokens for nearly the same price, if somebody said which.

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A small model, trained to imitate the large one, drafts tokens, and the large one checks them. Prompt lookup needs no training: it copies what followed the same words before. Two more guessers learn only from what the model did already.
#
# The answers stay the same. Only the number of steps changes.
#
# 1. How many times as fast will a whole request be with the best guesser? Write it into `GUESS_SPEEDUP`.
# 2. Will the best one be the trained one? Make up your mind before you go on.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "fine-tuned"  # the target: the course's, a folder, or a Hub owner/name
DRAFT: str = "draft"  # the course's; "own": the one distilled here; a folder; a Hub id
DTYPE: str = "bfloat16"  # of all that is timed; float32 shows that answers are equal
SEED: int = 0  # of everything random
GUESS_SPEEDUP: float = 1.5  # your guess: a request is so many times as fast

# %%
import helpers
from helpers.notebook.guess_sizes import SIZES

name = "07_speculative_decoding"
lesson = helpers.start(name, profile=PROFILE, model_id=MODEL_ID, seed=SEED)
results, sizes = lesson.results, SIZES[PROFILE]
results.prediction("speculative.speedup", GUESS_SPEEDUP, "x")

# %% [markdown] tags=["build"]
# ## Checking is cheaper than writing
#
# A step for one token reads every weight. A step that reads $k$ more tokens behind it reads the same weights once, and computes $k+1$ times as much. The equation of notebook 00 says what that costs; here it is beside the measurement.

# %%
from helpers.measuring.cost_model import Shape
from helpers.notebook.equation import equation_here
from helpers.notebook.guess_sizes import NUM_TOKENS
from helpers.notebook.guess_tables import show_verify_cost
from helpers.profiling.arms import Bench
from helpers.profiling.model_steps import time_steps

equation = equation_here(lesson)
options = dict(device=lesson.device, turns=sizes.turns, max_new_tokens=sizes.longest)
bench = Bench(MODEL_ID, DTYPE, **options)  # the model, and its fused step
rounds, shape = lesson.sizes.rounds, Shape.of(bench.model)
steps = time_steps({"fused": bench.fast}, shape, NUM_TOKENS, rounds=rounds)["fused"]
step_seconds = show_verify_cost(equation, steps)

# %% [markdown]
# The lines run far below the dotted one, where each token would cost a step of its own. Speculation lives in that gap.
#
# ## Guess, check, keep
#
# 1. Somebody **proposes** the next tokens: a *chain* of guesses.
# 2. The model reads the last certain token and all guesses in **one step**. That gives its own choice after each of them.
# 3. Guesses are kept up to the first that the model would not have made itself. After the last kept one stands the model's own token, the **bonus token**.
# 4. The KV cache forgets the rest.

# %%
from helpers.notebook.diagrams import draw_speculative_step

guesses = [" name", " FROM", " boats", " ORDER"]
own_choices = [" name", " FROM", " ships", " ORDER", " BY"]
picture = draw_speculative_step("SELECT", guesses, own_choices)

# %% [markdown]
# The last guess agrees with the model's choice there, and yet it isn't kept: the model chose it after reading a wrong token.
#
# At least one token comes out of a step, at most all guesses and one. Greedy decoding can't be changed by this, since what is kept is what the model would have written.
#
# **Exercise 07.1** (20 minutes) *Why it matters: this loop is all of speculative decoding. Who guesses can be changed without touching it.*
#
# Write it. Start from your greedy loop of 00.1.
#
# * `guess(known)` takes all tokens known so far, prompt and answer, and returns a list of guesses. The list may be empty, or wrong.
# * `cache.length` is the number of tokens that the cache holds; `cache.crop(n)` keeps the first `n`. Give the cache room for twice the longest text.
# * The answer ends after `max_new_tokens`, or with the first token that is in `eos_tokens(model)`, wherever in a step that happens.

# %%
from collections.abc import Sequence  # what a function below needs

import torch

from helpers.decoding.forward import eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.notebook.exercises import check, hint, solution
from helpers.speculation.ngram import continuation


@torch.inference_mode()
def my_speculative(model, tokens, guess, max_new_tokens):
    return None  # your code: the ids of the tokens written, a list


# hint("07.1")  # uncomment for help; solution("07.1") shows the course's own
speculative = check("07.1", my_speculative)

# %% [markdown]
# ## Guesser 1: the prompt
#
# SQL copies names from the question and the tables. **Prompt lookup** (Saxena 2023) searches the text so far for its last few tokens, and guesses what came after them the last time. Here it is, and your loop with it, in float32:

# %%
# show: helpers.speculation.ngram:continuation

# %%
from collections import abc  # what a function below needs

from helpers.decoding.generate import plain_greedy
from helpers.notebook.guess_bench import prompts_of
from helpers.speculation.recycling import Path

exact = Bench(MODEL_ID, "float32", **options)
tokenizer, prompts = exact.tokenizer, prompts_of(exact, "test", sizes.identity)


def lookup(known):
    return continuation(known, 2, 4)


by_your_loop = speculative(exact.model, prompts[0], lookup, sizes.longest)
by_greedy = plain_greedy(exact.model, prompts[0], sizes.longest)
print(tokenizer.decode(by_your_loop))
print("the same tokens as greedy decoding:", by_your_loop == by_greedy)

# %% [markdown]
# The package's own loop (`helpers/decoding/generate.py`) does the same. It also streams, samples, and takes *trees* of guesses, in which several may follow the same token. Its `PromptLookup` tries three last tokens first, then two, then one.
#
# ## Guesser 2: a table of pairs
#
# After each token, the one that came most often after it in the training answers. Such a **bigram table** knows phrases (`GROUP` is followed by `BY`) and nothing of the question. It is the null drafter: whoever guesses worse should not be built.
#
# ## Guesser 3: what the model nearly said
#
# Each step computes a score for every token of the vocabulary, after every token that it reads, and throws all but one away. **Token Recycling** (Luo et al. 2024) keeps the best eight of them, as a table: for each token, the successors that the model gave it the last time. The guesses are a walk through that table, a tree of fixed shape. A node is its path of ranks: `(0, 1)` is the best successor's second best successor.

# %%
# show: helpers.speculation.recycling:grown

# %% [markdown]
# The table begins empty, fills while the model works, and is never trained. After two answers it already holds:

# %%
from torch.nn import functional as F  # what a function below needs

from helpers.decoding.generate import generate
from helpers.notebook.guess_tables import show_successors
from helpers.training.distil_draft import answer_states

LIMIT = dict(max_new_tokens=sizes.longest)
recycling = exact.made(dict(make="recycling", size=8))
for prompt in prompts[:2]:
    generate(exact.fast, tokenizer, prompt, proposer=recycling, **LIMIT)
show_successors(recycling.successors, tokenizer, ("SELECT", " FROM", " WHERE", " ="))

# %% [markdown]
# ## Guesser 4: the longest match
#
# Three tokens of context say little. **SAM decoding** (Hu et al. 2024) looks for the *longest* end of the text that stood before, by this definition:

# %%
# show: helpers.speculation.suffix_automaton:longest_match

# %% [markdown]
# Trying all places takes too long. A **suffix automaton** finds the same in constant time for each new token (on average), since it remembers every run of tokens that it has read (`helpers/speculation/suffix_automaton.py`, 80 lines).
#
# So a long memory costs nothing, and it may reach beyond the prompt. **Cold**, it knows prompt and answer. **Warm**, it also knows answers to *other* prompts: those of the training split, and all that it wrote before.
#
# ## Guesser 5: a draft model
#
# A small model with the same vocabulary writes a few tokens by itself, one cheap step each. The course's draft is the target's own first layers, with a small adapter and a final norm of its own. It was **distilled**: the target answered training questions, and the draft learned the target's distribution at each token of these answers (Zhou et al. 2023, *DistillSpec*, whose main finding is that a draft should learn from such generated text). For a draft, right or wrong doesn't matter, only whether the target agrees.
#
# What it minimises is the **Kullback-Leibler divergence**: 0 when both distributions are equal, and growing as the draft gives less probability to what the target finds likely.

# %%
# show: helpers.training.distil_draft:loss_of

# %% [markdown]
# The next cell distils a draft on the target's answers to some training questions. That is too little to be good. Unless `DRAFT = "own"`, the notebook goes on with the shipped one, which the same script made from all of them.

# %%
from helpers.notebook.guess_bench import distil_own, draft_named

own = distil_own(lesson, sizes)
draft = draft_named(lesson, DRAFT, own)
small = exact.draft(draft).model.config.num_hidden_layers
layers = exact.model.config.num_hidden_layers
print(f"the draft has {small} layers, the target {layers}")

# %% [markdown]
# ## Watch them at work
#
# Each line is one run of the model. Every token has the name of who guessed it; `model` marks the model's own; behind the cross stands what was guessed in vain.

# %%
from helpers.notebook.guess_tables import show_steps

watched = {
    "prompt lookup": dict(make="prompt_lookup", count=5),
    "Token Recycling": dict(make="recycling", size=8),
    "draft model": dict(make="draft_model", draft=draft, count=3),
}
for name, arm in watched.items():
    found = dict(proposer=exact.made(arm), **LIMIT)
    show_steps(name, generate(exact.fast, tokenizer, prompts[1], **found), tokenizer)

# %% [markdown]
# ## When tokens are drawn by chance
#
# At a temperature above 0 the model draws from its distribution $p$; the draft drew its guess from $q$. One safe way: let the model draw, and keep the guess if it is the same token. (Guesses without a $q$ are checked like this.) But two draws seldom agree, even when $p = q$. Keeping a guess because the model finds it likely would keep more, and change the distribution.
#
# **Speculative sampling** (Leviathan et al., Chen et al. 2023) keeps the most that is possible without changing it:
#
# * keep guess $x$ with probability $\min(1, p(x)/q(x))$;
# * after a rejection draw from what is left of $p$ where $q$ fell short of it.
#
# Then each token is distributed exactly as $p$ says, however bad the draft.
#
# **Exercise 07.2** (4 minutes) *Why it matters: the one line in which published implementations were wrong.*
#
# Return the distribution to draw from after a rejection. It is zero where $q \geq p$, and it must sum to 1.

# %%
from collections.abc import Callable  # what a function below needs

from helpers.decoding.acceptance import Accepted
from helpers.decoding.proposals import Proposal
from helpers.decoding.sampling import draw


def my_residual(p, q):  # two tensors (vocabulary,), each sums to 1
    return None  # your code


# hint("07.2")  # solution("07.2")
residual = check("07.2", my_residual)
print(residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])))

# %%
# show: helpers.decoding.acceptance:sampled_path

# %% [markdown]
# Is it so? With a vocabulary of four tokens everything can be counted: draw the first two tokens many times, and count each of the 16 possible pairs. The **p-value** says how often chance alone would stray this far from what $p$ says; a tiny one means: not this distribution.
#
# A test that can't fail says nothing. So the same test must reject a wrong version, in which what is left isn't divided by its sum, and the missing probability falls to the last token.

# %%
from helpers.notebook.guess_tables import check_sampling

check_sampling(results, sizes.draws, SEED)

# %% [markdown]
# ## Does it pay?
#
# **Exercise 07.3** (4 minutes) *Why it matters: with it, two measurements say whether speculation pays, before you build anything.*
#
# Let $a$ be the chance that a guess is accepted if all before it were, the same at each place. Return how many tokens a step brings on average with a chain of $k$ guesses: the accepted ones, and one of the model's own. (The second guess counts only if the first was accepted.)


# %%
def my_expected_tokens(acceptance, k):  # 0 to 1, a whole number
    return None  # your code


# hint("07.3")  # solution("07.3")
expected_tokens = check("07.3", my_expected_tokens)
with_4 = [f"a={a}: {expected_tokens(a, 4):.2f}" for a in (0.3, 0.6, 0.8, 0.9)]
print("tokens a step, chains of 4:", with_4)

# %% [markdown]
# Now $a$ is measured on **validation** questions. The draft has not seen them, and they are not the ones timed later. What a guess costs is measured inside the loop: there the draft first reads what was accepted, and it shares the processor's caches with the target.

# %%
from helpers.notebook.guess_bench import record
from helpers.notebook.guess_tables import show_acceptance

validation = prompts_of(bench, "validation", sizes.validation)
drafted = record(bench, dict(make="draft_model", draft=draft, count=4), validation)
acceptance = show_acceptance(drafted, step_seconds)

# %% [markdown]
# The other guessers don't always have a guess, and trees branch. For them the cost model replays recorded validation answers: a prefill each, every decode step at the price of the tokens that it reads, and what the guessing took (`helpers/speculation/cost.py`).
#
# How long should the guesses be, and who should make them? Each candidate answers the validation questions once, and the one with the least time is kept. A draft may stop early: after a guess that it gives less than `min probability` itself. A suffix match may ask for `shortest` tokens at least.
#
# Then two guessers share a step: both in **one tree** (08 has more of this); the second **where the first has no guess**; or a **relay**, one chain in which each goes on where the other knows no more.
#
# What is chosen here is what is reported below, however the test turns out.

# %%
from helpers.notebook.guess_bench import choose
from helpers.notebook.guess_sizes import candidates
from helpers.notebook.guess_tables import say_candidate, show_choice

tried = candidates(draft, sizes.tried)
choice = choose(bench, tried, validation, step_seconds, say_candidate)
show_choice(choice)
predicted = choice.predicted[choice.best]
results.prediction("speculative.predicted_speedup", predicted, "x")

# %% [markdown] tags=["library"]
# ## The library that people use
#
# transformers has both: `generate(assistant_model=...)` and `generate(prompt_lookup_num_tokens=...)`. They are timed in two ways: as they come, and with **our step in its loop**, so that only loop, cache and guesses differ. Which settings are its best here? A few validation questions decide.

# %%
from transformers.utils import logging

from helpers.notebook.guess_bench import best_of_transformers
from helpers.notebook.guess_tables import show_transformers

logging.set_verbosity_error()  # it would speak of settings that are its own
tuning = validation[: sizes.tuning]
hf_arms, hf_times = best_of_transformers(bench, draft, tuning, sizes.tried)
show_transformers(hf_arms, hf_times)

# %% [markdown] tags=["measure"]
# ## The same answers?
#
# First in float32: every guesser against plain greedy decoding, token by token. (Many prompts at a time, which is faster and changes nothing.)

# %%
from helpers.notebook.guess_bench import check_identity

check_identity(results, exact, choice.arms, prompts)

# %% [markdown]
# ## How much faster?
#
# Whole requests, prompt and all, one after the other, all arms in turns. Two processes on one machine differ by more than an interval over prompts shows, so the whole comparison runs in several **fresh processes**. The interval comes from a bootstrap over runs and prompts, and covers every run.

# %%
from helpers.notebook.guess_bench import time_in_processes
from helpers.notebook.guess_results import read_gains, show_gains

arms = {"greedy": dict(make="greedy"), **choice.arms}
for kind, arm in hf_arms.items():
    arms |= {kind: arm, f"{kind}.same_step": {**arm, "same_step": True}}
runs = time_in_processes(lesson, bench, arms, sizes)
gains = show_gains(results, runs, choice, DTYPE)
read_gains(runs, gains, choice, GUESS_SPEEDUP)

# %% [markdown]
# In half precision two tokens can score the same, and the rounding of a step with more tokens may decide otherwise. What did that do to the answers? And how does transformers' own speculation compare?

# %%
from helpers.notebook.guess_results import record_answers, show_against_transformers
from helpers.text_to_sql.dataset import load_split

test = load_split("test", limit=sizes.timed)
record_answers(results, runs, list(choice.arms), test, tokenizer, DTYPE)
print()
show_against_transformers(results, runs)

# %% [markdown]
# ## Other texts
#
# The test questions come from a generator, and SQL is short. How many tokens does a step bring in answers to questions that people wrote, and in the base model's chatty prose? (In prose only those guess who were not made for SQL.)

# %%
from helpers.notebook.guess_results import show_elsewhere

people = prompts_of(bench, "handwritten", sizes.people)
recorded = {who: record(bench, arm, people) for who, arm in choice.arms.items()}
show_elsewhere(results, recorded, "handwritten", "questions by people")
if MODEL_ID == "fine-tuned":
    chatty = Bench("base", DTYPE, **options)
    untrained = ("prompt_lookup", "recycling", "suffix.cold", "suffix.warm")
    asked = prompts_of(chatty, "test", sizes.prose)
    prose = {who: record(chatty, choice.arms[who], asked) for who in untrained}
    show_elsewhere(results, prose, "chatty", "prose of the base")
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **A bad or a dear draft.** Below its break-even acceptance, printed above, it makes everything slower.
# * **A batch.** Many users' tokens fill a step already, and a guess for each of them is no longer nearly free.
# * **Chance.** When tokens are drawn at a high temperature, fewer guesses survive.
#
# The next cell computes the first two by the equation, and lets the draft guess at two temperatures. *Suppose* this draft's acceptance, and guesses at the same share of a step: what would they bring for more users, and for a target of 7 billion weights? (A larger target knows more, and would probably accept less.)

# %%
from helpers.notebook.guess_tables import show_sampled, show_suppositions

show_suppositions(results, equation, steps, drafted)
show_sampled(bench, draft, validation[: sizes.tuning], SEED)

# %% [markdown]
# | error | remedy |
# |---|---|
# | "The draft knows ... tokens and the target ..." | both need the same tokenizer: take a draft of the target's family, or a guesser that needs none |
# | "... was made for another model" | distil a draft for this target: `DRAFT = "own"` |
# | outputs differ in bfloat16 | two tokens scored the same; in float32 they must not differ |
# | sampled outputs look too tame | the residual, or guesses kept because they are likely: run the test above on your sampler |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Speculation doubled the speed for one user. With 32 users at once it is slower than without. Why? (a) the draft is worse in batches (b) further tokens are no longer nearly free (c) the cache is full
#
# <details><summary>Answer</summary>
#
# (b): 32 users, each with 4 guesses and 1 certain token, are 160 tokens; the step computes now, where it used to wait for weights. (a) acceptance doesn't depend on the batch. (c) would be an error, not a slowdown.
# </details>
#
# **2.** A suffix match "learns" from the answers to the very prompts on which it is timed, and shows 5x. What is wrong? (a) nothing, a cache is a cache (b) it was timed on answers that it had seen, so the figure says nothing about new questions (c) the answers may be wrong now
#
# <details><summary>Answer</summary>
#
# (b): warm may know earlier answers, to other prompts only, and must be named warm. (a) would be true if your users did ask the same again; then say that this is what was measured. (c) is impossible: the target checks every token.
# </details>
#
# **3.** A colleague's sampler keeps a guess if it is among the target's ten likeliest tokens. (a) fine, nothing is lost (b) it is a different distribution (c) it only makes it slower
#
# <details><summary>Answer</summary>
#
# (b): likely guesses of the draft come too often. It may be what you want (Medusa's *typical acceptance* is such a rule), but it isn't lossless. (a) holds for greedy checks and for the rule of 07.2 alone. (c) it keeps more guesses, so it is faster.
# </details>
#
# **The rule:** measure acceptance and the verify cost, multiply, and only then build. Begin with the guessers that need no training; a trained one has to beat them.
#
# **What limits it now:** a draft model is a second model to train, to load and to run, layer by layer, and the untrained guessers know nothing about what has not been said before. The next notebook lets the target's own last hidden state guess.
#
# References: Leviathan et al., *Fast Inference from Transformers via Speculative Decoding* (2023); Chen et al., *Accelerating Large Language Model Decoding with Speculative Sampling* (2023); Saxena, *Prompt Lookup Decoding* (2023); Luo et al., *Turning Trash into Treasure: Token Recycling* (2024); Hu et al., *SAM Decoding: Speculative Decoding via Suffix Automaton* (2024); Oliaro et al., *SuffixDecoding* (2024); Zhou et al., *DistillSpec* (2023); Elhoushi et al., *LayerSkip* (2024); Xia et al., *Unlocking Efficiency in Large Language Model Inference: A Survey of Speculative Decoding* (2024).
