"""An executed notebook as one HTML page that works without a network."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from helpers.course.formulas import mathml

SCRIPT = re.compile(r"<script\b.*?</script>", flags=re.DOTALL | re.IGNORECASE)


def notebook_html(path: Path) -> str:
    """The notebook at `path` as HTML, formulas as MathML.

    A formula that can't be converted stays as LaTeX; then the page asks for MathJax, where there is a network. All
    other scripts go.
    """
    exporter = PageExporter(embed_images=True)
    page, _ = exporter.from_filename(str(path))
    left_as_latex = exporter.left_as_latex or 'data-mime-type="text/latex"' in page
    return SCRIPT.sub(lambda m: m.group() if left_as_latex and "mathjax" in m.group().lower() else "", page)


class PageExporter(HTMLExporter):
    """nbconvert's, with formulas as MathML; counts those that it had to leave."""

    left_as_latex = 0

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        """Markdown as HTML: the filter that the templates call for cells and outputs."""
        renderer = FormulaRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
            **self.lexer_options,
        )
        html = MarkdownWithMath(renderer=renderer).render(source)
        self.left_as_latex += renderer.left_as_latex
        return html


class FormulaRenderer(IPythonRenderer):
    """nbconvert's Markdown, with `$...$`, `$$...$$` and environments as MathML."""

    left_as_latex = 0

    def inline_math(self, body: str) -> str:
        return self._formula(body, super().inline_math(body))

    def block_math(self, body: str) -> str:
        return self._formula(body, super().block_math(body), display=True)

    def latex_environment(self, name: str, body: str) -> str:
        latex = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return self._formula(latex, super().latex_environment(name, body), display=True)

    def _formula(self, latex: str, as_it_is: str, display: bool = False) -> str:
        element = mathml(latex, display)
        self.left_as_latex += element is None
        return as_it_is if element is None else element
