# ---
# jupyter:
#   course:
#     minutes: 6
#     headline: >-
#       Training jobs and endpoints by boto3, on this machine or on AWS: with Medusa's heads answers are
#       {sagemaker.speedup:.2f} times as fast on average (P90 {sagemaker.p90_latency_s.fine_tuned:.2f} s without,
#       {sagemaker.p90_latency_s.medusa:.2f} s with them); {sagemaker.identical_outputs.count} of
#       {sagemaker.identical_outputs.of} answers are the same. {sagemaker.no_endpoints_left.count} of
#       {sagemaker.no_endpoints_left.of} endpoints were deleted, one of them after an error in a `with` block
# ---

# %% [markdown] tags=["card"]
# # 12 · SageMaker
#
# **Somebody else's machines train and serve the model. What does one send, and what comes back?**
#
# | | |
# |---|---|
# | previous, next | 11 serving, 13 stack it up (planned); extra: 12b optimization jobs |
# | the term it attacks | none: it shows what the others are worth in dollars |
# | you will be able to | run training jobs, deploy, ask and delete endpoints through boto3; read a price of a million tokens, and say what it leaves out |
# | time | 40 minutes for you without the exercises, which take 15 more; about 6 for the machine under the profile `cpu` |
# | memory | 12 GiB |

# %% [markdown] tags=["predict"]
# ## Before you measure
#
# Notebook 08 measured what Medusa's heads bring (look up your number). Here HTTP, a service that passes requests on and a server lie between the client and the model. The model is in float32, and the heads guess a chain, not a tree.
#
# 1. How many times as fast is an answer with heads, as the client sees it?
# 2. A published formula for throughput divides the number of users by the time between two tokens. Another throughput comes from the clock: all tokens over all seconds. With 16 users, how many times is the first the second?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # how much is measured: smoke, cpu, full or gpu
MODEL_ID: str = "base"  # the course's model, a folder, or owner/name of the Hub
SEED: int = 0  # of everything random
BACKEND: str = ""  # local or aws; empty: COURSE_BACKEND, or local
AT_MOST_DOLLARS: float = 0.0  # what you allow on AWS
HOURS: float = 1.0  # after which everything on AWS is deleted
INSTANCE_TYPE: str = "ml.g5.2xlarge"  # rented on AWS, recorded locally
DISCOUNT: float = 0.0  # of the price of an hour, 0 to 1
GUESS_SPEEDUP: float = 1.3  # your guess: heads, through an endpoint
GUESS_FORMULA: float = 1.5  # your guess: throughput by the formula over the clock's

# %%
import helpers
from helpers.notebook.cloud_sizes import CLOUD

options = dict(profile=PROFILE, model_id=MODEL_ID, seed=SEED)
lesson = helpers.start("12_sagemaker", **options)
results, sizes = lesson.results, CLOUD[PROFILE]
results.prediction("sagemaker.speedup", GUESS_SPEEDUP, "x")
results.prediction("sagemaker.formula_over_clock", GUESS_FORMULA, "ratio")

# %% [markdown] tags=["build"]
# ## The same code, two backends
#
# SageMaker has a **control plane** (create this, describe that) and a **runtime** (ask this endpoint). Both are HTTP, and **boto3**, AWS' Python library, speaks it. Here a small service on this machine speaks it, too. It starts real training jobs and real servers, as processes.
#
# A few words of AWS:
#
# | word | what it is | here |
# |---|---|---|
# | instance | a rented machine, paid by the hour | its type is recorded, without effect |
# | S3, bucket | storage; a bucket is like a disk, with addresses `s3://bucket/path` | a folder |
# | container | a packed system with a server in it | its address is recorded; 11's server answers |
# | role | what SageMaker may do in your name | recorded |
# | region | which data centre | none |
#
# So `connect` gives boto3's own clients, and all code after it is the same for both. AWS is taken only if you ask for it by name.

# %%
from contextlib import ExitStack

from helpers.cloud.budget import Budget
from helpers.cloud.clients import connect

plan = {INSTANCE_TYPE: 6}  # three endpoints and three jobs
budget = Budget(AT_MOST_DOLLARS, HOURS, plan)
print("On AWS:", budget)
session = ExitStack()
cloud = session.enter_context(connect(BACKEND, budget))
print("Backend:", cloud.backend, cloud.sagemaker.meta.endpoint_url)

# %% [markdown]
# On AWS you need credentials and a region (`aws configure`), a bucket (`COURSE_S3_BUCKET`), and a role that SageMaker may take (`COURSE_SAGEMAKER_ROLE`). Nothing is sent before you allow the estimate (`AT_MOST_DOLLARS`) and type yes.
#
# Every resource is written down before it is created. So all of it can be deleted, even if the kernel dies: `python -m helpers cloud cleanup`. A process beside the kernel does that when the hours are over. (This machine must stay switched on for it. Look at AWS' console afterwards.)
#
# ## What a request looks like on the wire
#
# The control plane takes JSON, with the operation in a header:

# %%
import json

import httpx

if cloud.backend == "local":
    target = {"X-Amz-Target": "SageMaker.DescribeEndpoint"}
    body = {"EndpointName": "nobody"}
    answer = httpx.post(cloud.url, json=body, headers=target)
    print(answer.status_code, answer.headers["x-amzn-errortype"])
    print(answer.json()["message"])

# %% [markdown]
# boto3 makes an exception of that:

# %%
from botocore.exceptions import ClientError

try:
    cloud.sagemaker.describe_endpoint(EndpointName="nobody")
except ClientError as error:
    print(error.response["Error"]["Code"])

# %% [markdown]
# A streamed answer is AWS' **event stream**, a binary format. Each message is:
#
# | bytes | what |
# |---|---|
# | 4 | length of the whole message, these bytes included |
# | 4 | length of the headers |
# | 4 | checksum of the 8 bytes before |
# | ... | headers |
# | ... | payload |
# | 4 | checksum of all bytes before |
#
# Numbers are big-endian (the most significant byte first), and checksums are CRC-32. boto3 brings a parser, but no writer: our service needs one.
#
# **Exercise 12.1** (10 minutes) *Why it matters: you will read such bytes when a stream stalls. A wrong checksum is reported; with a wrong length boto3 waits for more.*
#
# Return the message for `headers` that are encoded already, and a `payload` (both bytes).


# %%
from zlib import crc32

from helpers.notebook.exercises import check, hint, solution


def my_frame(headers, payload):
    return None  # your code; crc32(data) is a number


# hint("12.1")  # uncomment for help; solution("12.1") shows the course's own
frame = check("12.1", my_frame)
print(frame(b"", b"hello").hex(" "))

# %% [markdown]
# Does boto3's own parser take it?

# %%
from botocore.eventstream import EventStreamBuffer

from helpers.cloud.event_stream import payload_part

buffer = EventStreamBuffer()
buffer.add_data(frame(b"", b"hello") + payload_part(b'{"token"'))
print([(event.headers, event.payload) for event in buffer])

# %% [markdown]
# ## What a million tokens cost
#
# An instance costs dollars an hour, busy or not. The **blended price** of SageMaker's inference optimization toolkit divides that by the tokens of an hour. Tokens a second are taken as users over the median time between tokens. And for each token of an answer, three tokens of a prompt are counted (the ratio of its charts).
#
# **Exercise 12.2** (5 minutes) *Why it matters: three tokens of a prompt beside each token of an answer make four that are sold. That alone divides the price by four.*
#
# Return dollars per million tokens, prompts and answers together. `discount` is the share that is taken off.


# %%
def my_price(per_hour, tokens_per_second, input_to_output, discount):
    return None  # your code


# hint("12.2")  # solution("12.2")
price = check("12.2", my_price)
print(f"${price(63.296, 2400, 3, 0):.2f} at $63.296 an hour and 2400 tokens/s")

# %% [markdown] tags=["library"]
# ## Which container?
#
# AWS keeps containers for each way of serving. Its Python SDK (the package `sagemaker`, above boto3) knows their addresses, without a network. **LMI** means large-model inference, with vLLM inside. In AWS' own notebook Medusa ran in **TGI**, which is in maintenance today; in LMI vLLM reads Medusa's heads.

# %%
from helpers.notebook.cloud_bench import CloudBench
from helpers.notebook.cloud_library import other_images

bench = CloudBench.of(lesson, cloud, INSTANCE_TYPE, sizes)
print("LMI     ", bench.image)
for name, uri in other_images(INSTANCE_TYPE, cloud.region).items():
    print(f"{name:8} {uri}")

# %% [markdown]
# ## Two training jobs
#
# A **training job** is a container, a script, hyperparameters and **channels** (folders of data). SageMaker sets variables such as `SM_CHANNEL_TRAIN` and `SM_MODEL_DIR`. What the script leaves in the latter becomes `model.tar.gz`.
#
# The first job fine-tunes the base with LoRA (03). The second one trains heads (08) on the model that the first has made: its adapter is a channel. Both run the scripts of these notebooks, in processes of their own.

# %%
from helpers.notebook.cloud_jobs import draw_losses, train_both

folder = train_both(results, bench)
print(sorted(path.name for path in folder.rglob("*") if path.is_file()))

# %% [markdown]
# The script writes its loss for TensorBoard, and SageMaker keeps that in S3. After so few steps it only begins to fall:

# %%
draw_losses(bench)

# %% [markdown]
# What does such a request look like? Here is one whose hyperparameter makes no sense:

# %%
from helpers.cloud.jobs import training_request
from helpers.notebook.cloud_jobs import upload_code

name = bench.named("wrong")
code = upload_code(bench, "helpers.training.fine_tune_llm")
wrong = {"method": "lorra"}
given = dict(instance_type=INSTANCE_TYPE, longest=600)
request = training_request(cloud, name, code, wrong, {}, **given)
shown = ("TrainingJobName", "HyperParameters", "ResourceConfig", "OutputDataConfig")
print(json.dumps({key: request[key] for key in shown}, indent=1))

# %% [markdown]
# `cloud.create("training_job", ...)` is boto3's `create_training_job`, written down first. The job fails, and its reason is the script's own sentence:

# %%
from helpers.cloud.jobs import follow
from helpers.errors import CourseError

cloud.create("training_job", **request)
try:
    for line in follow(cloud, name):
        print(line)
except CourseError as reason:
    print(reason)

# %% [markdown] tags=["measure"]
# ## Three endpoints
#
# These jobs took a few steps, to show how it goes. The endpoints get the base, and the course's own fine-tuned model, without heads and with them: the same scripts made it with more steps.
#
# Each endpoint needs three things. A **model** is a container with an archive. A **configuration** says how many instances of which type. The **endpoint** is what one asks. The archive holds `serving.properties`, which LMI reads (11's server, which answers here in LMI's place, takes the same file):

# %%
from helpers.notebook.cloud_bench import create_model, pack_container, upload_models
from helpers.serving.backends import serving_properties

containers = upload_models(bench)
names = []
for name, properties in containers.items():
    archive = pack_container(bench, properties)
    names.append(create_model(bench, name, archive))
print(serving_properties(properties))

# %% [markdown]
# Everything is in float32: in 16 bits near ties may fall either way, and answers could not be compared word for word. And no server keeps a prompt for the next request, so that each answer counts its own prefill.
#
# All endpoints start at the same time:

# %%
for name in names:
    variants = [bench.variant(name)]
    config = dict(EndpointConfigName=name, ProductionVariants=variants)
    cloud.create("endpoint_config", **config)
    cloud.create("endpoint", EndpointName=name, EndpointConfigName=name)

waiter = cloud.sagemaker.get_waiter("endpoint_in_service")
for name in names:
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 2, "MaxAttempts": 900})
    print(name, "is in service")
print(json.dumps(variants, indent=1))

# %% [markdown]
# The same question to all of them:

# %%
print(bench.examples[0].question)
parameters = {"max_new_tokens": sizes.longest}
body = json.dumps({"inputs": bench.prompts[0], "parameters": parameters})
for name in names:
    asked = dict(EndpointName=name, ContentType="application/json", Body=body)
    answer = cloud.runtime.invoke_endpoint(**asked)
    text = json.loads(answer["Body"].read())["generated_text"]
    print(f"{name:22}{' '.join(text.split())[:66]}")

# %% [markdown]
# ## Are the heads worth it, through an endpoint?
#
# The same requests to both endpoints, one after the other, in turns:

# %%
from helpers.notebook.cloud_requests import compare_endpoints

compare_endpoints(results, bench)
print(f"You guessed {GUESS_SPEEDUP:g}.")

# %% [markdown]
# The way to the model and back takes a fixed time, with heads or without. So the ratio is a little smaller than at the model itself, and smaller still for short answers. (P90 is what the slowest tenth waits at least.)
#
# ## A stream, and why it ended
#
# `invoke_endpoint_with_response_stream` gives payload parts, and the container's lines may be cut anywhere. The line iterator of notebook 11 puts them together.

# %%
from helpers.cloud.streams import invoke_chained, invoke_stream

asked = (cloud.runtime, bench.named("fine_tuned"), bench.prompts[1])
for told in invoke_stream(*asked, max_new_tokens=sizes.longest):
    print(told.pieces[-1], end="|")
print(f"\nended by {told.finish_reason!r}, confidence {told.confidence:.3f}")

# %% [markdown]
# An endpoint has a minute for a plain answer. A long one takes several requests, each of which goes on where the last was cut off. (A limit of 6 tokens stands for the minute here.)

# %%
parts = invoke_chained(*asked, 6, sizes.longest)
print(*(part.finish_reason for part in parts))
print("".join(part.text for part in parts) == told.text)

# %% [markdown]
# ## Price over concurrency
#
# More users at a time share each step (05), so an hour gives more tokens. On AWS these are real prices. **Here they are a simulation**: what a million tokens would cost if the named instance were as fast as this machine. The throughput, and how much cheaper one curve is than another, are measured.

# %%
from helpers.cloud.prices import Prices
from helpers.notebook.cloud_requests import draw_prices, price_over_concurrency

found = price_over_concurrency(results, bench, Prices.read(), DISCOUNT)
print(f"You guessed {GUESS_FORMULA:g}.")

# %%
draw_prices(found)

# %% [markdown]
# The formula knows only the time between tokens. A user's wait for the first token is not in it; the clock has it. So the formula's price is too low. (The clock counts while everybody's place is taken. Both prices assume three tokens of a prompt for each of an answer, whatever these prompts are like.)
#
# And the heads? With many users they bring less, or cost (05): their guesses are tokens of the step, too, and many users leave nothing idle.
#
# ## Two models on one endpoint
#
# **Inference components** put several models on the instances of one endpoint, each with its own share of the memory. A request names its component. (On AWS each of ours needs a GPU: take an instance with two.)

# %%
from helpers.notebook.cloud_requests import two_on_one_endpoint

two_on_one_endpoint(bench, containers)

# %% [markdown]
# ## Delete all of it
#
# An endpoint costs as long as it is there. `session.close()` deletes everything. If a cell above fails, its endpoints stay, and cost: then run this cell, or the command. A script can do better: in a `with` block all is deleted even if a line in it fails. Here is such a block, too:

# %%
from helpers.notebook.cloud_requests import prove_clean_up

prove_clean_up(results, bench)
session.close()
results.write()
results.assert_invariants()

# %% [markdown] tags=["limits"]
# ## When it loses
#
# * **Few requests.** An endpoint costs the same if nobody asks. A price per token of somebody else's model is cheaper then.
# * **A speedup of one user isn't one of many.** Heads use compute that is idle. With many users it isn't.
# * **Local is not AWS.** Start-up here takes seconds, there minutes. A job that is stopped may end by itself there. Limits of an account, networks and permissions can't be seen here.
#
# | you see | do |
# |---|---|
# | `ModelError` | read the sentence behind it: it is the container's own |
# | "did not pass the ping health check" | the reason behind it, or the endpoint's log |
# | "already existing endpoint" | delete it, or take another name |
# | "wants AWS credentials and a region" | `aws configure`, or leave `BACKEND` empty |
# | "more than ... you allow" | fewer instances, fewer hours, or a larger `AT_MOST_DOLLARS` |

# %% [markdown] tags=["decide"]
# ## Decide
#
# **1.** The blended price in one chart is a quarter of that in another: same model, same instance, same speed. What do you ask first? (a) which discount, and which ratio of prompts to answers (b) which questions (c) which region
#
# <details><summary>Answer</summary>
#
# (a): both are factors of the formula. Three tokens of a prompt that are counted, or 75 % off, make a quarter. (b) would change the speed. (c) changes the price of an hour, but not that much.
# </details>
#
# **2.** A notebook creates an endpoint, and then its kernel dies. (a) SageMaker deletes the endpoint (b) it costs until somebody deletes it (c) it costs only when it is asked
#
# <details><summary>Answer</summary>
#
# (b): it belongs to the account, not to the kernel. So what is created has to be written down before. (c) is true of *serverless* endpoints, which run only while they are asked.
# </details>
#
# **3.** Heads make the answers of a single user clearly faster. Your endpoint always has 16 users at a time. (a) take them (b) measure with 16 users (c) leave them out
#
# <details><summary>Answer</summary>
#
# (b): guesses compete with the other users for the same step. Which wins depends on the machine and on how good the guesses are.
# </details>
#
# **The rule:** measure through the endpoint, at the number of users that you have; say which price you mean; delete what you create.
#
# **What limits it now:** each technique was measured alone. 13 stacks them.
#
# References: AWS, *Achieve up to ~2x higher throughput while reducing costs by ~50% for generative AI inference on Amazon SageMaker* (2024); AWS, *Achieve ~2x speed-up in LLM inference with Medusa-1 on Amazon SageMaker AI* (2025); Cai et al., *Medusa* (2024).
