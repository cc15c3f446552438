"""The engines that people use, replaying the same trace: `python -m helpers.engine.other_engines` (notebook 05).

Each has a process of its own, since engines take hold of threads and memory. All get token ids, write greedily, and
ignore end-of-sequence tokens. They share no prefixes, as the course's engine doesn't in this comparison.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from helpers.engine.traffic import Replay, Request, Server, replay
from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.kernels import torch_compile
from helpers.kernels.openmp_team import release_team
from helpers.profiling import llama_cpp_baseline, vllm_baseline
from helpers.profiling.llama_cpp_baseline import GREEDY, LlamaCpp
from helpers.profiling.own_process import exchange, folder_of_command_line

MODULE = "helpers.engine.other_engines"
WARMUP = 3  # requests, before the clock runs
PAGE = 16  # tokens in a block, as ours


def replay_in_own_process(
    kind: str, settings: Mapping, traces: Mapping[str, Sequence[Request]], max_sequences: int = 16
) -> dict[str, Replay]:
    """Traces by name, one after the other, in an engine of `kind`, of KINDS; settings: `model` (a folder, or a GGUF
    file), `dtype`, `compiled`, `num_threads`.

    Raises:
        CourseError: the engine isn't here, or stops.
    """
    if kind == "vllm" and not vllm_baseline.installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    if kind == "llama.cpp":
        llama_cpp_baseline.check_installed()
    request = dict(kind=kind, settings=dict(settings), max_sequences=max_sequences)
    request["traces"] = {name: [asdict(each) for each in trace] for name, trace in traces.items()}
    environment = vllm_baseline.ENVIRONMENT | vllm_baseline.cache_root() if kind == "vllm" else None
    answers = exchange(MODULE, request, name=kind, environment=environment)
    return {name: Replay(**answer) for name, answer in answers.items()}


class Vllm(Server):
    """vLLM's engine, which is asked for step after step, as ours is."""

    def __init__(self, settings: Mapping, longest: int, max_sequences: int):
        if settings["compiled"]:
            torch_compile.prepare()
        from vllm import LLM

        llm = LLM(
            model=settings["model"],
            dtype=settings["dtype"],
            max_model_len=max(1024, longest),
            max_num_seqs=max_sequences,
            seed=0,
            enforce_eager=not settings["compiled"],
            enable_prefix_caching=False,
        )
        self.engine, self.written = llm.llm_engine, {}

    def submit(self, number: int, request: Request) -> None:
        from vllm import SamplingParams

        self.written[number] = 0
        greedy = SamplingParams(temperature=0.0, max_tokens=request.num_tokens, ignore_eos=True)
        self.engine.add_request(str(number), {"prompt_token_ids": list(request.prompt)}, greedy)

    @property
    def busy(self) -> bool:
        return self.engine.has_unfinished_requests()

    def step(self) -> Mapping[int, int]:
        counts = {int(done.request_id): len(done.outputs[0].token_ids) for done in self.engine.step()}
        new = {number: count - self.written[number] for number, count in counts.items()}
        self.written |= counts
        return new


class Waiting(Server):
    """An engine with threads of its own: a step waits for the next tokens to come."""

    def __init__(self):
        self.came: queue.Queue[tuple[int, int] | Exception] = queue.Queue()
        self.left: dict[int, int] = {}

    def submit(self, number: int, request: Request) -> None:
        self.left[number] = request.num_tokens
        self.begin(number, request)

    def begin(self, number: int, request: Request) -> None:
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        return any(self.left.values())

    def step(self) -> Mapping[int, int]:
        found: dict[int, int] = {}
        while not found or not self.came.empty():
            news = self.came.get()
            if isinstance(news, Exception):
                raise news
            number, count = news
            count = min(count, self.left[number])
            self.left[number] -= count
            found[number] = found.get(number, 0) + count
        return found


class InThreads(Waiting):
    """A thread for each request, in which its `tokens` come."""

    def begin(self, number: int, request: Request) -> None:
        threading.Thread(target=self._follow, args=(number, request), daemon=True).start()

    def tokens(self, request: Request) -> Iterable[int]:
        """How many come, each time that some do."""
        raise NotImplementedError

    def _follow(self, number: int, request: Request) -> None:
        try:
            for count in self.tokens(request):
                self.came.put((number, count))
        except Exception as error:  # the replay must not wait for it for ever
            self.came.put(error)


class LlamaCppServer(InThreads):
    """llama.cpp's server with a slot for each sequence, asked for streams over the loopback interface."""

    def __init__(self, settings: Mapping, longest: int, max_sequences: int):
        super().__init__()
        threads = settings["num_threads"]
        self.server = LlamaCpp(settings["model"], capacity=longest, batch_size=max_sequences, num_threads=threads)

    def tokens(self, request: Request) -> Iterable[int]:
        body = dict(GREEDY, n_predict=request.num_tokens, prompt=list(request.prompt), stream=True, ignore_eos=True)
        connection = http.client.HTTPConnection(self.server.address, timeout=llama_cpp_baseline.TIMEOUT)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/completion", json.dumps(body | {"return_tokens": True}), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise CourseError(f"llama.cpp refused a request: {response.read()[:200]!r}")
        for line in response:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if not event.get("stop"):
                    yield len(event["tokens"])
        connection.close()


class HuggingFace(Waiting):
    """transformers' continuous batching (`generate_batch` is its call for prompts that are all there)."""

    def __init__(self, settings: Mapping, longest: int, max_sequences: int):
        super().__init__()
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        from helpers import models

        model, _ = models.load(settings["model"], dtype=settings["dtype"])
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=max_sequences * -(-longest // PAGE) + 1,
            max_batch_tokens=256,
            max_requests_per_batch=max_sequences,
            allow_block_sharing=False,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1)
        self.manager = model.init_continuous_batching(generation_config=greedy, continuous_batching_config=config)
        release_team()  # this thread has loaded the model, and the manager's will compute
        self.manager.start()
        self.written: dict[int, int] = {}
        threading.Thread(target=self._follow, daemon=True).start()

    def begin(self, number: int, request: Request) -> None:
        self.written[number] = 0
        options = dict(max_new_tokens=request.num_tokens, streaming=True, eos_token_id=-1)
        self.manager.add_request(list(request.prompt), request_id=str(number), **options)

    def close(self) -> None:
        self.manager.stop(block=True)

    def _follow(self) -> None:
        while True:
            result = self.manager.get_result(timeout=1.0)
            if result is None:
                if self.manager.background_thread_status.fatal_error is not None:
                    return self.came.put(CourseError("transformers' continuous batching stopped."))
                continue
            if result.error:
                return self.came.put(CourseError(f"transformers' continuous batching: {result.error}"))
            number = int(result.request_id)
            self.came.put((number, len(result.generated_tokens) - self.written[number]))
            self.written[number] = len(result.generated_tokens)


class Generate(Server):
    """transformers' `generate` on batches of padded prompts: each ends with its longest answer, and then all come."""

    def __init__(self, settings: Mapping, longest: int, max_sequences: int):
        from helpers import models

        self.model, self.tokenizer = models.load(settings["model"], dtype=settings["dtype"])
        self.tokenizer.padding_side = "left"
        self.waiting, self.batch_size = deque(), max_sequences

    def submit(self, number: int, request: Request) -> None:
        self.waiting.append((number, request))

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    def step(self) -> Mapping[int, int]:
        batch = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
        inputs = self.tokenizer.pad({"input_ids": [list(r.prompt) for _, r in batch]}, return_tensors="pt")
        most = max(request.num_tokens for _, request in batch)
        self.model.generate(**inputs, min_new_tokens=most, max_new_tokens=most, do_sample=False)
        return {number: request.num_tokens for number, request in batch}


KINDS: dict[str, Callable[[Mapping, int, int], Server]] = {
    "vllm": Vllm,
    "llama.cpp": LlamaCppServer,
    "transformers": HuggingFace,
    "generate": Generate,
}


def main() -> None:
    folder = folder_of_command_line(__doc__.splitlines()[0])
    asked = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    traces = {name: [Request(**each) for each in trace] for name, trace in asked["traces"].items()}
    longest = max(len(each.prompt) + each.num_tokens for trace in traces.values() for each in trace)
    server = KINDS[asked["kind"]](asked["settings"], longest, asked["max_sequences"])
    first = next(iter(traces.values()))
    try:
        replay(server, [Request(0.0, each.prompt, 2) for each in first[:WARMUP]])
        answers = {name: asdict(replay(server, trace)) for name, trace in traces.items()}
    finally:
        server.close()
    write_whole(Path(folder) / "answer.json", json.dumps(answers))


if __name__ == "__main__":
    main()
