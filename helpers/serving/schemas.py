"""What requests and answers look like: TGI's and LMI's own schema, and OpenAI's (notebook 11).

Unknown fields are refused: who asks for something that isn't done should hear so.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from helpers.decoding.sampling import GREEDY, Sampling

MAX_TOKENS = 1 << 20  # the server itself takes fewer
LEAST = 0.01  # below it a temperature is greedy, and logits divided by it are no numbers any more
Whole = Annotated[int, Field(strict=True)]
Share = Annotated[float, Field(ge=1e-6, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=128)]
Stop = Annotated[list[Word], Field(max_length=8)]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def fresh_seed() -> int:
    """For who gives none."""
    return secrets.randbelow(2**31)


class Parameters(Strict):
    """TGI's and LMI's."""

    max_new_tokens: Annotated[Whole, Field(ge=1, le=MAX_TOKENS)] = 128
    do_sample: StrictBool = False
    temperature: Annotated[float, Field(ge=LEAST, le=100)] | None = None
    top_k: Annotated[Whole, Field(ge=1, le=1 << 20)] | None = None
    top_p: Share | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] | None = None
    stop: Stop = []
    stop_sequences: Stop = []  # the container's name for it
    details: StrictBool = False
    return_full_text: StrictBool = False
    ignore_eos_token: StrictBool = False
    adapter_id: Word | None = None  # TGI's name for an adapter of the server's

    def sampling(self) -> Sampling:
        """Greedy unless sampling is asked for, by do_sample or by one of its knobs."""
        if not (self.do_sample or self.temperature or self.top_k or self.top_p):
            return GREEDY
        seed = fresh_seed() if self.seed is None else self.seed
        return Sampling(self.temperature or 1.0, self.top_k or 0, self.top_p or 1.0, seed)


class Generate(Strict):
    """`POST /generate` and `/generate_stream`."""

    inputs: Text
    parameters: Parameters = Parameters()
    stream: StrictBool = False


class Invocation(Strict):
    """`POST /invocations`: one prompt, or several, which are answered at the same time."""

    inputs: Text | Annotated[list[Text], Field(min_length=1, max_length=64)]
    parameters: Parameters = Parameters()
    stream: StrictBool = False
    adapters: Word | None = None  # the container's name for it


class StreamOptions(Strict):
    """`include_usage`: a last chunk that counts tokens."""

    include_usage: StrictBool = False


class OpenAI(Strict):
    """What both of OpenAI's requests may hold."""

    model: str | None = None
    max_tokens: Annotated[Whole, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**62)] | None = None
    n: Annotated[Whole, Field(ge=1, le=16)] = 1
    stop: Word | Stop | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    use_beam_search: StrictBool = False  # vLLM's: the n best answers that a search with n beams finds
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0

    def samplings(self) -> list[Sampling]:
        """One for each answer, with seeds of their own; OpenAI's default temperature is 1."""
        temperature = 1.0 if self.temperature is None else self.temperature
        if temperature < LEAST:
            return [GREEDY] * self.n
        first = fresh_seed() if self.seed is None else self.seed
        return [Sampling(temperature, 0, self.top_p or 1.0, first + number) for number in range(self.n)]

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Completion(OpenAI):
    """`POST /v1/completions`."""

    prompt: Text
    logprobs: Annotated[Whole, Field(ge=0, le=1)] | None = None  # those of the tokens that were chosen
    echo: StrictBool = False


class Message(Strict):
    """A part of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Chat(OpenAI):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[Whole, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: StrictBool = False
