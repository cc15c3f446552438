"""Formulas of notebooks are MathML on their pages, or stay as they were where one can't be converted."""

import re

import jupytext
import nbformat
import pytest

from helpers.course.formulas import mathml
from helpers.course.notebook_page import notebook_html
from helpers.course.notebooks import source_files

FORMULA = re.compile(r"(?<![$\\])(\$\$?)(?!\$)(.+?)\1", re.DOTALL)
PROSE = r"""Costs $n \geq 2$, and

$$y = W x + \frac{\alpha}{r} B A x$$

\begin{equation}a_i\end{equation}

No math: `$x$`."""


@pytest.fixture
def page(tmp_path):
    def make(*cells):
        path = tmp_path / "x.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
        return notebook_html(path)

    return make


def markdown(text):
    return nbformat.v4.new_markdown_cell(text)


def loads_mathjax(html):
    return re.search(r"<script[^>]*mathjax", html, re.IGNORECASE)


def test_formulas_are_mathml_and_nothing_comes_from_outside(page):
    output = nbformat.v4.new_output("display_data", data={"text/markdown": "so $z$"})
    html = page(markdown(PROSE), nbformat.v4.new_code_cell("1", outputs=[output], execution_count=1))
    assert html.count("<math") == 4 and html.count('display="block"') == 2
    assert "<mfrac>" in html and "≥" in html and "<code>$x$</code>" in html
    assert "<script" not in html
    assert not re.search(r"<(?:link|img|script)[^>]*https?://", html)


def test_a_formula_that_is_not_known_stays_and_asks_for_mathjax(page):
    html = page(markdown(r"Here $\nosuchcommand{x}$, there $y$."))
    assert r"$\nosuchcommand{x}$" in html and html.count("<math") == 1
    assert loads_mathjax(html) and "mermaid.initialize" not in html


def formulas():
    """Every formula of the course's prose: (display, LaTeX)."""
    for source in source_files():
        for cell in jupytext.read(source, fmt="py:percent").cells:
            if cell.cell_type == "markdown":
                prose = re.sub(r"`[^`]*`", "", cell.source)
                yield from ((marks == "$$", latex) for marks, latex in FORMULA.findall(prose))


def test_every_formula_of_the_course_is_converted():
    every = list(formulas())
    assert len(every) > 20
    assert [latex for display, latex in every if mathml(latex, display) is None] == []


@pytest.mark.parametrize("latex", [r"\unknown x", r"\frac{1}", r"\left( x", "{"])
def test_what_can_not_be_converted_is_not_half_converted(latex):
    element = mathml(latex)
    assert element is None or "\\" not in element


def test_code_is_no_heading(page):
    assert "not a heading" in page(nbformat.v4.new_code_cell("#  not a heading\n1"))
