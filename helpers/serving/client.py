"""Ask a server for an answer: whole, token by token, or in several requests one after the other (notebook 11).

The same lines go to TGI, to SageMaker's container of 0.26 and of today: both names of a log-probability are read, and
only "length" means that an answer was cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from helpers.errors import CourseError
from helpers.serving.lines import events_of

TIMEOUT = 600  # seconds: a queue may be long
MIDDLE = "The answer ended in the middle: the server may have stopped. Ask again."


def confidence(log_probs: Sequence[float]) -> float:
    """exp of the mean log-probability: the geometric mean of the tokens' probabilities."""
    if not log_probs:
        raise CourseError("No token has a log-probability: ask with details.")
    return math.exp(sum(log_probs) / len(log_probs))


@dataclass
class Told:
    """What a server has told of an answer: its text, each token's text and log-probability, and why it ended."""

    text: str = ""
    pieces: list[str] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def cut_off(self) -> bool:
        """Whether it would have gone on."""
        return self.finish_reason == "length"

    @property
    def confidence(self) -> float:
        """Of all tokens."""
        return confidence(self.log_probs)


def log_prob_of(token: dict) -> float:
    """A token's log-probability, by either name."""
    return token["logprob"] if "logprob" in token else token["log_prob"]


def ask(url: str, prompt: str, *, path: str = "/invocations", client: httpx.Client | None = None, **parameters) -> Told:
    """A whole answer, with details."""
    body = {"inputs": prompt, "parameters": parameters | {"details": True}}
    with _in_words(url):
        response = (client or httpx).post(url + path, json=body, timeout=TIMEOUT)
    return told_of(checked(response).json())


def told_of(answer: dict) -> Told:
    """A whole answer with details."""
    details = answer["details"]
    tokens = details["tokens"]
    return Told(
        answer["generated_text"],
        [token["text"] for token in tokens],
        [log_prob_of(token) for token in tokens],
        details["finish_reason"],
    )


def ask_all(url: str, prompts: Sequence[str], at_a_time: int, **parameters) -> list[Told]:
    """Whole answers in the order of the prompts, so many at a time."""
    with httpx.Client() as client, ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(lambda prompt: ask(url, prompt, client=client, **parameters), prompts))


def stream(url: str, prompt: str, *, path: str = "/invocations", **parameters) -> Iterator[Told]:
    """The answer as it grows: the same `Told` after each token, the last time with its finish_reason.

    Raises:
        CourseError: the server isn't there, refuses, or ends in the middle.
    """
    body = {"inputs": prompt, "parameters": parameters | {"details": True}, "stream": True}
    with _in_words(url), httpx.stream("POST", url + path, json=body, timeout=TIMEOUT) as response:
        if response.status_code != 200:
            response.read()
            checked(response)
        yield from told_by(events_of(response.iter_bytes()))


def told_by(events: Iterable[dict]) -> Iterator[Told]:
    """The answer after each event of its stream; CourseError where one tells of a failure, or the last one is
    missing."""
    told = Told()
    for event in events:
        if not event.get("token") or (event.get("details") or {}).get("finish_reason") == "error":
            raise CourseError(MIDDLE)
        token = event["token"]
        told.pieces.append(token["text"])
        told.log_probs.append(log_prob_of(token))
        told.text += token["text"]
        if event.get("details"):
            told.finish_reason = event["details"]["finish_reason"]
            told.text = event["generated_text"]
        yield told
    if told.finish_reason is None:
        raise CourseError(MIDDLE)


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError:
        raise CourseError(f"Nobody answers at {url}: start the server, or correct the address.") from None
    except httpx.TransportError:
        raise CourseError(MIDDLE) from None


def chained(url: str, prompt: str, each: int, longest: int, **parameters) -> list[Told]:
    """Requests of `each` tokens, every one going on from the text before, until one isn't cut off; of `longest` tokens
    in all at most. Greedy, they are one long answer, as long as the text so far has the tokens that it was written
    in."""
    if parameters.keys() & {"return_full_text", "stop", "stop_sequences"}:
        raise CourseError("Chained requests take no return_full_text and no stop strings: these may fall between two.")
    return chain(lambda text, most: ask(url, text, max_new_tokens=most, **parameters), prompt, each, longest)


def chain(ask_for: Callable[[str, int], Told], prompt: str, each: int, longest: int) -> list[Told]:
    """As `chained`; `ask_for` takes a text and the most tokens that its answer may have."""
    parts: list[Told] = []
    while longest > 0 and (not parts or parts[-1].cut_off):
        parts.append(ask_for(prompt, min(each, longest)))
        prompt += parts[-1].text
        longest -= len(parts[-1].pieces)
    return parts


def checked(response: httpx.Response) -> httpx.Response:
    """The response; CourseError with the server's own sentence where it refuses."""
    if response.status_code != 200:
        try:
            error = response.json()["error"]
            reason = error["message"] if isinstance(error, dict) else error
        except (ValueError, KeyError, TypeError):
            reason = response.text[:200]
        raise CourseError(f"The server refused the request ({response.status_code}): {reason}")
    return response
