# ---
# jupyter:
#   course:
#     minutes: 1
#     headline: >-
#       {toolkit.requests_are_valid.count} of {toolkit.requests_are_valid.of} requests for optimization and benchmark jobs
#       have the form that SageMaker wants, checked without an account; {toolkit.mistakes_are_found.count} of
#       {toolkit.mistakes_are_found.of} planted mistakes are found; of the published notebooks' calls
#       {toolkit.published_names_left:.0f} are left in today's SDK
# ---

# %% [markdown] tags=["card"]
# # 12b · Optimization jobs
#
# **SageMaker quantizes, compiles and drafts for you, if you ask. How does one ask, and what for?**
#
# | | |
# |---|---|
# | belongs to | 12 SageMaker (an extra: skip it if you like) |
# | the term it attacks | each technique another one: the list names the notebook that has it |
# | you will be able to | choose a recipe for a goal; check a request without an account; bring code of the old SDK to the new one |
# | time | 15 minutes for you; about 1 for the machine under the profile `cpu` |
# | memory | 4 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# AWS' notebooks for SageMaker's inference optimization toolkit and for Medusa were written for version 2 of its Python SDK. They use classes of frameworks (`HuggingFaceModel`), helpers (`get_execution_role`), a `ModelBuilder`: 13 names in all. Version 3 was written anew. How many can still be imported?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
INSTANCE_TYPE: str = "ml.g5.2xlarge"  # named in requests; nothing is rented here
GUESS_LEFT: float = 6.0  # your guess: names that are left

# %%
import helpers

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("12b_optimization_jobs", **options)
results = lesson.results
results.prediction("toolkit.published_names_left", GUESS_LEFT, "names")

# %% [markdown] tags=["build"]
# ## Which recipe for which goal?
#
# SageMaker's **inference optimization toolkit** has several techniques. We call one with its settings a recipe. In parentheses: whether one asks for it by a job or by an option of the container, and the notebook of this course that is nearest to it.

# %%
from helpers.cloud.optimization import recipes

found = recipes("my-bucket")
for name, recipe in found.items():
    how = "a job" if recipe.config else "an option"
    print(f"{name:12}{recipe.goal}")
    print(f"{'':12}{recipe.technique} ({how}; {recipe.notebook})")

# %% [markdown]
# Speculation by a job means **EAGLE** today: SageMaker trains a small network on your prompts, which guesses from the model's hidden states, as Medusa's heads do. Your own draft or heads are an option of the container, and lie beside the model.
#
# ## A request, checked without an account
#
# boto3 brings a description of every operation. So a request can be checked before it costs anything:

# %%
import json

from helpers.cloud.optimization import optimization_request
from helpers.cloud.validate import validate

where = ("s3://my-bucket/model/", "s3://my-bucket/optimized/")
who = ("arn:aws:iam::000000000000:role/mine", INSTANCE_TYPE)
both = [found["awq"], found["compile"]]
request = optimization_request("smaller", *where, *who, both)
validate("CreateOptimizationJob", request)
print(json.dumps(request["OptimizationConfigs"], indent=1))

# %% [markdown]
# What does a mistake look like? boto3 checks names and types before it sends. It doesn't check values that come from a list: "MEDUSA" would be sent, and only AWS would refuse it. Our check looks at these, too.

# %%
from helpers.notebook.cloud_toolkit import check_mistakes, check_requests

check_mistakes(results, request)

# %% [markdown]
# And every recipe that is a job:

# %%
check_requests(results, found, where, who)

# %% [markdown] tags=["library"]
# ## Benchmark and recommendation jobs
#
# SageMaker measures, too: a **benchmark job** sends a workload to an endpoint, and a **recommendation job** tries instances and techniques. Their results have the names of NVIDIA's load tester AIPerf: `time_to_first_token`, `inter_token_latency`, `request_throughput`, `output_token_throughput`. Notebook 11 writes its own under the same names.
#
# The SDK writes the workload into the request; the results would come from AWS:

# %%
from helpers.notebook.cloud_toolkit import check_benchmarks

check_benchmarks(results, where, who)

# %% [markdown] tags=["measure"]
# ## The SDK's own objects, locally
#
# The service of notebook 12 speaks SageMaker's protocol. So the SDK's own classes work on it, without an account. In version 2 one wrote
#
#     HuggingFaceModel(image_uri=..., model_data=..., role=...).deploy(1, "ml.g5.2xlarge")
#
# and in version 3 it is:

# %%
from helpers.notebook.cloud_toolkit import deploy_and_ask


def by_the_sdk(name, image, archive, role):
    from sagemaker.serve import ModelBuilder
    from sagemaker.serve.utils.types import ModelServer

    what = dict(image_uri=image, s3_model_data_url=archive)
    where = dict(role_arn=role, instance_type=INSTANCE_TYPE)
    server = ModelServer.DJL_SERVING  # LMI
    builder = ModelBuilder(**what, **where, model_server=server)
    builder.build(model_name=name)
    builder.deploy(endpoint_name=name, initial_instance_count=1, wait=False)


deploy_and_ask(results, by_the_sdk, INSTANCE_TYPE)

# %% [markdown]
# ## From the old SDK to the new one
#
# The names of the published notebooks, and what stands in their place:

# %%
from helpers.notebook.cloud_library import show_calls

show_calls(results)
print(f"You guessed {GUESS_LEFT:g}.")

# %% [markdown]
# A class for each framework was the old way. Now one `ModelTrainer` trains and one `ModelBuilder` deploys, whatever the container.

# %%
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **A valid form is not a job that works.** Limits of the account, types of instances in a region, and models that a recipe doesn't take are known to AWS alone.
# * **A recipe is not measured on your questions.** Ask for the answers that it breaks (02), not only for its speed.
#
# | you see | do |
# |---|---|
# | "Unknown parameter in input" | boto3 is older than the parameter, or it is misspelled |
# | "You must specify a region" at an import | the SDK makes clients when it is imported: set `AWS_DEFAULT_REGION` |
# | "There is no job for ..." | put it into `serving.properties`: it is an option of the container |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** You have Medusa's heads of your own. How do they come to SageMaker? (a) by an optimization job (b) in the archive, and `option.speculative_config` names them (c) not at all
#
# <details><summary>Answer</summary>
#
# (b): vLLM reads them. (a) trains EAGLE's heads, not yours.
# </details>
#
# **2.** boto3 accepts your request. (a) the job will run (b) its names and kinds are right (c) its values are right
#
# <details><summary>Answer</summary>
#
# (b): names and types are all that it checks before it sends. AWS checks values (c), and only the job shows (a).
# </details>
#
# **3.** Your endpoint has 2 users at a time, and answers come too slowly. The model is in 4 bits already. What do you try first? (a) more sequences at a time (`max_num_seqs`) (b) EAGLE or a draft (c) cutting the weights ahead of time, so that it loads faster
#
# <details><summary>Answer</summary>
#
# (b): few users leave arithmetic idle, and guesses use it. (a) is for more users. (c) makes the start faster, not the answers.
# </details>
#
# **The rule:** name the goal first, then the recipe; check the form before you send it; measure the answers after it.
#
# References: AWS, *SageMaker inference optimization toolkit* (2024); Lin et al., *AWQ* (2023); Xiao et al., *SmoothQuant* (2022); Li et al., *EAGLE* (2024).
