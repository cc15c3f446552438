"""build/report/index.html: what ran, what came out and what failed, on one page that needs nothing else.

Written after every notebook from the runner's state and the results files; each notebook's executed copy stands beside
it as HTML.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template

from helpers import files
from helpers.course.readme import headline_of
from helpers.course.results_in_words import Row, guess_sentences, rows
from helpers.errors import CourseError
from helpers.notebook import results
from helpers.notebook.metric_words import words_of

PAGE = Path(__file__).with_name("report.html")
STATUS = {"ok": "done", "failed": "failed", "running": "running", "interrupted": "stopped"}


def write_report(profile: str, out: Path | None = None, root: Path = files.ROOT) -> Path:
    """Write (or write again) report/index.html under `out`, which is build/ where not given; returns its path."""
    out = Path(out or files.build_root())
    records = _records(out / f"run-{profile}.json")
    documents = _results(profile, out)
    for name in records:
        _notebook_page(out, profile, name)
    parts = {
        "profile": escape(profile),
        "machine": _machine(documents),
        "notebooks": _notebooks(records, out, profile),
        "failures": _failures(records),
        "results": "\n".join(_section(name, document, root) for name, document in documents.items()),
    }
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(parts)
    return files.write_whole(out / "report" / "index.html", page)


def title_of(path: Path) -> str:
    """The first heading of a notebook, or its name."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return path.stem
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+)$", text, flags=re.MULTILINE)
    return heading.group(1).strip() if heading else path.stem


def _records(path: Path) -> dict[str, dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["notebooks"]
    except (OSError, ValueError):
        return {}


def _results(profile: str, out: Path) -> dict[str, dict]:
    """The results that can be read: a damaged file costs its own section, not the page."""
    documents = {}
    for path in sorted((out / "results" / profile).glob("[0-9]*.json")):
        if "." not in path.stem:
            try:
                documents[path.stem] = results.load(profile, path.stem, out / "results")
            except CourseError as error:
                documents[path.stem] = {"error": str(error)}
    return documents


def _notebook_page(out: Path, profile: str, name: str) -> None:
    """Make the notebook's HTML copy where it is missing or older than the executed notebook."""
    copy, page = out / "notebooks" / profile / f"{name}.ipynb", out / "report" / f"{profile}-{name}.html"
    if copy.exists() and (not page.exists() or page.stat().st_mtime < copy.stat().st_mtime):
        from helpers.course.notebook_page import notebook_html  # a second to import

        try:
            files.write_whole(page, notebook_html(copy))
        except Exception:  # a copy that was cut off by a kill: the page goes without it
            page.unlink(missing_ok=True)


def _machine(documents: Mapping[str, dict]) -> str:
    """The machine of the newest results."""
    readable = [document for document in documents.values() if "machine" in document]
    if not readable:
        return "<p>No results yet.</p>"
    newest = max(readable, key=lambda document: document["finished"])
    machine, versions = newest["machine"], newest["versions"]
    words = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.1f} GiB"
    words += f", {machine['accelerator']}" if machine["accelerator"] else ", no accelerator"
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"<p>{escape(words)}</p><p class='small'>{escape(listed)}</p>"


def _notebooks(records: Mapping, out: Path, profile: str) -> str:
    lines = []
    for name in sorted(records):
        record = records[name]
        copy, page = out / "notebooks" / profile / f"{name}.ipynb", f"{profile}-{name}.html"
        title = escape(title_of(copy))
        title = f"<a href='{escape(page)}'>{title}</a>" if (out / "report" / page).exists() else title
        status = STATUS.get(record.get("status"), "not run")
        minutes = f"{record['seconds'] / 60:.1f}" if "seconds" in record else ""
        budget = record.get("budget")
        over = budget and record.get("seconds", 0) / 60 > budget
        notes = [f"over its budget of {budget:g} min"] if over else []
        slowest = max((cell["seconds"] for cell in record.get("cells", [])), default=0)
        notes += [f"slowest cell {slowest:.0f} s"] if slowest > 1 else []
        mark = f"<span class='{escape(record.get('status', ''))}'>{status}</span>"
        lines.append([title, mark, minutes, escape("; ".join(notes))])
    return _table(["Notebook", "Status", "Minutes", ""], lines, right=(2,)) if lines else "<p>Nothing has run yet.</p>"


def _failures(records: Mapping) -> str:
    failed = {name: record["failure"] for name, record in records.items() if record.get("failure")}
    items = [
        f"<li><b>{escape(name)}</b> {escape(failure['cell'])}: <code>{escape(failure['line'])}</code>"
        f"<br>{escape(failure['error'])}</li>"
        for name, failure in sorted(failed.items())
    ]
    return f"<h2>Failures</h2><ul class='failures'>{''.join(items)}</ul>" if items else ""


def _section(name: str, document: Mapping, root: Path) -> str:
    """What a notebook found, in a sentence and in tables; its time and memory, and whether it is stale."""
    if "error" in document:
        return f"<h3>{escape(name)}</h3><p class='failed'>{escape(document['error'])}</p>"
    old = results.stale(document, root)
    warning = f"<p class='failed'>Stale: the {' and the '.join(old)} changed since.</p>" if old else ""
    metrics = [_metric(row) for row in rows(document["metrics"])]
    invariants = [_invariant(key, entry) for key, entry in document["invariants"].items()]
    spent = f"{document['seconds']:,.0f} s, peak memory {document['peak_memory_gib']:.2f} GiB, "
    spent += f"{document['finished'][:16].replace('T', ' ')} UTC"
    heads = ["What was measured", "Value", "Interval", "n", "Kind", "Predicted before"]
    return (
        f"<h3>{escape(name)}</h3>{warning}{_headline(document, root)}"
        + "".join(f"<p>{_prose(sentence)}</p>" for sentence in guess_sentences(document["metrics"]))
        + f"<p class='small'>{escape(spent)}</p>"
        + (_table(heads, metrics, right=(1, 2, 3)) if metrics else "")
        + (_table(["What has to hold", "", "Count"], invariants, right=(2,)) if invariants else "")
    )


def _headline(document: Mapping, root: Path) -> str:
    """The notebook's sentence with these results; a run of few prompts may lack a number that it names."""
    try:
        return f"<p class='headline'>{_prose(headline_of(document, root))}</p>"
    except CourseError as error:
        return f"<p class='small'>No headline: {escape(str(error))}</p>"


def _metric(row: Row) -> list[str]:
    looks = row.kind if row.kind in ("measured", "simulated") else "predicted"
    kind = f"<span class='kind {looks}'>{row.kind}</span>"
    return [_named(row.name, row.key), escape(row.value), row.interval, row.n, kind, escape(row.predicted)]


def _invariant(key: str, entry: Mapping) -> list[str]:
    mark = "<span class='ok'>holds</span>" if entry["holds"] else "<span class='failed'>does not hold</span>"
    return [_named(words_of(key), key), mark, f"{entry['count']:,} of {entry['of']:,}"]


def _named(words: str, key: str) -> str:
    """Words that show the key of the results file where the mouse rests on them."""
    return f"<span title='{escape(key)}'>{_prose(words)}</span>"


def _prose(text: str) -> str:
    """Text whose backticks mark code, as in Markdown."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(heads: Iterable[str], rows: Iterable[list[str]], right: tuple[int, ...] = ()) -> str:
    """A table that scrolls sideways on a phone; the columns in `right` hold numbers."""

    def line(cells: Iterable[str], tag: str) -> str:
        number_class = [" class='number'" if place in right else "" for place in range(9)]
        return "".join(f"<{tag}{number_class[place]}>{cell}</{tag}>" for place, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{line(heads, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
