"""The report is one page that needs nothing else, and says what is measured, predicted and simulated."""

import json
import re

import nbformat

from helpers.course.report import notebook_html, number, title_of, write_report
from helpers.files import write_whole
from helpers.notebook.results import Results

MACHINE = {"cpu": "Some <fast> CPU", "cores": 2, "memory_gib": 8.0, "accelerator": None}


def _filled(out):
    """Results of one notebook, and a state in which another one failed."""
    made = Results("08_medusa", "cpu", out / "results", machine=MACHINE)
    made.prediction("medusa.speedup", 3, "x")
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
    assert all(f"kind {kind}" in page for kind in ("measured", "predicted", "simulated"))
    assert "href='cpu-08_medusa.html'" in page and "cpu-09" not in page  # a link only to what is there
    assert "assert &lt;b&gt;" in page


def test_the_page_needs_nothing_from_outside(tmp_path):
    _filled(tmp_path)
    page = write_report("cpu", tmp_path).read_text()
    assert not re.search(r"(src|href)=['\"](https?:)?//|@import|url\(|<script", page)
    assert "prefers-color-scheme: dark" in page and "@media print" in page and "viewport" in page
    copy = (tmp_path / "report" / "cpu-08_medusa.html").read_text()
    outside = re.findall(r"<script[^>]*src=\"([^\"]+)", copy)
    assert "mermaid.initialize" not in copy and "Medusa" in copy
    assert all("mathjax" in address.lower() for address in outside)


def test_a_page_before_anything_ran_and_one_with_a_damaged_file(tmp_path):
    assert "Nothing has run yet" in write_report("smoke", tmp_path).read_text()
    write_whole(tmp_path / "results" / "smoke" / "00_x.json", "{")
    assert "damaged" in write_report("smoke", tmp_path).read_text()


def test_a_new_copy_makes_a_new_page(tmp_path):
    path = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("#  not a heading\n1")]), path)
    assert title_of(path) == "x" and title_of(tmp_path / "missing.ipynb") == "missing"
    assert "not a heading" in notebook_html(path)


def test_numbers_are_written_as_people_write_them():
    written = [number(value) for value in (450, 2.4, 0.98765, 12345.6, 1234567.0, 0.00012346, -3.0, 0)]
    assert written == ["450", "2.4", "0.9877", "12,346", "1,234,567", "0.0001235", "-3", "0"]
