"""The README's table of notebooks, made from the notebooks and the reference results: no number is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat

from helpers import files
from helpers.course.notebooks import notebook_files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.notebook.results import load

BEGIN, END = "<!-- notebooks: made by `python -m helpers notebooks` -->", "<!-- end of notebooks -->"
SAME = "start.identical_to_hf_generate"
LOOP = "start.decode_vs_hf_generate"
CACHE = "kv_cache.equals_recomputation"
HEADLINES = {
    "00_start_here": f"{{{SAME}.count}} of {{{SAME}.of}} answers identical to `generate`, {{{LOOP}:.2f}} times as fast "
    f"({{{LOOP}.same_layers:.2f}} with the same linear layers); SQL right for {{start.base_execution_accuracy:.1%}}",
    "01_half_precision": "a decode step in bfloat16 {precision.decode_speedup.bf16:.2f} times as fast, foretold "
    "{precision.predicted_decode_speedup.bf16:.2f}; {precision.answers_broken.bf16:.0f} of "
    "{precision.answers_broken.bf16.n} answers broken, {precision.answers_fixed.bf16:.0f} fixed",
    "03_lora_qlora": "{lora.tokens_per_answer_ratio:.0%} of the tokens, a request {lora.latency_speedup:.2f} times as "
    "fast; SQL right for {lora.execution_accuracy:.1%} (base {lora.execution_accuracy.base:.1%})",
    "07_speculative_decoding": "{speculative.speedup:.2f} times as fast, "
    "{prompt_lookup.identical_outputs.count} of {prompt_lookup.identical_outputs.of} outputs identical; prompt lookup "
    "alone {speculative.speedup.prompt_lookup:.2f}, a draft model {speculative.speedup.draft_model:.2f}",
    "08_medusa": "heads alone {medusa.speedup:.2f} times as fast, with prompt lookup in the same tree "
    "{medusa.speedup.with_lookup:.2f}, {medusa.identical_outputs.count} of {medusa.identical_outputs.of} outputs "
    "identical; {medusa.speedup_over_strongest_greedy:.2f} against the fastest plain decoding here",
    "00b_kv_cache": "a decode step of 32 rows {kv_cache.attention_speedup.batch_32:.2f} times as fast as with repeated "
    f"heads; {{{CACHE}.count}} of {{{CACHE}.of}} random sequences of operations equal to recomputation",
    "01b_fp8": "a quarter of the bytes, {fp8.answers_broken.a_scale_a_channel:.0f} of "
    "{fp8.answers_broken.a_scale_a_channel.n} answers broken, {fp8.answers_fixed.a_scale_a_channel:.0f} fixed",
}


def reference(name: str, root: Path = files.ROOT, profiles: Sequence[str] = ("full", "cpu")) -> dict | None:
    """A notebook's results on the first named machine, of the first profile for which they are kept; None without."""
    for profile in profiles:
        for path in sorted((root / "data" / "reference_results").glob(f"*/{profile}/{name}.json")):
            return load(profile, name, path.parents[1])
    return None


def table(root: Path = files.ROOT) -> str:
    """A row for each notebook: its question, the machine's minutes, its result on the reference machine."""
    rows = ["| notebook | its question | minutes here | what was measured |", "|---|---|---|---|"]
    for path in notebook_files(root):
        notebook = nbformat.read(path, as_version=4)
        question = re.search(r"\*\*(.+?)\*\*", notebook.cells[0].source, re.DOTALL).group(1)
        took = minutes(path.stem, root)
        told = f"{max(1, round(took))}" if took else "not run yet"
        link = f"[{path.stem.replace('_', ' ')}]({path.relative_to(root).as_posix()})"
        rows.append(f"| {link} | {question} | {told} | {headline(path.stem, root)} |")
    return "\n".join(rows)


def minutes(name: str, root: Path = files.ROOT) -> float | None:
    """What the notebook takes under the profile that learners start with, on the reference machine; None if unknown."""
    found = reference(name, root, ("cpu",))
    return found["seconds"] / 60 if found else None


def headline(name: str, root: Path = files.ROOT) -> str:
    """The sentence that sums a notebook up, with the numbers of the reference machine."""
    document = reference(name, root)
    if document is None or name not in HEADLINES:
        return ""
    values = {key: row["value"] for key, row in document["metrics"].items()}
    values |= {f"{key}.n": row["n"] for key, row in document["metrics"].items() if "n" in row}
    values |= {f"{key}.{part}": row[part] for key, row in document["invariants"].items() for part in ("count", "of")}
    return re.sub(r"\{([\w.]+)(?::([^}]+))?\}", lambda m: format(values[m[1]], m[2] or ""), HEADLINES[name])


def refresh(root: Path = files.ROOT) -> bool:
    """Put the table into README.md; returns whether it changed."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise CourseError(f"README.md has lost the line {BEGIN} or {END}: put both back where the table belongs.")
    made = f"{BEGIN}\n{table(root)}\n{END}"
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, text, flags=re.DOTALL)
    if new != text:
        write_whole(path, new)
    return new != text


def keep_reference(machine: str, profile: str, root: Path = files.ROOT) -> list[Path]:
    """Copy a profile's results to data/reference_results/<machine>, as they were measured."""
    kept = []
    found = sorted((build_root() / "results" / profile).glob("[0-9]*.json*"))
    if not found:
        raise CourseError(
            f"There are no results of {profile} to keep: `python -m helpers run --profile {profile}` first."
        )
    for path in found:
        if ".predictions" not in path.name:
            kept.append(write_whole(root / "data" / "reference_results" / machine / profile / path.name,
                                    path.read_text(encoding="utf-8")))  # fmt: skip
    return kept
