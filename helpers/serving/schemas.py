"""What requests and answers look like: TGI's and LMI's own schema, and OpenAI's (notebook 11).

Unknown fields are refused: who asks for something that isn't done should hear so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from helpers.decoding.sampling import GREEDY, Sampling

MAX_TOKENS = 4096
Temperature = Annotated[float, Field(ge=0, le=100)]
Stop = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=8)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Parameters(Strict):
    """TGI's and LMI's."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 128
    do_sample: StrictBool = False
    temperature: Annotated[float, Field(gt=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stop = []
    details: StrictBool = False
    return_full_text: StrictBool = False
    ignore_eos_token: StrictBool = False

    def sampling(self) -> Sampling:
        """Greedy unless sampling is asked for."""
        if not self.do_sample:
            return GREEDY
        return Sampling(self.temperature or 1.0, self.top_k or 0, self.top_p or 1.0, self.seed or 0)


class Generate(Strict):
    """`POST /generate` and `/generate_stream`."""

    inputs: Annotated[str, Field(min_length=1)]
    parameters: Parameters = Parameters()
    stream: StrictBool = False


class Invocation(Strict):
    """`POST /invocations`: one prompt, or several, which are answered at the same time."""

    inputs: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=64)]
    )
    parameters: Parameters = Parameters()
    stream: StrictBool = False


class OpenAI(Strict):
    """What both of OpenAI's requests may hold."""

    model: str = ""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] = 1
    stop: Annotated[str, Field(min_length=1)] | Stop | None = None
    stream: StrictBool = False
    user: str | None = None

    def sampling(self, number: int = 0) -> Sampling:
        """Of the answer with that number; OpenAI's default temperature is 1."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature, 0, self.top_p or 1.0, (self.seed or 0) + number) if temperature else GREEDY

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Completion(OpenAI):
    """`POST /v1/completions`."""

    prompt: Annotated[str, Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None  # those of the tokens that were chosen
    echo: StrictBool = False


class Message(Strict):
    """A part of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(OpenAI):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: StrictBool = False
