"""The race shows what was recorded: every token once, in order, with its true time and who guessed it."""

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from helpers.decoding.completion import Completion, Step
from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.decoding.transcript import OWN
from helpers.errors import CourseError
from helpers.notebook.race import GUESSERS, Race, _legend, _picture, blocks, mark_of
from helpers.speculation.guessers import NAMES

SCHEMA = "CREATE TABLE ship (name TEXT, weight INTEGER)"
TEXT = "SELECT name FROM ship"


class Letters:
    def decode(self, tokens):
        return "".join(TEXT[t] for t in tokens)


def answer(*runs):
    """Steps of (tokens, accepted, proposal), 10 ms each, that write TEXT letter by letter."""
    done, at = Completion(4, text=TEXT), 0
    for count, accepted, proposal in runs:
        kind = "decode" if at else "prefill"
        emitted = tuple(range(at, at + count))
        done.steps.append(Step(kind, 0.01, 1 + len(proposal.tokens), at, proposal, accepted, emitted, (0.0,) * count))
        at += count
    done.token_ids = list(range(at))
    return done


def _title(fig):
    return fig.axes[0].get_title() or fig.axes[0].get_title(loc="left")


@pytest.fixture
def lanes():
    tree = Proposal([1, 9, 2], [-1, -1, 0], ["head 1", "head 1", "head 2"])
    medusa = answer(
        (1, (), NOTHING),
        (3, (0, 2), tree),
        (2, (0,), chain([4, 9], "lookup")),
        *[(5, (0, 1, 2, 3), chain(range(n, n + 4), "head 3")) for n in (6, 11, 16)],
    )
    return {"greedy": answer(*[(1, (), NOTHING)] * 21), "Medusa": medusa}


def test_every_token_once_and_in_order(lanes):
    for completion in lanes.values():
        drawn = blocks(completion, Letters())
        assert "".join(text for block in drawn for text, _ in block.emitted) == TEXT
        assert [block.start for block in drawn] == pytest.approx([0.01 * i for i in range(len(drawn))])
        assert drawn[-1].end == pytest.approx(completion.seconds)


def test_who_guessed_and_what_was_wrong(lanes):
    drawn = blocks(lanes["Medusa"], Letters())
    assert [mark for _, mark in drawn[1].emitted] == ["1", "2", OWN] and drawn[1].rejected == (TEXT[9],)
    assert [mark for _, mark in drawn[2].emitted] == ["L", OWN] and drawn[2].rejected == (TEXT[9],)


def test_the_figure_shows_no_block_before_its_time_and_the_result_at_the_end(lanes):
    race = Race(lanes, Letters(), SCHEMA)
    early, end = race.figure(0.015), race.figure()
    assert race.title.startswith("The same answer by each lane")
    texts = [[t.get_text() for t in fig.axes[0].texts] for fig in (early, end)]
    assert len(early.axes[0].patches) == 4 and len(end.axes[0].patches) == 21 + 6
    assert not any("returns" in t for t in texts[0]) and sum("On invented rows it returns" in t for t in texts[1]) == 2
    assert race.seconds == pytest.approx(0.21)
    plt.close("all")


def test_the_animation_is_small_and_says_how_slow_it_is(lanes, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "helpers.notebook.race._picture", lambda fig, real=_picture: titles.append(_title(fig)) or real(fig)
    )
    path = Race(lanes, Letters(), SCHEMA).gif(tmp_path / "race.gif", slower=10)
    with Image.open(path) as picture:
        assert picture.n_frames >= 20
    assert titles and all("replayed 10 times slower" in title for title in titles)
    assert path.stat().st_size < 500_000


def test_a_race_needs_two(lanes):
    with pytest.raises(CourseError, match="two recorded answers"):
        Race({"greedy": lanes["greedy"]}, Letters(), SCHEMA)


def test_every_guesser_has_a_mark_of_its_own_that_the_legend_explains():
    marks = [mark for mark, _ in GUESSERS.values()]
    assert len(set(marks)) == len(marks) and mark_of("head 3") == "3"
    assert {"heads", *GUESSERS} >= set(NAMES)  # none goes by the first letter of its name, which may be another's
    legend = _legend({*marks, "1", "4", OWN})
    assert all(f"{mark}: " in legend for mark in marks) and "1 to 4: guessed by that head" in legend
    assert "recycled" not in _legend({"1"})


def test_wrong_guesses_stand_behind_a_cross_and_can_be_read(lanes):
    fig = Race(lanes, Letters(), SCHEMA).figure()
    crossed = [t.get_text() for t in fig.axes[0].texts if t.get_text().startswith("× ")]
    assert len(crossed) == 2 and all("\u0336" not in text for text in crossed)
    plt.close("all")
