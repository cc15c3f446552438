"""What notebook 11b measures: servers beside each other, a model that comes from the disk, a mixture of experts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.measuring.timing import speedup, take_turns
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.serving_bench import ROOM, SEATS
from helpers.notebook.serving_sizes import BackendSizes
from helpers.notebook.step_times import note_speedup
from helpers.profiling.llama_cpp_baseline import LlamaCpp
from helpers.profiling.opponents import written_files, written_folder
from helpers.serving import client
from helpers.serving.bench import LANGUAGES
from helpers.serving.load_test import Load, offer
from helpers.serving.run import Settings, make_worker, running
from helpers.serving.vllm_server import vllm_serve
from helpers.speculation.medusa_files import load as load_heads
from helpers.speculation.medusa_files import save as save_heads
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

LOOKUP = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
WORDS = {
    "ours_medusa": "ours, Medusa",
    "vllm": "vLLM",
    "vllm_medusa": "vLLM, Medusa",
    "vllm_lookup": "vLLM, prompt lookup",
    "llama_cpp": "llama.cpp",
}


@dataclass(frozen=True)
class BackendsBench:
    """The fine-tuned model on the disk, as each server wants it, and questions."""

    model: nn.Module
    tokenizer: object
    name: str
    dtype: str
    prompts: Sequence[str]
    sizes: BackendSizes

    @classmethod
    def of(cls, lesson: Lesson, sizes: BackendSizes) -> BackendsBench:
        """In bfloat16, which all of them take."""
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        lesson.results.add_models(models.parts_of(name))
        model, tokenizer = models.load(name, dtype="bfloat16")
        prompts = [prompt_for(tokenizer, example) for example in load_split("test", limit=sizes.prompts)]
        return cls(model, tokenizer, name, "bfloat16", prompts, sizes)

    def folder(self) -> Path:
        return written_folder(self.model, self.tokenizer, self.name)

    def heads(self) -> tuple[Path, int]:
        """The course's heads as vLLM reads them, and how many they are."""
        heads, folder = load_heads("medusa", self.model), build_root() / "artifacts" / "heads_for_vllm"
        save_heads(heads, folder, self.name)
        return folder, heads.count

    @contextmanager
    def ours(self, medusa: str | None = None) -> Iterator[str]:
        with running(make_worker(Settings(self.name, medusa, ROOM, SEATS)), "served") as url:
            yield url

    @contextmanager
    def llama_cpp(self) -> Iterator[str]:
        [path] = written_files(self.model, self.name, ["BF16"]).values()
        other = LlamaCpp(path, capacity=ROOM, batch_size=SEATS, num_threads=torch.get_num_threads())
        yield f"http://{other.address}"

    def servers(self) -> dict[str, Callable]:
        """By name, what starts each other server."""
        found = {"ours_medusa": lambda: self.ours("medusa"), "llama_cpp": self.llama_cpp}
        if self.sizes.vllm:
            heads, count = self.heads()
            chain = {"method": "medusa", "model": str(heads), "num_speculative_tokens": count}
            options = dict(dtype=self.dtype, longest=ROOM, seats=SEATS)
            for name, speculative in (("vllm", None), ("vllm_medusa", chain), ("vllm_lookup", LOOKUP)):
                found[name] = lambda s=speculative: vllm_serve(self.folder(), speculative=s, **options)
        return found

    def ask(self, url: str, users: int) -> Load:
        spoken = LANGUAGES["openai"]
        bodies = [spoken.body(text, self.sizes.longest, "served") for text in self.prompts]
        return offer(url + spoken.path, bodies, 1.0, spoken.piece, in_flight=users)


def compare_backends(results: Results, bench: BackendsBench) -> dict[str, dict[int, tuple[Load, Load]]]:
    """Each server beside ours, with the same client and questions, in turns: ours, the other, ours, the other, of
    which the first turn warms up. Writes tokens a second, and how many answers are ours."""
    print(f"{'':22}{'users':>6}{'tokens/s':>10}{'ours':>8}{'between tokens (ms)':>22}{'ours':>8}{'the same':>12}")
    found: dict[str, dict[int, tuple[Load, Load]]] = {}
    with bench.ours() as url:
        for name, start in bench.servers().items():
            try:
                with start() as other:
                    found[name] = {users: _beside(bench, url, other, users) for users in bench.sizes.users}
            except CourseError as reason:
                say(f"{WORDS[name]}: {reason}")
                continue
            for users, (ours, theirs) in found[name].items():
                _note_pair(results, name, users, ours, theirs)
    return found


def _beside(bench: BackendsBench, url: str, other: str, users: int) -> tuple[Load, Load]:
    for _ in range(2):
        ours, theirs = bench.ask(url, users), bench.ask(other, users)
    return ours, theirs


def _note_pair(results: Results, name: str, users: int, ours: Load, theirs: Load) -> None:
    same = sum(a.ok and a.text == b.text for a, b in zip(theirs.samples, ours.samples, strict=True))
    n, of = len(theirs.done), len(theirs.samples)
    rates = [load.output_token_throughput for load in (theirs, ours)]
    gaps = [1e3 * load.statistics("inter_token_latency")["p50"] for load in (theirs, ours)]
    results.metric(f"backends.tokens_per_second.{name}.users_{users}", rates[0], "tokens/s", n=n)
    results.metric(f"backends.tokens_per_second_of_ours.{name}.users_{users}", rates[1], "tokens/s", n=of)
    results.metric(f"backends.same_answers.{name}.users_{users}", same / of, "share", n=of)
    print(f"{WORDS[name]:22}{users:6}{rates[0]:10.0f}{rates[1]:8.0f}{gaps[0]:22.1f}{gaps[1]:8.1f}", end="")
    print(f"{f'{same} of {of}':>12}")


def compare_beams(results: Results, bench: BackendsBench, width: int = 4) -> None:
    """The best answer of a beam search by our server and by vLLM's; writes how many are the same."""
    if not bench.sizes.vllm:
        return print("vLLM's server is left out under this profile: it takes a minute to start.")
    asked = bench.prompts[: bench.sizes.beams]
    body = dict(max_tokens=bench.sizes.longest, temperature=0, n=width, use_beam_search=True, model="served")
    best = []
    with ExitStack() as servers:
        options = dict(dtype=bench.dtype, longest=ROOM, seats=SEATS)
        for start in (bench.ours(), vllm_serve(bench.folder(), **options)):
            url = servers.enter_context(start)
            answers = [httpx.post(f"{url}/v1/completions", json=body | {"prompt": p}, timeout=600) for p in asked]
            best.append([client.checked(answer).json()["choices"][0]["text"] for answer in answers])
    same = sum(a == b for a, b in zip(*best, strict=True))
    results.metric("backends.same_beams.vllm", same / len(asked), "share", n=len(asked))
    print(f"{same} of {len(asked)} best answers of {width} beams are the same in our server and in vLLM's.")


def compare_offload(results: Results, sizes: BackendSizes) -> None:
    """A step that reads one token: the weights in memory, and read from the disk in each step by Accelerate; writes
    the ratio, and what stays in memory."""
    from accelerate import disk_offload

    held = models.shape_only(sizes.shape)
    ids = torch.tensor([[5]])
    with tempfile.TemporaryDirectory(dir=build_root()) as folder:
        away = disk_offload(models.shape_only(sizes.shape), folder, execution_device=torch.device("cpu"))
        arms = {"memory": lambda: _one(held, ids), "disk": lambda: _one(away, ids)}
        seconds = take_turns(arms, sizes.rounds, warmup=1)
        whole = sum(p.nbytes for p in held.parameters())
        kept = sum(p.nbytes for p in away.parameters() if p.device.type != "meta")
    gain = note_speedup(
        results, "backends.offload_speedup.disk", speedup(seconds["memory"], seconds["disk"], of=np.median)
    )
    results.metric("backends.offload_memory", kept / whole, "share")
    print(f"{sizes.shape}: {whole / 1e6:.0f} MB of weights, {kept / whole:.0%} of them stay in memory.")
    print(f"A step with weights from the disk, against weights in memory: {gain}")


@torch.inference_mode()
def _one(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


def mixture(tokenizer, experts: int, folder: Path, seed: int = 0) -> tuple[Path, Path, Mapping[str, int]]:
    """Two models with random weights, as folders: Mixtral's architecture, of whose experts each token takes two, and a
    dense Mistral whose MLP is as large as two of them; and the weights of each."""
    from transformers import AutoModelForCausalLM, MistralConfig, MixtralConfig

    common = dict(
        vocab_size=len(tokenizer),
        hidden_size=768,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=4,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    configs = {
        "experts": MixtralConfig(**common, intermediate_size=1024, num_local_experts=experts, num_experts_per_tok=2),
        "dense": MistralConfig(**common, intermediate_size=2048),
    }
    counts = {}
    for name, config in configs.items():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        counts[name] = sum(p.numel() for p in model.parameters())
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "experts", folder / "dense", counts


def compare_experts(results: Results, bench: BackendsBench) -> dict[int, float]:
    """Both models served by vLLM, at each number of users; writes how many times as many tokens a second the dense one
    writes, and the ratio of the weights."""
    if not (bench.sizes.vllm and bench.sizes.experts):
        print("The mixture of experts is left out under this profile: it is served by vLLM.")
        return {}
    with tempfile.TemporaryDirectory(dir=build_root()) as place:
        experts, dense, counts = mixture(bench.tokenizer, bench.sizes.experts, Path(place))
        options, found = dict(dtype=bench.dtype, longest=ROOM, seats=SEATS), {}
        with vllm_serve(experts, **options) as first, vllm_serve(dense, **options) as second:
            for users in bench.sizes.users:
                sparse, whole = _beside(bench, first, second, users)
                found[users] = sparse.output_token_throughput / whole.output_token_throughput
                results.metric(f"backends.experts_speed.users_{users}", found[users], "ratio", n=len(sparse.done))
    ratio = counts["experts"] / counts["dense"]
    results.metric("backends.experts_weights", ratio, "ratio")
    print(f"{counts['experts'] / 1e6:.0f} million weights, {ratio:.1f} times the dense model's, the same work a token.")
    for users, speed in found.items():
        print(f"{users:>3} users: {speed:.2f} times the dense model's tokens a second")
    return found
