"""A transcript names every guesser, and puts a cross before what was wrong."""

from helpers.decoding.completion import Completion, Step
from helpers.decoding.proposals import NOTHING, chain
from helpers.decoding.transcript import crossed, transcript


class Letters:
    def decode(self, tokens):
        return "".join(chr(96 + t) for t in tokens)


def test_who_guessed_what_and_what_was_wrong():
    done = Completion(
        3,
        steps=[
            Step("prefill", 0.1, 3, 0, NOTHING, (), (1,), (0.0,)),
            Step("decode", 0.1, 4, 3, chain([2, 3, 4], "lookup"), (0, 1), (2, 3, 5), (0.0,) * 3),
            Step("decode", 0.1, 2, 6, chain([6], "draft"), (), (7,), (0.0,)),
            Step("decode", 0.1, 3, 7, chain([8, 9], "draft"), (0,), (8,), (0.0,)),  # the answer ends with a guess
        ],
    )
    assert transcript(done, Letters()) == [
        "step  0: 'a'·",
        "step  1: 'b'[lookup] 'c'[lookup] 'e'·  × 'd'",
        "step  2: 'g'·  × 'f'",
        "step  3: 'h'[draft]",
    ]
    assert crossed("ab") == "× 'ab'"
