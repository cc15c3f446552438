"""A benchmark on one's own questions, of any server that speaks one of three languages (notebook 11).

`python -m helpers bench --url http://127.0.0.1:8080 --data my.jsonl`: each line of the file is an object with a
`prompt`, and an `answer` where there is a right one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from helpers.errors import CourseError
from helpers.serving.load_test import Load, Pieces, offer, openai_piece, tgi_piece


@dataclass(frozen=True)
class Question:
    """A prompt, and its right answer if there is one."""

    prompt: str
    answer: str | None = None


@dataclass(frozen=True)
class Language:
    """How a kind of server is asked for a stream: its path, a request's body, a token's text in an event."""

    path: str
    body: Callable[[str, int, str], dict]  # prompt, tokens of the longest answer, the model's name
    piece: Pieces


def _parameters(prompt: str, longest: int, model: str) -> dict:
    return {"inputs": prompt, "parameters": {"max_new_tokens": longest}, "stream": True}


def _completion(prompt: str, longest: int, model: str) -> dict:
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, "prompt": prompt, "max_tokens": longest, "temperature": 0} | counted


LANGUAGES = {
    "openai": Language("/v1/completions", _completion, openai_piece),
    "tgi": Language("/generate_stream", _parameters, tgi_piece),
    "lmi": Language("/invocations", _parameters, tgi_piece),
}


def questions_of(path: Path) -> list[Question]:
    """The questions of a file of JSON lines.

    Raises:
        CourseError: the file can't be read, has no line, or a line that is no question; says which one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # other ends of lines may stand in a prompt
    except (OSError, UnicodeDecodeError) as reason:
        raise CourseError(f"{path} can't be read ({reason}): name a file of JSON lines in UTF-8.") from None
    found = [_question(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise CourseError(f'{path.name} is empty: write a line like {{"prompt": "..."}} for each question.')
    return found


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except ValueError as reason:
        raise CourseError(f"{where}: no JSON ({reason}).") from None
    prompt, answer = (row.get("prompt"), row.get("answer")) if isinstance(row, dict) else (None, None)
    if not isinstance(prompt, str) or not prompt or not isinstance(answer, str | None):
        raise CourseError(f'{where}: write {{"prompt": "...", "answer": "..."}}; the answer may be left out.')
    return Question(prompt, answer)


def model_at(url: str) -> str:
    """The name of the first model that an OpenAI server lists."""
    try:
        return httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        raise CourseError(f"{url}/v1/models names no model: is it an OpenAI server? Or name one by --model.") from None


def bench(
    url: str, language: str, questions: Sequence[Question], at_a_time: Sequence[int], longest: int, model: str = ""
) -> Iterator[tuple[int, Load]]:
    """All questions, so many at a time, for each of these numbers; the load that came of it.

    Raises:
        CourseError: there is no such language, or nothing was answered.
    """
    if language not in LANGUAGES:
        raise CourseError(f"There is no language {language!r} here; there are {', '.join(LANGUAGES)}.")
    if not at_a_time or min(at_a_time) < 1:
        raise CourseError("Name numbers of users of at least 1, as --at-a-time 1,4,16.")
    spoken, url = LANGUAGES[language], url.rstrip("/")
    if language == "openai":
        model = model or model_at(url)
    bodies = [spoken.body(question.prompt, longest, model) for question in questions]
    for users in at_a_time:
        yield users, offer(url + spoken.path, bodies, 1.0, spoken.piece, in_flight=users)


def right(questions: Sequence[Question], load: Load) -> tuple[int, int]:
    """(answers that are the right ones up to white space, questions that have one)."""
    judged = [(q.answer, s) for q, s in zip(questions, load.samples, strict=True) if q.answer is not None]
    return sum(s.ok and s.text.split() == answer.split() for answer, s in judged), len(judged)


HEADER = (
    f"{'users':>6}{'answered':>10}{'requests/s':>12}{'tokens/s':>10}{'first token (s)':>18}"
    f"{'between tokens (ms)':>21}{'answer (s)':>13}{'right':>10}\n{'':38}{'p50':>11}{'p90':>7}{'p50':>21}{'p90':>13}"
)


def row_of(users: int, questions: Sequence[Question], load: Load) -> str:
    """A line of the table."""
    first, between, whole = (
        load.statistics(what) for what in ("time_to_first_token", "inter_token_latency", "request_latency")
    )
    good, judged = right(questions, load)
    return (
        f"{users:6}{f'{len(load.done)}/{len(load.samples)}':>10}{load.request_throughput:12.2f}"
        f"{load.output_token_throughput:10.0f}{first['p50']:11.3f}{first['p90']:7.3f}{1e3 * between['p50']:21.1f}"
        f"{whole['p90']:13.2f}{f'{good}/{judged}' if judged else '-':>10}"
    )
