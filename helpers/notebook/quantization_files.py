"""Quantized weights as files: read from the disk, and served by vLLM (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import save_file
from torch import nn

from helpers.errors import CourseError
from helpers.files import build_root
from helpers.notebook.quantization_models import in_bfloat16
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.profiling import vllm_baseline
from helpers.profiling.served_checkpoint import Served, serve
from helpers.profiling.weight_files import read_seconds
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization.calibration import answer_pairs
from helpers.weights.quantization.compressed_tensors import as_served, save_compressed

LEAST_SHARE = 0.95  # of the answers, of each kind of checkpoint


def show_load(results: Results, by_name: Mapping[str, nn.Module], repeats: int) -> None:
    """Seconds in which each model's weights come from the disk; writes them, with the files' sizes. The files go."""
    folder = build_root() / "artifacts" / "weights_02"
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for name, model in by_name.items():
        path = folder / f"{name}.safetensors"
        tensors = model.state_dict()
        if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
            head = next(n for n, module in model.named_modules() if module is model.get_output_embeddings())
            tensors.pop(f"{head}.weight")
        save_file({key: tensor.detach().clone() for key, tensor in tensors.items()}, path)
        seconds[name] = read_seconds(path, max(1, repeats))
        size = path.stat().st_size
        path.unlink()
        results.metric(f"quantization.load_seconds.{name}", seconds[name], "s", n=max(1, repeats))
        results.metric(f"quantization.file_mb.{name}", size / 1e6, "MB")
        print(f"{name:6} {size / 1e6:6.0f} MB on disk, read in {seconds[name]:.2f} s")
    first, *others = seconds
    best = min(others, key=seconds.get)
    print(f"{best} is there in {seconds[best] / seconds[first]:.0%} of {first}'s time.", end=" ")
    print("A server that starts often, or moves models in and out, feels that.")


def show_vllm(
    results: Results,
    by_kind: Mapping[str, nn.Module],
    tokenizer,
    sizes: QuantizationSizes,
) -> None:
    """Each quantized model ("w8a8", "w4a16": float32 models with integer layers) written as a checkpoint, answered by
    vLLM and by ourselves; writes the shares of equal answers, and the invariant."""
    if not sizes.served:
        print("vLLM is left out under this profile: it takes a minute to start. A test serves a small model.")
        return
    if not vllm_baseline.installed():
        print("vLLM is left out: it is not installed here (README.md says where it can be had).")
        return
    prompts = [prompt for prompt, _ in answer_pairs(tokenizer, load_split("test", limit=sizes.served))]
    served: dict[str, Served] = {}
    for kind, model in by_kind.items():
        half = in_bfloat16(model).to("cpu")  # where our own packed layers compute
        folder = save_compressed(half, tokenizer, build_root() / "artifacts" / f"for_vllm_02_{kind}", kind)
        try:
            served[kind] = serve(as_served(half, kind), folder, prompts, sizes.longest)
        except CourseError as reason:
            print(f"{kind}: {reason}")
    for kind, one in served.items():
        _show_served(results, kind, one)
    same, of = (sum(getattr(one, name) for one in served.values()) for name in ("same", "of"))
    holds = len(served) == len(by_kind) and all(one.same >= LEAST_SHARE * one.of for one in served.values())
    results.invariant("quantization.vllm_serves_checkpoint", holds, same, max(1, of))


def _show_served(results: Results, kind: str, one: Served) -> None:
    print(f"{kind}: vLLM gives {one.same} of {one.of} answers of our own quantized model, token for token.")
    sizes = [f"{abs(margin):.2f}" for margin in one.margins if margin is not None]
    if sizes:
        print(f"    The others part where our model's logits of both tokens differ by {', '.join(sizes)}.")
    print(f"    It writes {one.tokens_per_second:.0f} tokens/s, whole requests one after the other, not compiled.")
    results.metric(f"quantization.vllm_identical_share.{kind}", one.same / one.of, "share", n=one.of)
    results.metric(f"quantization.vllm_tokens_per_second.{kind}", one.tokens_per_second, "tokens/s", n=one.of)
