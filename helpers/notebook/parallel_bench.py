"""What notebook 06 measures: the model cut in several ways, beside the whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from helpers import models
from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.measuring.timing import speedup
from helpers.notebook.lesson import Lesson
from helpers.notebook.parallel_sizes import ParallelSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import note_speedup
from helpers.parallel import runs
from helpers.parallel.links import Link, fit_link
from helpers.parallel.ranks import on_ranks
from helpers.parallel.runs import Which
from helpers.parallel.tensor_parallel import bytes_reduced
from helpers.profiling.opponents import written_folder
from helpers.profiling.vllm_ranks import answers_on_ranks
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization.calibration import answer_pairs

TOLERANCE = 1e-3  # of a logit, in float32
WORDS = {
    "tensor_parallel": "tensor parallel, ours",
    "dtensor": "tensor parallel, DTensor",
    "fsdp": "FSDP",
    "fsdp_pieces": "FSDP, vocabulary in pieces",
}


@dataclass(frozen=True)
class Found:
    """What came out of a model that was cut in a `way` for so many ranks, as the ranks tell it (runs.compare)."""

    way: str
    ranks: int
    by_rank: list[dict]

    @property
    def worst(self) -> float:
        """The largest difference of any logit, at any rank."""
        return float(np.max([one["worst"] for one in self.by_rank]))  # Python's own max loses a NaN

    @property
    def same(self) -> int:
        """Answers that are the same tokens at all ranks."""
        return min(one["same"] for one in self.by_rank)

    @property
    def of(self) -> int:
        return self.by_rank[0]["of"]

    @property
    def memory_share(self) -> float:
        """Bytes of parameters, and of what is gathered at most, over the whole model's: of the rank with the most."""
        return max((one["local_bytes"] + one["gathered_bytes"]) / one["whole_bytes"] for one in self.by_rank)

    @property
    def holds(self) -> bool:
        """Whether it is the whole model's function."""
        return self.worst <= TOLERANCE and self.same == self.of


@dataclass(frozen=True)
class ParallelBench:
    """The model, prompts that it is compared on, and how much is measured."""

    which: Which
    tokenizer: object
    prompts: list[list[int]]
    sizes: ParallelSizes
    lesson: Lesson

    @classmethod
    def of(cls, lesson: Lesson, sizes: ParallelSizes) -> ParallelBench:
        """The fine-tuned model in float32, where cut and whole can be compared; under `smoke` its first layers.

        Raises:
            CourseError: the profile wants a GPU for each rank, and there are not as many.
        """
        if lesson.device == "cuda" and torch.cuda.device_count() < max(sizes.ranks):
            raise CourseError(f'The profile "gpu" wants {max(sizes.ranks)} GPUs here: take PROFILE = "cpu".')
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        lesson.results.add_models(models.parts_of(name))
        tokenizer = models.tokenizer_of(name)
        pairs = answer_pairs(tokenizer, load_split("test", limit=sizes.prompts))
        if sizes.layers is not None:
            print(f"Profile {lesson.profile}: the first {sizes.layers} layers alone. What they write means nothing.")
        return cls(Which(name, layers=sizes.layers), tokenizer, [prompt for prompt, _ in pairs], sizes, lesson)

    def compare(self, way: str, ranks: int) -> Found:
        """The model cut in this way, against the whole one."""
        asked = dict(way=way, which=asdict(self.which), prompts=self.prompts, max_new_tokens=self.sizes.longest)
        return Found(way, ranks, on_ranks(runs.compare, ranks, asked, timeout=3600, show=False))


HEADER = f"{'':28}{'ranks':>6}{'logits off':>12}{'same answers':>14}{'memory of one':>15}{'collectives':>14}"


def show_found(found: Found) -> None:
    """A line of the table; the last column has the bytes that collectives reduce or gather for a token."""
    counted = sum(found.by_rank[0]["bytes"].values())
    print(f"{WORDS[found.way]:28}{found.ranks:6}{found.worst:12.1e}{f'{found.same} of {found.of}':>14}", end="")
    print(f"{found.memory_share:15.0%}{in_bytes(counted):>14}", flush=True)


def in_bytes(count: float) -> str:
    """ "12.3 MB", "45.6 kB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def compare_cuts(results: Results, bench: ParallelBench) -> dict[int, Found]:
    """Our tensor parallelism on each number of ranks; writes memory and the invariant, every answer counted."""
    print(HEADER)
    found = {ranks: bench.compare("tensor_parallel", ranks) for ranks in bench.sizes.ranks}
    for one in found.values():
        show_found(one)
        results.metric(f"parallel.worst_logit.tensor_parallel.ranks_{one.ranks}", one.worst, "logits", n=one.of)
    _note_memory(results, "tensor_parallel", found[2])
    same, of = (sum(getattr(one, what) for one in found.values()) for what in ("same", "of"))
    results.invariant("parallel.tensor_parallel_equals_dense", all(one.holds for one in found.values()), same, of)
    return found


def compare_library(results: Results, bench: ParallelBench) -> None:
    """PyTorch's DTensor and vLLM where the ranks divide the heads, and what they say where they don't."""
    print(HEADER)
    for ranks in bench.sizes.ranks:
        try:
            one = bench.compare("dtensor", ranks)
        except CourseError as reason:
            say(f"DTensor, {ranks} ranks: {reason}")
            continue
        show_found(one)
        results.metric(f"parallel.worst_logit.dtensor.ranks_{ranks}", one.worst, "logits", n=one.of)
    if not bench.sizes.vllm:
        print("vLLM is left out under this profile: it takes a minute to start.")
        return
    model, tokenizer = models.load(bench.which.name)
    folder, longest = written_folder(model, tokenizer, bench.which.name), bench.sizes.longest
    for ranks in bench.sizes.vllm:
        try:
            answers = answers_on_ranks(folder, bench.prompts, ranks, dtype="float32", max_new_tokens=longest)
        except CourseError as reason:
            say(f"vLLM, {ranks} ranks: {reason}")
            continue
        exact = [plain_greedy(model, prompt, longest) for prompt in bench.prompts]
        same = sum(answer == whole for answer, whole in zip(answers, exact, strict=True))
        key = f"parallel.same_answers.vllm_eager.ranks_{ranks}"
        results.metric(key, same / len(exact), "share", n=len(exact))
        print(f"vLLM, {ranks} ranks: {same} of {len(exact)} answers are the whole model's.")


def compare_fsdp(results: Results, bench: ParallelBench) -> dict[str, Found]:
    """FSDP on 2 ranks, by layers, and with the vocabulary in pieces; writes memory and the invariant."""
    print(HEADER)
    found = {}
    for way in ("fsdp", "fsdp_pieces"):
        try:
            found[way] = bench.compare(way, 2)
        except CourseError as reason:
            say(f"{WORDS[way]}: {reason}")
            continue
        show_found(found[way])
    best = min(found.values(), key=lambda one: one.memory_share)
    _note_memory(results, "fsdp", best)
    same, of = (sum(getattr(one, what) for one in found.values()) for what in ("same", "of"))
    results.invariant("parallel.fsdp_equals_dense", all(one.holds for one in found.values()), same, of)
    return found


def _note_memory(results: Results, key: str, one: Found) -> None:
    results.metric(f"parallel.memory_per_rank.{key}", one.memory_share, "share", n=one.ranks)


def predict_bytes(results: Results, bench: ParallelBench, ranks: int = 2) -> None:
    """Save what the formulas say of a step of one token: vectors that are reduced and logits that are gathered, or all
    weights."""
    model = bench.which.open()
    config, width = model.config.get_text_config(), 4
    padded = -(-config.vocab_size // ranks) * ranks
    formulas = {
        "tensor_parallel": bytes_reduced(config.num_hidden_layers, config.hidden_size, width) + padded * width,
        "fsdp": sum(p.nbytes for p in model.parameters()),
    }
    for name, formula in formulas.items():
        results.prediction(f"parallel.bytes_per_token.{name}", formula, "bytes")


def compare_bytes(results: Results, cut: Found, sharded: Found) -> None:
    """Bytes that collectives reduce and gather in a step of one token, by the formulas and as counted; writes them."""
    for name, one in (("tensor_parallel", cut), ("fsdp", sharded)):
        counted = sum(one.by_rank[0]["bytes"].values())
        key = f"parallel.bytes_per_token.{name}"
        results.metric(key, counted, "bytes", n=1)
        formula = results.metrics[f"{key}.predicted"]["value"]
        calls = ", ".join(f"{count} {kind.replace('_', '-')}s" for kind, count in one.by_rank[0]["calls"].items())
        print(f"{WORDS[name]:24} formula {in_bytes(formula):>9}, counted {in_bytes(counted):>9} in {calls}")


def compare_training(results: Results, bench: ParallelBench, length: int = 32) -> None:
    """Steps of SGD by FSDP on 2 ranks against one process, on the same texts; writes the largest difference of any
    parameter."""
    draw = torch.Generator().manual_seed(bench.lesson.seed)
    batches = [torch.randint(3, 1000, (4, length), generator=draw).tolist() for _ in range(bench.sizes.training)]
    asked = dict(which=asdict(bench.which), batches=batches, learning_rate=1e-3)
    by_rank = on_ranks(runs.compare_training, 2, asked, show=False)
    worst = float(np.max([one["worst"] for one in by_rank]))
    one = by_rank[0]
    losses = zip(one["alone"], one["sharded"], strict=True)
    print("loss alone and by FSDP:", ", ".join(f"{a:.4f} {b:.4f}" for a, b in losses))
    print(f"After {len(batches)} steps no parameter differs by more than {worst:.1e}.")
    sent = {kind: count / len(batches) for kind, count in one["bytes"].items()}
    large = {kind: count for kind, count in sent.items() if count > 1000}  # the loss is four bytes
    print("A step takes", ", ".join(f"{in_bytes(count)} of {kind.replace('_', '-')}" for kind, count in large.items()))
    results.metric("parallel.fsdp_training_difference", worst, "weight", n=len(batches))


def time_steps(results: Results, bench: ParallelBench) -> dict[str, list[float]]:
    """Decode steps of a random shape: the whole model in one process with all cores, cut for 2 ranks, and by FSDP, in
    turns; writes the ratios."""
    threads, ways = torch.get_num_threads(), ("tensor_parallel", "fsdp")
    which = Which(bench.sizes.shape, "bfloat16" if bench.lesson.device == "cuda" else "float32", shape=True)
    asked = dict(ways=ways, which=asdict(which), context=64, threads=threads)
    by_rank = on_ranks(runs.time_ways, 2, asked | {"rounds": bench.sizes.rounds}, show=False)
    seconds = {way: list(np.max([one[way] for one in by_rank], axis=0)) for way in ("whole", *ways)}  # the last rank's
    for way in ways:
        gain = note_speedup(
            results, f"parallel.step_speedup.{way}", speedup(seconds["whole"], seconds[way], of=np.median)
        )
        print(f"{bench.sizes.shape}, {WORDS[way]}, 2 ranks, against one process with all cores: {gain}")
    return seconds


def fit_messages(results: Results, bench: ParallelBench, ranks: int = 2) -> tuple[Link, list[tuple[int, int, float]]]:
    """All-reduces of several sizes here, and the latency and bandwidth that explain them; writes both."""
    asked = dict(sizes=bench.sizes.messages, repeats=bench.sizes.repeats)
    by_rank = on_ranks(runs.all_reduce_seconds, ranks, asked, show=False)
    times = [(int(size), ranks, max(one[size] for one in by_rank)) for size in by_rank[0]]
    link = fit_link(times)
    results.metric("parallel.link.latency_us", 1e6 * link.latency, "us", n=len(times))
    print(f"Between two processes here: {1e6 * link.latency:.0f} us a message, and {link.bandwidth / 1e9:.1f} GB/s")
    if np.isfinite(link.bandwidth):  # else the largest message was too short to see it
        results.metric("parallel.link.gb_s", link.bandwidth / 1e9, "GB/s", n=len(times))
    return link, times


def explain_step(results: Results, bench: ParallelBench, link: Link, seconds: Mapping[str, Sequence[float]]) -> None:
    """What the all-reduces of a step should take by the link, beside what the cut model's step takes."""
    config = models.config_of(bench.sizes.shape)
    layers, hidden = config.num_hidden_layers, config.hidden_size
    talking = (2 * layers + 1) * link.all_reduce(4 * hidden, 2)
    step = float(np.median(seconds["tensor_parallel"]))
    results.metric("parallel.talking_share.predicted", talking / step, "share", kind="predicted")
    lost = 1e3 * (step - float(np.median(seconds["whole"])))
    print(f"{2 * layers + 1} all-reduces of {4 * hidden / 1e3:.1f} kB should take {1e3 * talking:.1f} ms by the link.")
    verb = "more" if lost > 0 else "less"
    print(f"The cut step takes {abs(lost):.1f} ms {verb} than the whole model's {1e3 * step - lost:.1f} ms.")
    print("The line leaves out the logits, and that each waits for the slower one, beside whom it reads one memory.")
