# ---
# jupyter:
#   course:
#     minutes: 24
#     headline: >-
#       The same client, SmolLM2-135M fine-tuned, bfloat16: our server writes {backends.speedup.vllm.users_1:.2f} times the
#       tokens a second of vLLM's with one user and {backends.speedup.vllm.users_16:.2f} with 16,
#       {backends.speedup.llama_cpp.users_1:.2f} and {backends.speedup.llama_cpp.users_16:.2f} times llama.cpp's. Weights that
#       are fetched in each step make it {backends.offload_speedup.disk:.2f} times as fast
# ---

# %% [markdown] tags=["card"]
# # 11b · Backends
#
# **Many servers answer the same requests. What is each of them for, and how do they compare on one machine?**
#
# | | |
# |---|---|
# | belongs to | 11 serving (an extra: skip it if you like) |
# | the term it attacks | all of them: a server is where the course's ideas meet |
# | you will be able to | start other servers with the same model; compare them fairly; say what offloading costs, and what experts change |
# | time | 20 minutes for you; about 24 for the machine under the profile `cpu` |
# | memory | 10 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# A **mixture of experts** has 8 MLPs in each layer, and each token uses two of them. Beside it stands a **dense** model: one MLP in each layer, as large as two of the experts. So both do the same work for each token. With one user, and then with 16 at a time: how many times the dense model's tokens a second does the mixture write?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
GUESS_ONE: float = 0.9  # your guess: the mixture over the dense model, one user
GUESS_MANY: float = 0.9  # your guess: the same with 16 users

# %%
import helpers
from helpers.notebook.backend_sizes import BACKENDS

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("11b_backends", **options)
results, sizes = lesson.results, BACKENDS[PROFILE]
results.prediction("backends.experts_speed.users_1", GUESS_ONE, "ratio")
results.prediction("backends.experts_speed.users_16", GUESS_MANY, "ratio")

# %% [markdown] tags=["build"]
# ## Who is there
#
# Servers, and libraries that do a server's work; what each is made for, and how it is doing (November 2026):

# %%
from helpers.serving.backends import BACKENDS as SERVERS

for name, server in SERVERS.items():
    print(f"{name:20}{server.made_for}\n{'':20}{server.state}")

# %% [markdown]
# A **fair comparison** of servers is the same weights, the same questions, the same client, and as many users at a time. And they take turns: a machine is not equally fast all day.
#
# How one starts them in a terminal:

# %%
from helpers.serving.backends import vllm_command

print("python -m helpers serve --model fine-tuned --medusa medusa")
print(vllm_command("owner/model"))
print("llama-server -m model.gguf --parallel 16")

# %% [markdown] tags=["library"]
# ## Side by side
#
# Each server is asked in OpenAI's language by the same client: first one user at a time, then many. Each line is another server beside ours without guesses. Ours and vLLM's are asked once more with guesses: with Medusa's heads (08), vLLM by prompt lookup (07), too. (vLLM's server wants heads that guess among all tokens; ours guess among fewer. llama.cpp's own guessing is left out.)
#
# No server keeps a prompt for the next request. llama.cpp runs inside this process and shares it with the client, which can only slow it down. Tokens a second are those of whole requests, prefill and all. Answers are greedy, in bfloat16, where near ties may fall either way; *the same* counts equal ones.

# %%
from helpers.notebook.backend_charts import draw_backends
from helpers.notebook.serving_backends import WORDS, BackendsBench, compare_backends

bench = BackendsBench.of(lesson, sizes)
found = compare_backends(results, bench)
draw_backends(found, WORDS)

# %% [markdown]
# Right of the dotted line our server without guesses is faster. Who gains from one user to many? That is batching (05). And who gains by guesses: with one user, with many, or never?
#
# Beam search is easy to get subtly wrong: lengths, ends, scores. Is our best answer vLLM's, too?

# %%
from helpers.notebook.serving_backends import compare_beams

compare_beams(results, bench)

# %% [markdown] tags=["measure"]
# ## A model that doesn't fit
#
# **Offloading** (Accelerate, DeepSpeed's ZeRO-Inference) keeps weights where there is room: in main memory beside a GPU, or on the disk. Each module is fetched when its turn comes, and forgotten behind it. A step reads all weights (00), now from there. *Held* is the share that stays in the process.

# %%
from helpers.notebook.serving_backends import compare_offload

compare_offload(results, sizes)

# %% [markdown]
# Here the operating system still has the file in memory. So what you see is the cost of fetching itself: open, copy, forget. A real disk adds the weights' bytes over its bandwidth to every step. (Seven billion weights in 16 bits, two gigabytes a second: seven seconds a token.) It pays where one reading serves many tokens: large batches, whose users can wait.
#
# ## Experts
#
# In Mixtral's architecture a **router** sends each token to two experts of eight. So a token reads few of the weights that the model has. (The weights here are random: only speed and memory are measured.)

# %%
from helpers.notebook.serving_backends import compare_experts

speeds = compare_experts(results, bench)
print(f"You guessed {GUESS_ONE:g} with one user and {GUESS_MANY:g} with 16.")
results.write()
results.assert_invariants()

# %% [markdown]
# The mixture's MLPs are four times as large as the dense model's. The whole model isn't, since embeddings and attention are the same in both. All experts have to be in memory, whichever is asked.
#
# With one user both models read as many weights for a token; what is missing to 1 is the router and the kernel for experts. With more users a step asks more of the experts, and reads more weights, so the ratio should fall. Does yours?

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **A comparison of servers ages quickly.** Measure again, with your model and your questions: `python -m helpers bench` (11).
# * **A CPU is not where they are at home.** vLLM's and TensorRT-LLM's kernels are made for GPUs; there measure anew.
#
# | you see | do |
# |---|---|
# | "vLLM's server stopped" | read the sentence behind it: it is vLLM's own. If it is about memory, close other notebooks |
# | answers differ in a few places | near ties of 16 bits: compare in float32 |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** A model is twice as large as your GPU's memory, and a single user can wait for minutes. (a) offload it (b) buy a second GPU (c) neither works
#
# <details><summary>Answer</summary>
#
# (a): seconds a token are soon enough. (b) is right when many users wait. (c) layers can be fetched one by one.
# </details>
#
# **2.** A mixture with 8 experts, of which a token uses two. How much memory do its MLPs take? (a) as two experts (b) as eight (c) that depends on the tokens
#
# <details><summary>Answer</summary>
#
# (b): the next token may go to any of them. (a) is what a token reads. (c) is true of what a step reads.
# </details>
#
# **3.** A server is twice as fast as another one in its maker's test. You (a) take it (b) measure both with your own questions and number of users (c) take the other one
#
# <details><summary>Answer</summary>
#
# (b): the order can change with the number of users, the lengths and the machine.
# </details>
#
# **The rule:** choose by what it is for, then measure with your own questions.
#
# References: Jiang et al., *Mixtral of Experts* (2024); Aminabadi et al., *DeepSpeed-Inference* (2022), which has ZeRO-Inference.
