"""What notebook 11b measures: servers beside each other, a model that comes from the disk, a mixture of experts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.kernels import torch_compile
from helpers.measuring.timing import Comparison, speedup, take_turns
from helpers.notebook.backend_sizes import BackendSizes
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.serving_bench import ROOM
from helpers.notebook.step_times import note_speedup
from helpers.profiling.llama_cpp_baseline import LlamaCpp
from helpers.profiling.opponents import heads_for, written_files, written_folder
from helpers.serving import client
from helpers.serving.bench import LANGUAGES
from helpers.serving.course_server import course_serve
from helpers.serving.load_test import Load, offer
from helpers.serving.run import Settings
from helpers.serving.vllm_server import vllm_serve
from helpers.speculation.medusa_files import load as load_heads
from helpers.speculation.medusa_files import save as save_heads
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

DTYPE = "bfloat16"  # which all of them take
CALM = 1.5  # seconds: vLLM's processes poll for a second after their last request
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
    """The fine-tuned model, as each server wants it, and questions."""

    model: nn.Module
    tokenizer: object
    name: str
    device: str
    prompts: Sequence[str]
    sizes: BackendSizes

    @classmethod
    def of(cls, lesson: Lesson, sizes: BackendSizes) -> BackendsBench:
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        lesson.results.add_models(models.parts_of(name))
        model, tokenizer = models.load(name, dtype=DTYPE)
        prompts = [prompt_for(tokenizer, example) for example in load_split("test", limit=sizes.prompts)]
        return cls(model, tokenizer, name, lesson.device, prompts, sizes)

    @property
    def seats(self) -> int:
        return max(self.sizes.users)

    def ours(self, medusa: str | None = None) -> AbstractContextManager[str]:
        places = dict(longest=ROOM, seats=self.seats, max_open=4 * self.seats)
        own = dict(dtype=DTYPE, device=self.device, share_prefixes=False)
        return course_serve(Settings(self.name, medusa, name="served", **places, **own))

    def vllm(self, folder: Path | None = None, speculative: Mapping | None = None) -> AbstractContextManager[str]:
        place = folder or written_folder(self.model, self.tokenizer, self.name)
        return vllm_serve(place, dtype=DTYPE, longest=ROOM, seats=self.seats, speculative=speculative)

    def vllm_medusa(self) -> AbstractContextManager[str]:
        """With the course's heads over all tokens: vLLM's server can't read the fewer that they guess among."""
        heads, folder = load_heads("medusa", self.model), build_root() / "artifacts" / "heads_over_all_tokens"
        save_heads(over_all_tokens(heads, self.model.get_output_embeddings().weight), folder, self.name)
        return self.vllm(speculative={"method": "medusa", "model": str(folder), "num_speculative_tokens": heads.count})

    @contextmanager
    def llama_cpp(self) -> Iterator[str]:
        [path] = written_files(self.model, self.name, ["BF16"]).values()
        server = LlamaCpp(path, capacity=ROOM, batch_size=self.seats, num_threads=torch.get_num_threads())
        yield f"http://{server.address}"

    def servers(self) -> dict[str, Callable[[], AbstractContextManager[str]]]:
        """By name, what starts each other server."""
        heads = heads_for(self.name)
        found = {"ours_medusa": lambda: self.ours(heads)} if heads else {}
        if self.device == "cpu":
            found["llama_cpp"] = self.llama_cpp
        if self.sizes.vllm:
            found["vllm"] = self.vllm
            found |= {"vllm_medusa": self.vllm_medusa} if heads else {}
            found["vllm_lookup"] = lambda: self.vllm(speculative=LOOKUP)
        return found

    def ask(self, url: str, users: int, **more) -> Load:
        """So many requests that nobody's place is empty for long; all of them answered, else CourseError."""
        spoken, count = LANGUAGES["openai"], max(8, 4 * users)
        texts = [self.prompts[k % len(self.prompts)] for k in range(count)]
        bodies = [spoken.body(text, self.sizes.longest, "served") | more for text in texts]
        time.sleep(CALM if self.sizes.vllm else 0)
        load = offer(url + spoken.path, bodies, 1.0, spoken.piece, in_flight=users)
        if len(load.done) < count:
            raise CourseError(f"{count - len(load.done)} of {count} requests were not answered.")
        return load


def over_all_tokens(heads: MedusaHeads, lm_head: torch.Tensor) -> MedusaHeads:
    """The same blocks, with guesses among all tokens."""
    full = MedusaHeads(lm_head, heads.count, heads.layers)
    with torch.no_grad():
        for ours, theirs in zip(full.blocks(), heads.blocks(), strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                mine.copy_(other)
    return full


@dataclass(frozen=True)
class Pair:
    """A server beside ours: tokens per second and milliseconds between tokens of both, ours first, how many times as
    fast ours is, and how many of the answers are ours."""

    rates: tuple[float, float]
    gaps: tuple[float, float]
    gain: Comparison
    same: int
    of: int


def compare_backends(results: Results, bench: BackendsBench) -> dict[str, dict[int, Pair]]:
    """Each server beside ours, with the same client and questions, in turns. Writes tokens a second, how many times as
    fast ours is, and how many answers are the same."""
    if bench.sizes.vllm:
        print("vLLM runs", f"uncompiled: {why}" if (why := torch_compile.why_not()) else "compiled.")
    columns = f"{'users':>6}{'the other':>14}{'ours, plain':>14}{'the same':>11}"
    print(f"{'tokens/s and ms between tokens':32}{columns}  ours over it")
    found: dict[str, dict[int, Pair]] = {}
    with bench.ours() as url:
        for name, start in bench.servers().items():
            try:
                with start() as other:
                    found[name] = {users: _beside(bench, url, other, users) for users in bench.sizes.users}
            except CourseError as reason:
                say(f"{WORDS[name]}: {reason}")
                continue
            for users, pair in found[name].items():
                _note_pair(results, name, users, pair)
    _note_heads(results, found)
    return found


def _note_heads(results: Results, found: Mapping[str, Mapping[int, Pair]]) -> None:
    """Heads against heads: each side was measured beside our server without them."""
    for users, ours in found.get("ours_medusa", {}).items():
        if theirs := found.get("vllm_medusa", {}).get(users):
            ratio = theirs.gain.ratio / ours.gain.ratio
            results.metric(f"backends.heads_against_heads.users_{users}", ratio, "ratio", n=theirs.gain.n)
            print(f"Heads on both sides, {users} at a time: ours writes {ratio:.2f} times vLLM's tokens a second.")


def _beside(bench: BackendsBench, url: str, other: str, users: int) -> Pair:
    loads: dict[str, list[Load]] = {"ours": [], "theirs": []}
    arms = {"ours": lambda: bench.ask(url, users), "theirs": lambda: bench.ask(other, users)}
    take_turns(arms, bench.sizes.turns, warmup=1, after=lambda name, load: loads[name].append(load))
    ours, theirs = (each[-bench.sizes.turns :] for each in loads.values())
    rates = [[load.output_token_throughput for load in each] for each in (ours, theirs)]
    gaps = [np.median([load.statistics("inter_token_latency")["p50"] for load in each]) for each in (ours, theirs)]
    gain = speedup([1 / rate for rate in rates[1]], [1 / rate for rate in rates[0]], of=np.median)
    same = sum(a.text == b.text for a, b in zip(ours[-1].samples, theirs[-1].samples, strict=True))
    medians = tuple(float(np.median(each)) for each in rates)
    return Pair(medians, tuple(1e3 * float(gap) for gap in gaps), gain, same, len(ours[-1].samples))


def _note_pair(results: Results, name: str, users: int, pair: Pair) -> None:
    n = pair.gain.n
    results.metric(f"backends.tokens_per_second.{name}.users_{users}", pair.rates[1], "tokens/s", n=n)
    results.metric(f"backends.tokens_per_second_of_ours.{name}.users_{users}", pair.rates[0], "tokens/s", n=n)
    results.metric(f"backends.same_answers.{name}.users_{users}", pair.same / pair.of, "share", n=pair.of)
    note_speedup(results, f"backends.speedup.{name}.users_{users}", pair.gain)
    theirs, ours = (f"{pair.rates[k]:.0f}, {pair.gaps[k]:.1f} ms" for k in (1, 0))
    print(f"{WORDS[name]:32}{users:6}{theirs:>14}{ours:>14}{f'{pair.same} of {pair.of}':>11}  {pair.gain.ratio:.2f}x")


def compare_beams(results: Results, bench: BackendsBench, width: int = 4) -> None:
    """The best answer of a beam search by our server and by vLLM's; writes how many are the same."""
    if not bench.sizes.vllm:
        return print("vLLM's server is left out under this profile: it takes a minute to start.")
    asked = bench.prompts[: bench.sizes.beams]
    body = dict(max_tokens=bench.sizes.longest, temperature=0, n=width, use_beam_search=True, model="served")
    best = []
    try:
        with ExitStack() as servers:
            for start in (bench.ours, bench.vllm):
                url = servers.enter_context(start())
                answers = [httpx.post(f"{url}/v1/completions", json=body | {"prompt": p}, timeout=600) for p in asked]
                best.append([client.checked(answer).json()["choices"][0]["text"] for answer in answers])
    except CourseError as reason:
        return say(f"Beam searches can't be compared: {reason}")
    same = sum(a == b for a, b in zip(*best, strict=True))
    results.metric("backends.same_beams.vllm", same / len(asked), "share", n=len(asked))
    print(f"{same} of {len(asked)} best answers of {width} beams are the same in our server and in vLLM's.")


def compare_offload(results: Results, sizes: BackendSizes) -> None:
    """A step that reads one token: the weights in memory, and read from the disk in each step by Accelerate; writes
    the ratio, and the share of the weights that the process holds between steps."""
    from accelerate import disk_offload

    held = models.shape_only(sizes.shape)
    ids = torch.tensor([[5]])
    with tempfile.TemporaryDirectory(dir=build_root()) as folder:
        away = disk_offload(models.shape_only(sizes.shape), folder, execution_device=torch.device("cpu"))
        arms = {"memory": lambda: _one(held, ids), "disk": lambda: _one(away, ids)}
        seconds = take_turns(arms, sizes.rounds, warmup=1)
        whole = sum(p.nbytes for p in held.parameters())
        kept = sum(p.nbytes for p in away.parameters() if p.device.type != "meta")
    gain = speedup(seconds["memory"], seconds["disk"], of=np.median)
    note_speedup(results, "backends.offload_speedup.disk", gain)
    results.metric("backends.offload_weights_held", kept / whole, "share")
    print(f"{sizes.shape}: {whole / 1e6:.0f} MB of weights; {kept / whole:.0%} are held between steps.")
    print(f"A step with weights from the disk, against weights in memory: {gain}")


@torch.inference_mode()
def _one(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


def mixture(tokenizer, experts: int, folder: Path, seed: int = 0) -> tuple[Path, Path, Mapping[str, int]]:
    """Two models with random weights, as folders: Mixtral's architecture, of whose experts each token takes two, and a
    dense Mistral whose MLP is as large as two of them; and how many weights each has."""
    from transformers import AutoModelForCausalLM, MistralConfig, MixtralConfig

    common = dict(
        vocab_size=len(tokenizer),
        hidden_size=768,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=4,
        sliding_window=None,
        tie_word_embeddings=False,  # else a random model says its last token for ever, and asks the same experts
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
    """Both models served by vLLM, at each number of users; writes the mixture's tokens a second over the dense model's,
    and the ratio of the weights."""
    if not (bench.sizes.vllm and bench.sizes.experts):
        print("The mixture of experts is left out under this profile: it is served by vLLM.")
        return {}
    rates: dict[int, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=build_root()) as place:
        experts, dense, counts = mixture(bench.tokenizer, bench.sizes.experts, Path(place))
        try:
            with bench.vllm(experts) as first, bench.vllm(dense) as second:
                arms = {"experts": first, "dense": second}
                for users in bench.sizes.users:
                    rates[users] = {name: [] for name in arms}
                    for _ in range(bench.sizes.turns):
                        for name, url in arms.items():
                            load = bench.ask(url, users, ignore_eos=True)
                            rates[users][name].append(load.output_token_throughput)
        except CourseError as reason:
            say(f"The mixture of experts can't be served here: {reason}")
            return {}
    ratio = counts["experts"] / counts["dense"]
    results.metric("backends.experts_weights", ratio, "ratio")
    print(f"{counts['experts'] / 1e6:.0f} million weights, {ratio:.1f} times the dense model's, the same work a token.")
    found = {users: float(np.median(one["experts"]) / np.median(one["dense"])) for users, one in rates.items()}
    for users, speed in found.items():
        results.metric(f"backends.experts_speed.users_{users}", speed, "ratio", n=bench.sizes.turns)
        print(f"{users:>3} users: {speed:.2f} times the dense model's tokens a second")
    return found
