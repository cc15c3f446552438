"""A check says right, or what is wrong, or not attempted, and the notebook goes on."""

from helpers.estimate import balance_rows, least_milliseconds
from helpers.exercises import check

CASES = [(40e6, 20e9), (14e9, 3e12)]


def test_the_reference_passes_and_is_kept(capsys):
    def mine(size, bandwidth):
        return 1000 * size / bandwidth

    assert check(mine, least_milliseconds, CASES) is mine
    assert capsys.readouterr().out == "Right, in all 2 cases.\n"


def test_wrong_answers_are_told_by_how_much(capsys):
    wrong = {
        "0.001 times": lambda size, bandwidth: size / bandwidth,  # seconds
        "2 times": lambda size, bandwidth: 2e3 * size / bandwidth,
        "it should be 2": lambda size, bandwidth: 1e3 * bandwidth / size,
    }
    for says, mine in wrong.items():
        assert check(mine, least_milliseconds, CASES) is least_milliseconds
        assert says in capsys.readouterr().out


def test_a_stub_an_exception_and_a_wrong_type_go_on_with_the_reference(capsys):
    def broken(size, bandwidth):
        return size / nothing  # noqa: F821

    for says, mine in (("Not attempted", lambda *_: None), ("NameError", broken), ("a str", lambda *_: "2 ms"),
                       ("a bool", lambda *_: True), ("TypeError", lambda size: size)):  # fmt: skip
        assert check(mine, least_milliseconds, CASES) is least_milliseconds
        assert says in capsys.readouterr().out


def test_an_exception_names_the_learner_s_line(capsys):
    def broken(size, bandwidth):
        return size / 0

    check(broken, least_milliseconds, CASES)
    assert f"line {broken.__code__.co_firstlineno + 1}" in capsys.readouterr().out


def test_the_balance_is_where_both_take_the_same_time():
    rows = balance_rows(2, 3e12, 990e12)
    assert rows * 2 / 990e12 == 2 / 3e12
