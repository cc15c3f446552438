"""The report is one page that needs nothing else, and says what is measured, predicted and simulated."""

import json
import re

import nbformat

from helpers.course.report import title_of, write_report
from helpers.files import write_whole
from helpers.notebook.results import Results

MACHINE = {"cpu": "Some <fast> CPU", "cores": 2, "memory_gib": 8.0, "accelerator": None}


def _filled(out):
    """Results of one notebook, and a state in which another one failed."""
    made = Results("08_medusa", "cpu", out / "results", machine=MACHINE)
    made.prediction("medusa.speedup", 3, "x")
    made.prediction("medusa.decode_speedup.llama_7b", 2.31, "x")
    made.metric("medusa.speedup", 2.4, "x", low=2.21, high=2.59, n=450)
    made.metric("medusa.on_a_gpu", 2.0, "x", kind="simulated")
    made.invariant("medusa.identical_outputs", False, 449, 450)
    made.write()
    failure = {"cell": "in cell 5 (In [3])", "line": "assert <b>", "error": "ValueError: no & no"}
    records = {
        "08_medusa": {"status": "ok", "seconds": 1200.0, "budget": 15, "cells": [{"id": "a", "seconds": 900.0}]},
        "09_compilation": {"status": "failed", "seconds": 30.0, "budget": 5, "cells": [], "failure": failure},
    }
    write_whole(out / "run-cpu.json", json.dumps({"notebooks": records}))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 08 Medusa & friends\n\n$x^2$")])
    write_whole(out / "notebooks" / "cpu" / "08_medusa.ipynb", nbformat.writes(notebook))


def test_the_page_says_what_happened(tmp_path):
    _filled(tmp_path)
    page = write_report("cpu", tmp_path).read_text()
    text = re.sub(r"<[^>]+>", "", page)
    numbers = ("2.21 to 2.59", "450", "449 of 450", "does not hold", "over its budget of 15", "slowest cell 900 s")
    escaped = ("Some &lt;fast&gt; CPU", "08 Medusa &amp; friends", "ValueError: no &amp; no", "in cell 5 (In [3])")
    for words in numbers + escaped:
        assert words in text, words
    assert all(f"class='kind {kind}'" in page for kind in ("measured", "predicted", "simulated"))
    assert "href='cpu-08_medusa.html'" in page and "cpu-09" not in page  # a link only to what is there
    assert "assert &lt;b&gt;" in page


def test_the_page_needs_nothing_from_outside(tmp_path):
    _filled(tmp_path)
    page = write_report("cpu", tmp_path).read_text()
    assert not re.search(r"(src|href)=['\"](https?:)?//|@import|url\(|<script", page)
    assert "prefers-color-scheme: dark" in page and "@media print" in page and "viewport" in page
    copy = (tmp_path / "report" / "cpu-08_medusa.html").read_text()
    assert "mermaid.initialize" not in copy and "Medusa" in copy


def test_a_page_before_anything_ran_and_one_with_a_damaged_file(tmp_path):
    assert "Nothing has run yet" in write_report("smoke", tmp_path).read_text()
    write_whole(tmp_path / "results" / "smoke" / "00_x.json", "{")
    assert "damaged" in write_report("smoke", tmp_path).read_text()


def test_what_was_measured_is_said_in_words(tmp_path):
    _filled(tmp_path)
    page = write_report("cpu", tmp_path).read_text()
    text = re.sub(r"<[^>]+>", "", page)
    assert "speed of a request with Medusa heads, over plain greedy decoding" in text
    assert "2.4 times" in text and "your guess: 3 times" in text
    assert "3 times; it was 2.4 times (2.21 to 2.59)." in text
    assert "answers identical to those of plain greedy decoding" in text
    visible = re.sub(r"<span title='[^']*'>|No headline:[^<]*", "", page)
    assert "medusa.speedup" in page and "medusa.speedup" not in visible  # a key only where the mouse rests
    assert text.count("3 times") == 2  # the guess has no row of its own


def test_the_notebooks_sentence_stands_above_its_numbers(tmp_path):
    made = Results("00_start_here", "cpu", tmp_path / "results", machine=MACHINE)
    made.metric("start.bandwidth_gb_s", 57.6, "GB/s")
    document = json.loads(made.write().read_text())
    headlines = {"start.bandwidth_gb_s:.0f": "reads `57.6` GB/s", "start.nothing": None}
    for field, sentence in headlines.items():
        source = tmp_path / "notebooks" / "source" / "00_start_here.py"
        text = f"# ---\n# jupyter:\n#   course:\n#     minutes: 3\n#     headline: 'reads `{{{field}}}` GB/s'\n# ---\n"
        write_whole(source, text)
        page = write_report("cpu", tmp_path, tmp_path).read_text()
        if sentence:
            assert "<p class='headline'>reads <code>58</code> GB/s</p>" in page
        else:  # a run of few prompts: the sentence can't be filled, the rest is there
            assert "No headline: The results of 00_start_here have no start.nothing" in page
    assert "bandwidth from memory" in page and document["metrics"]


def test_a_notebooks_title_is_its_first_heading(tmp_path):
    path = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("#  not a heading\n1")]), path)
    assert title_of(path) == "x" and title_of(tmp_path / "missing.ipynb") == "missing"
