"""The same heads in vLLM: do they load, and are as many guesses accepted? (notebook 08)"""

from __future__ import annotations

from collections.abc import Sequence

from helpers.errors import CourseError
from helpers.notebook.medusa_bench import BFLOAT16, MedusaBench
from helpers.notebook.results import Results
from helpers.profiling import vllm_baseline
from helpers.speculation.medusa_files import load, save

CLOSE = 0.02  # of a share: what a few prompts' ties in bfloat16 may move


def show_in_vllm(bench: MedusaBench, results: Results, prompts: Sequence[list[int]]) -> None:
    """vLLM decodes these prompts by a chain of the heads' best guesses; how often each place of the chain is accepted,
    there and here. Writes `medusa.loads_in_vllm`; says why, where it is left out."""
    if not prompts or not vllm_baseline.installed():
        reason = "vLLM is not installed here" if prompts else "this profile doesn't start vLLM"
        print(f"Left out: {reason}.")
        return
    folder, model = bench.folder / "for_vllm", bench.models[BFLOAT16]
    model.save_pretrained(folder / "model")
    bench.tokenizer.save_pretrained(folder / "model")
    heads = load(bench.heads_place, model)
    save(heads, folder / "heads", str(bench.model_id))
    options = dict(dtype=BFLOAT16, max_new_tokens=bench.sizes.longest)
    try:
        chain = vllm_baseline.run(folder / "model", prompts, heads=folder / "heads", num_guesses=heads.count, **options)
    except CourseError as reason:
        print("vLLM could not be asked:", reason)
        results.invariant("medusa.loads_in_vllm", False, 0, heads.count)
        return
    ours = vllm_baseline.accepted_by_place(bench.fast[BFLOAT16], bench.heads[BFLOAT16], prompts, chain["token_ids"])
    theirs = [count / max(1, chain["drafts"]) for count in chain["accepted"]]
    for place, (a, b) in enumerate(zip(ours, theirs), 1):
        print(f"accepted at place {place} of a chain: {a:.3f} here, {b:.3f} in vLLM")
    close = sum(abs(a - b) <= CLOSE for a, b in zip(ours, theirs))
    results.invariant("medusa.loads_in_vllm", close == len(ours), close, len(ours))
