"""What may be spent: an estimate, a yes, and a limit."""

import pytest

from helpers.cloud.budget import Budget
from helpers.cloud.prices import Prices
from helpers.errors import CourseError

PRICES = Prices("2026-09", {"small": 1.0, "large": 10.0})


def test_the_estimate_is_all_that_is_planned_for_all_the_hours():
    budget = Budget(100.0, 2.0, {"small": 3, "large": 1}, PRICES)
    assert budget.estimate == 26.0 and "$26.00 at most" in str(budget) and "2026-09" in str(budget)
    with pytest.raises(CourseError, match="There is no price of huge"):
        _ = Budget(100.0, 2.0, {"huge": 1}, PRICES).estimate


def test_nothing_goes_on_without_a_yes(monkeypatch):
    monkeypatch.delenv("COURSE_AWS_CONFIRMED", raising=False)
    budget = Budget(5.0, 1.0, {"small": 1}, PRICES)
    budget.confirm(lambda question: " Yes ")

    def nobody(question):
        raise EOFError

    for ask in (lambda question: "", lambda question: "y", nobody):
        with pytest.raises(CourseError, match="Nobody said yes"):
            budget.confirm(ask)
    monkeypatch.setenv("COURSE_AWS_CONFIRMED", "yes")
    budget.confirm(nobody)
    with pytest.raises(CourseError, match=r"you allow \$5.00"):
        Budget(5.0, 6.0, {"small": 1}, PRICES).confirm(lambda question: "yes")


def test_what_goes_over_the_limit_is_not_created():
    budget = Budget(5.0, 1.0, {"small": 5}, PRICES)
    budget.take("small", 3)
    budget.take("small", 2, hours=0.5)
    with pytest.raises(CourseError, match=r"may cost \$2.00, beside \$4.00"):
        budget.take("small", 2)
    budget.take("small", 1)
    assert budget.taken == 5.0
