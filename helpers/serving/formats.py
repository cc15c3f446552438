"""How answers are written down: as TGI does, as SageMaker's large-model container does (then and now), as OpenAI does.

What was `log_prob` in the container's 0.26 is `logprob` now, and `eos_token` is `stop`: `dialect` says which is meant.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.serving.beams import Beam
from helpers.serving.worker import Answer, Token

REASONS = {  # ours is "eos", "stop" or "length"
    "tgi": {"eos": "eos_token", "stop": "stop_sequence", "length": "length"},
    "lmi": {"eos": "stop", "stop": "stop", "length": "length"},
    "lmi-0.26": {"eos": "eos_token", "stop": "stop_sequence", "length": "length"},
    "openai": {"eos": "stop", "stop": "stop", "length": "length"},
}
LOG_PROB = {"tgi": "logprob", "lmi": "logprob", "lmi-0.26": "log_prob"}


@dataclass(frozen=True)
class Dialect:
    """One of TGI's family: "tgi", "lmi" or "lmi-0.26"."""

    name: str
    special: frozenset[int]  # ids of special tokens

    def token(self, token: Token) -> dict:
        log_prob = {LOG_PROB[self.name]: token.log_prob}
        return {"id": token.id, "text": token.text, **log_prob, "special": token.id in self.special}

    def details(self, answer: Answer, tokens: bool = True) -> dict:
        reason, sampling = REASONS[self.name][answer.finish_reason], answer.wanted.sampling
        seed = sampling.seed if sampling.temperature else None
        found = {"finish_reason": reason, "generated_tokens": len(answer.tokens), "seed": seed}
        if self.name == "tgi":
            found["prefill"] = []
        return found | ({"tokens": [self.token(token) for token in answer.tokens]} if tokens else {})

    def whole(self, answer: Answer, before: str, details: bool) -> dict:
        """An answer that is done; `before` is the prompt, where it is wanted back."""
        found = {"generated_text": before + answer.text}
        return found | ({"details": self.details(answer)} if details else {})

    def event(self, answer: Answer, token: Token, before: str) -> dict:
        """One token of a stream; the last one has the whole text, and the details."""
        found = {"token": self.token(token)}
        if self.name == "tgi":
            found |= {"index": len(answer.tokens), "generated_text": None, "details": None}
        if not token.last:
            return found
        return found | {"generated_text": before + answer.text, "details": self.details(answer, tokens=False)}


def openai_choice(answer: Answer, index: int, chat: bool, log_probs: bool, echo: str = "") -> dict:
    """A whole answer as OpenAI's `choices` have it."""
    reason = REASONS["openai"][answer.finish_reason]
    rest = {"index": index, "finish_reason": reason, "logprobs": _log_probs(answer.tokens, chat) if log_probs else None}
    if chat:
        return {"message": {"role": "assistant", "content": answer.text}} | rest
    return {"text": echo + answer.text} | rest


def openai_beam(beam: Beam, text: str, index: int, chat: bool) -> dict:
    """One of the answers of a beam search."""
    rest = {"index": index, "finish_reason": "stop" if beam.ended else "length", "logprobs": None}
    return ({"message": {"role": "assistant", "content": text}} if chat else {"text": text}) | rest


def openai_chunk(token: Token | None, reason: str | None, index: int, chat: bool, log_probs: bool, first: bool) -> dict:
    """A token, or the end, as a piece of a stream; a chat's first one says who speaks."""
    text = token.text if token else ""
    finish = None if reason is None else REASONS["openai"][reason]
    told = _log_probs([token], chat) if log_probs and token else None
    rest = {"index": index, "finish_reason": finish, "logprobs": told}
    if not chat:
        return {"text": text} | rest
    delta = ({"role": "assistant"} if first else {}) | ({"content": text} if token else {})
    return {"delta": delta} | rest


def openai_envelope(
    choices: Sequence[dict], number: str, model: str, chat: bool, chunk: bool, usage: dict | None
) -> dict:
    """What stands around choices."""
    kind = "chat.completion" if chat else "text_completion"
    kind += ".chunk" if chunk and chat else ""
    found = {"id": number, "object": kind, "created": int(time.time()), "model": model, "choices": list(choices)}
    return found | ({"usage": usage} if usage else {})


def usage_of(prompt_tokens: int, answers: Sequence[Answer | Beam]) -> dict:
    written = sum(len(answer.tokens) for answer in answers)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": written, "total_tokens": prompt_tokens + written}


def _log_probs(tokens: Sequence[Token], chat: bool) -> dict:
    if chat:
        return {
            "content": [{"token": t.text, "logprob": t.log_prob, "bytes": None, "top_logprobs": []} for t in tokens]
        }
    texts, log_probs = [t.text for t in tokens], [t.log_prob for t in tokens]
    return {"tokens": texts, "token_logprobs": log_probs, "top_logprobs": None, "text_offset": []}


def line(event: dict) -> bytes:
    """As the container streams: a line of JSON."""
    return json.dumps(event).encode() + b"\n"


def sse(event: dict | str) -> bytes:
    """A server-sent event."""
    data = event if isinstance(event, str) else json.dumps(event)
    return f"data: {data}\n\n".encode()
