"""The same weights in llama.cpp: `python -m helpers.profiling.llama_cpp_baseline` (notebook 08b).

The wheel `xllamacpp` holds llama.cpp's server, which runs in a thread of its process and is asked over the loopback
interface: about a millisecond a request. The wheel is compiled for any CPU with AVX2. A build for the very machine may
be faster, where that has AVX-512 or AMX.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from helpers.errors import CourseError
from helpers.profiling.own_process import Answers, Request, Workload, ask

MODULE = "helpers.profiling.llama_cpp_baseline"
GREEDY = dict(temperature=0.0, samplers=["top_k"], top_k=1)
TIMEOUT = 600  # seconds for a request


def installed() -> bool:
    """Whether llama.cpp is here, as the wheel xllamacpp brings it."""
    return importlib.util.find_spec("xllamacpp") is not None


def run(path: Path, workloads: Mapping[str, Workload], *, num_threads: int, exact: bool = False) -> dict[str, Answers]:
    """Answer workloads with a GGUF file; `exact` is as LlamaCpp has it. What llama.cpp counts are its own milliseconds:
    `prompt_ms` of all prefills, `predicted_ms` of the steps after them."""
    check_installed()
    settings = dict(path=str(path), num_threads=num_threads, exact=exact)
    return ask(MODULE, settings, workloads, name="llama.cpp")


def check_installed() -> None:
    if not installed():
        raise CourseError("llama.cpp is not installed here: `make setup` brings its wheel. The rest runs without it.")


class LlamaCpp:
    """llama.cpp's server for one file, in a thread of this process.

    It has room for `batch_size` requests at a time, of `capacity` tokens each, and keeps nothing of one for the next.
    Its KV cache is of float16, as llama.cpp makes it by itself; with `exact` it is of float32.
    """

    def __init__(
        self, path: str | Path, *, capacity: int, batch_size: int = 1, num_threads: int = 1, exact: bool = False
    ):
        check_installed()
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_parallel = batch_size
        parameters.n_ctx = batch_size * -(-capacity // 256) * 256  # each request has its share
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = num_threads
        parameters.cache_prompt, parameters.cache_ram_mib = False, 0
        parameters.verbosity = -1
        if exact:
            parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        try:
            self.server = xllamacpp.Server(parameters)
        except Exception as error:
            raise CourseError(f"llama.cpp can't read {Path(path).name} ({error}): write it anew.") from None
        self.address = urlsplit(self.server.listening_address).netloc
        self.milliseconds = {"prompt_ms": 0.0, "predicted_ms": 0.0}

    def post(self, path: str, body: Mapping[str, object]):
        """The server's answer to a request, as JSON. CourseError where it refuses, a prompt that is too long, say."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)  # the server closes idle ones
        connection.request("POST", path, json.dumps(dict(body)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status != 200:
            reason = answer.get("error", {}).get("message", response.reason)
            raise CourseError(f"llama.cpp refused the request ({reason}): make its capacity larger.")
        return answer

    def answer(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        body = dict(GREEDY, n_predict=max_new_tokens, return_tokens=True, cache_prompt=False)
        prompt = list(prompts[0]) if len(prompts) == 1 else [list(ids) for ids in prompts]
        answers = self.post("/completion", body | {"prompt": prompt})
        answers = answers if isinstance(answers, list) else [answers]
        for key in self.milliseconds:
            self.milliseconds[key] += sum(answer["timings"][key] for answer in answers)
        return [answer["tokens"] for answer in sorted(answers, key=lambda answer: answer["index"])]

    def log_probs(self, prompt: Sequence[int], max_new_tokens: int, count: int = 5) -> list[dict[int, float]]:
        """For each token of the greedy answer, the `count` most probable tokens and their log-probabilities."""
        body = dict(GREEDY, n_predict=max_new_tokens, n_probs=count, cache_prompt=False, prompt=list(prompt))
        places = self.post("/completion", body)["completion_probabilities"]
        return [{top["id"]: top["logprob"] for top in place["top_logprobs"]} for place in places]

    def counts(self) -> dict:
        return dict(self.milliseconds)


def engines(request: Request) -> Iterator[tuple[str, str, LlamaCpp]]:
    """A server for each workload, of its size: the room for a batch must not cost single requests anything."""
    settings = request.settings
    for key, load in request.workloads.items():
        options = {name: settings[name] for name in ("num_threads", "exact")}
        yield key, key, LlamaCpp(settings["path"], capacity=load.longest, batch_size=load.batch_size, **options)


def main() -> None:
    request = Request.of_command_line(__doc__.splitlines()[0])
    request.reply(engines(request))


if __name__ == "__main__":
    main()
