# ---
# jupyter:
#   course:
#     minutes: 5
#     headline: >-
#       Our server over the engine: {serving.overhead_ms:.2f} ms a token more than the engine alone;
#       {serving.completed:.0f} of 64 streams at once are whole; {serving.chained_equals_one.count} of
#       {serving.chained_equals_one.of} answers in requests of 8 tokens are those of one long request. Of the confident half of the answers
#       {serving.right.more_confident:.0%} are right, of the other {serving.right.less_confident:.0%}
# ---

# %% [markdown] tags=["card"]
# # 11 · Serving
#
# **A model answers in a notebook. What does it take until many people can ask it over a network?**
#
# | | |
# |---|---|
# | previous, next | 08 Medusa (09 compilation, 10 long context: planned), 12 SageMaker |
# | the term it attacks | none: it must not add one |
# | you will be able to | stream tokens with their probabilities and put them together again; read a load test; say when a queue grows; choose a server, and write its configuration |
# | time | 45 minutes for you without the exercises, which take 25 more; about 5 for the machine under the profile `cpu` |
# | memory | 8 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# 1. Between two tokens lie HTTP, JSON, an event loop and two threads. How many milliseconds a token does that add?
# 2. Call the most requests a second that the server can answer its **capacity**. Send requests at random times, at 25 % and at 75 % of it. One in ten waits longer for the first token than p90. What is the ratio of the two p90?
#
# Both predictions are saved before anything is measured.

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_OVERHEAD_MS: float = 1.0  # your guess: milliseconds a token
GUESS_WAITING: float = 2.0  # your guess: waiting at 75 % over that at 25 %

# %%
import helpers
from helpers.notebook.serving_sizes import SERVING

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("11_serving", **options)
results, sizes = lesson.results, SERVING[PROFILE]
results.prediction("serving.overhead_ms", GUESS_OVERHEAD_MS, "ms")
results.prediction("serving.waiting_ratio", GUESS_WAITING, "ratio")

# %% [markdown] tags=["build"]
# ## A server over the engine
#
# The engine of notebook 05 runs in a thread of its own: one step after the other, for everybody. An **event loop** beside it speaks HTTP. Requests go to the engine by a queue, and each token comes back as soon as its step is done. In a terminal it is `python -m helpers serve --port 8080`.

# %%
from contextlib import ExitStack

from helpers.notebook.serving_bench import ServingBench
from helpers.serving.run import running

bench, server = ServingBench.of(lesson, sizes), ExitStack()
url = server.enter_context(running(bench.worker()))
print(url)

# %% [markdown]
# It speaks three languages: that of Hugging Face's **TGI** (`/generate`), that of SageMaker's containers for large models (**LMI**: `/invocations`, `/ping`), and **OpenAI's** (`/v1/...`). (TGI is in maintenance today; its language lives on in clients.) A request by hand:

# %%
import httpx

parameters = {"max_new_tokens": 4, "details": True}
body = {"inputs": bench.prompts[0], "parameters": parameters}
answer = httpx.post(url + "/invocations", json=body, timeout=60)
details = answer.json()["details"]
print(answer.status_code, details["finish_reason"], details["generated_tokens"])
print(*details["tokens"], sep="\n")

# %% [markdown]
# `finish_reason` says why it ended: `length` if it was cut off. If it ended by itself that is `stop` for OpenAI and LMI, and `eos_token` or `stop_sequence` for TGI and LMI's version 0.26.
#
# And what if the request makes no sense? Then the answer is a status below 500, with a sentence that says what to change. (Ours refuses unknown fields. Many servers ignore them, and you never hear that you misspelled one.)

# %%
wrong = httpx.post(url + "/invocations", json={"inputs": 5, "parameters": {}})
print(wrong.status_code, wrong.json()["error"])
wrong = httpx.post(url + "/generate", json={"inputs": "a", "parameter": {}})
print(wrong.status_code, wrong.json()["error"])

# %% [markdown]
# ## Put a stream together again
#
# LMI streams a line of JSON for each token. TGI and OpenAI send **server-sent events**: `data: ` before the JSON, and a blank line behind it. In both a network cuts the bytes where it likes: in the middle of a line, even of a character. A published client for LMI 0.26 looped for ever when the last line had no end.
#
# **Exercise 11.1** (10 minutes) *Why it matters: half of all streaming bugs are here.*
#
# `rest` is what was left over before, `piece` what has come now (both bytes). A line ends with `b"\n"`. Return the list of lines that are whole now, stripped and without blank ones; and the bytes behind the last `b"\n"`, unchanged.


# %%
from helpers.notebook.exercises import check, hint, solution


def my_cut(rest, piece):
    return None  # your code: lines, rest


# hint("11.1")  # uncomment for help; solution("11.1") shows the course's own
cut = check("11.1", my_cut)
lines, rest = cut(b"", b'{"a": 1}\n\n{"b"')
print(lines, rest)
print(cut(rest, b": 2}\n"))

# %% [markdown]
# When the stream ends, the rest is a line, too. And the same cut serves both kinds of streams:

# %%
from helpers.serving.lines import event_of, lines_of

print(list(lines_of([b'{"a": 1}\n{"b', b'": 2}'])))
print([event_of(line) for line in lines_of([b'data: {"a": 1}\n\ndata: [DONE]'])])

# %% [markdown]
# ## How sure is it?
#
# Each token comes with its **log-probability**. A single number for the whole answer is the geometric mean of the probabilities. It is a score for a token: 30 tokens of 0.95 each have a score of 0.95, though the model gives the whole answer a probability of about a fifth. Neither says how likely the answer is right. Whether the score can serve for that is measured below.
#
# **Exercise 11.2** (3 minutes) *Why it matters: an unsure answer can go to a person, or to a larger model.*
#
# Return the confidence of an answer: exp of the mean of its tokens' `log_probs`.


# %%
def my_confidence(log_probs):
    return None  # your code


# hint("11.2")  # solution("11.2")
confidence = check("11.2", my_confidence)

# %%
from helpers.serving import client

for told in client.stream(url, bench.prompts[0], max_new_tokens=sizes.longest):
    print(told.pieces[-1], end="|")
print()
print(f"confidence {confidence(told.log_probs):.3f}, ended by {told.finish_reason!r}")

# %% [markdown]
# But is a confident answer right? A **reliability diagram** puts answers of similar confidence together, and compares that with the share of them that is right. (Right means that the SQL finds the right rows.)
#
# **Exercise 11.3** (10 minutes) *Why it matters: a threshold on confidence is worth what this curve says.*
#
# Sort the `n` answers by confidence, and cut them into `bins` groups: group `k` begins at `n * k // bins`, so that all are of a size. (Fewer answers than `bins`? Then each is a group.) Return a tuple for each group, the least confident first: mean confidence, share of right answers, number of answers.


# %%
def my_reliability(confidences, right, bins):
    return None  # your code: a list of tuples


# hint("11.3")  # solution("11.3")
reliability = check("11.3", my_reliability)

# %% [markdown] tags=["library"]
# ## The servers that people use
#
# llama.cpp's server has the same weights, in its own file. The same client asks both in OpenAI's language, 16 requests at a time, and neither keeps prompts. (`vllm serve` takes a minute to start: 11b has it, and more servers.)

# %%
from helpers.notebook.serving_others import compare_servers

compare_servers(results, bench)

# %% [markdown]
# ## Which server?
#
# A few questions, in this order:

# %%
from helpers.notebook.serving_charts import draw_questions
from helpers.serving.backends import Needs, choose_backend

draw_questions()
kv_bytes = 64 * 2048 * 131_072  # users, tokens, bytes a token of 8 billion weights
needs = Needs("nvidia", 80e9, 16e9, kv_bytes, users=64, on_sagemaker=True)
chosen = choose_backend(needs)
print(chosen.name, *(f"- {reason}" for reason in chosen.reasons), sep="\n")

# %% [markdown]
# And the configuration that it wants: a file for SageMaker's container, a line for vLLM.

# %%
from helpers.serving.backends import serving_properties, vllm_command

print(serving_properties({"model_id": "owner/model", "max_num_seqs": 64}))
print(vllm_command("owner/model", tensor_parallel=2))

# %% [markdown] tags=["measure"]
# ## What the server adds
#
# One user, the same prompts: the engine alone, and through the server. (The client runs in this process, too. Elsewhere it would disturb the server less.) Then 64 streams at once, each of them whole?

# %%
from helpers.notebook.serving_bench import compare_overhead, complete_streams

compare_overhead(results, bench, url)
print(f"You guessed {GUESS_OVERHEAD_MS:g} ms more.")
complete_streams(results, bench, url)

# %% [markdown]
# ## Cut off, and gone on
#
# A SageMaker endpoint ends a plain request after a minute. A long answer then takes several: as long as one ends by `length`, the next one sends what was written so far. Is that the same answer? It is if the text so far is cut into the same tokens again.

# %%
from helpers.notebook.serving_bench import compare_chained

compare_chained(results, bench, url)

# %% [markdown]
# ## Several answers
#
# A request may ask for `n` answers: they are sampled with seeds of their own, and share the prompt's blocks.

# %%
body = {"prompt": bench.prompts[0], "n": 3, "temperature": 0.8, "seed": SEED}
body["max_tokens"] = sizes.longest
answer = httpx.post(url + "/v1/completions", json=body, timeout=60).json()
for choice in answer["choices"]:
    print(choice["index"], " ".join(choice["text"].split())[:80])

# %% [markdown]
# **Beam search** keeps the best few beginnings, lets each go on by its likeliest tokens, and keeps the best few of these. Answers of unlike lengths are compared by their mean log-probability, so that long ones aren't punished. Our engine knows no beams: each is a request for one more token, and what they have in common lies in shared blocks. (vLLM does it in this way, too.)

# %%
from helpers.notebook.serving_bench import compare_beams

compare_beams(results, bench, url)

# %% [markdown]
# ## One base, several adapters
#
# An adapter (03) is a few percent of the weights. So a server keeps many of them beside one base, and each request names its own, here as OpenAI's `model`. Requests of different adapters run in the same step (03b). But they share no blocks: their keys and values differ.

# %%
from helpers.notebook.serving_bench import ask_adapters

ask_adapters(bench)

# %% [markdown]
# ## Sure, and right?

# %%
from helpers.notebook.serving_bench import judge_confidence
from helpers.notebook.serving_charts import draw_reliability

draw_reliability(judge_confidence(results, bench, url))

# %% [markdown]
# ## Load
#
# Requests come at random, whether the server is ready or not: an **open loop**. In a **closed loop** each user waits for the answer before asking again. Its queue is never longer than its users are many. That is right for measuring the capacity, and hides what happens when requests keep coming.
#
# The **knee** is the load from which on waiting grows much faster than the load. Above 100 % the queue grows until the test ends: a longer test would show a longer wait. (Prefixes aren't shared here: prompts come several times, and would be found.)

# %%
from helpers.notebook.serving_bench import offer_loads, read_knee
from helpers.notebook.serving_charts import draw_loads

loaded = server.enter_context(running(bench.worker(share_prefixes=False)))
found = offer_loads(results, bench, loaded)
draw_loads(found)
read_knee(results, found, GUESS_WAITING)

# %% [markdown]
# What should a server do with requests that it can't answer in time? Refuse them at once. The client comes again later, or asks another one.

# %%
from helpers.notebook.serving_bench import show_refusals

show_refusals(bench)

# %% [markdown]
# ## Your own questions
#
# The same measurement for your data, and for any server that speaks one of these languages (ours, vLLM, llama.cpp, TGI, LMI). In a terminal: `python -m helpers bench --url ... --data my.jsonl`, with a line `{"prompt": "...", "answer": "..."}` for each question. Here is what it prints:

# %%
from helpers.serving import bench as own

asked = bench.prompts[: sizes.chained]
pairs = zip(asked, bench.examples, strict=False)
questions = [own.Question(prompt, example.answer) for prompt, example in pairs]
print(own.HEADER)
for users, load in own.bench(url, "openai", questions, (1, 4), sizes.longest):
    print(own.row_of(users, questions, load))

# %% [markdown]
# Here an answer is right only if it is the reference word for word, apart from white space.

# %%
server.close()
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Near capacity.** Waiting grows before all seats are taken all the time: requests that come at random come in bunches.
# * **Above capacity.** Everybody waits, and longer and longer. A server has to refuse (429), or all are late.
# * **Confidence of wrong models.** It says how sure the model is. A model that was trained on too little is sure of the wrong thing.
#
# | you see | do |
# |---|---|
# | 429 and `Retry-After` | wait so many seconds, or add replicas |
# | 422 "There is no field" | correct its name, or leave it out: it would not be done |
# | "together this server takes" | a shorter prompt, fewer new tokens, or start it with a larger `--longest` |
# | "Port 8080 can't be had" | `--port` with another number |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** Your load test has 8 users, and the server 16 seats. Each user sends the next request when the last one is answered. It shows no queue at any load. (a) the server is fast enough (b) such a test can't show one (c) the network is too slow
#
# <details><summary>Answer</summary>
#
# (b): a slow server gets fewer requests then. (a) would have to be shown with arrivals that don't wait. (c) would make answers late, not queues short.
# </details>
#
# **2.** An answer ended by `length`. (a) it is complete (b) it was cut off, and may go on (c) the model was unsure
#
# <details><summary>Answer</summary>
#
# (b): the limit of new tokens was reached. (a) is `stop` or `eos_token`. (c) is what log-probabilities say.
# </details>
#
# **3.** A client goes in the middle of a stream. The server should (a) finish the answer, it may come back (b) free its place at once (c) stop
#
# <details><summary>Answer</summary>
#
# (b): others wait for the place and for its blocks. (a) computes for nobody. (c) would punish everybody else.
# </details>
#
# **The rule:** stay well below the most that a server answers; refuse early; measure with arrivals that don't wait.
#
# **What limits it now:** somebody has to run the machine. 12 lets SageMaker do it.
#
# References: Guo et al., *On Calibration of Modern Neural Networks* (2017).
