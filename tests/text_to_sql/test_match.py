"""What counts as spelled like the reference."""

import pytest

from helpers.text_to_sql.match import is_exact_match, is_normalized_match

REFERENCE = "SELECT name, COUNT(*) FROM ship WHERE port = 'Old Town' AND age >= 5"


@pytest.mark.parametrize(
    ("text", "exact", "alike"),
    [
        (REFERENCE, True, True),
        (f" {REFERENCE}\n", True, True),
        (f"{REFERENCE};", False, True),
        ("select NAME,count( * )\nfrom Ship where port='Old Town' and age>=5 ;", False, True),
        (f"Here it is:\n```sql\n{REFERENCE}\n```\nIt counts.", False, True),
        (REFERENCE.replace("Old Town", "old town"), False, False),
        (REFERENCE.replace("Old Town", "Old  Town"), False, False),
        (REFERENCE.replace(">=", ">"), False, False),
        (REFERENCE.replace("name, COUNT(*)", "COUNT(*), name"), False, False),
        ("I don't know.", False, False),
        ("", False, False),
    ],
)
def test_a_match_is_of_spelling(text, exact, alike):
    assert (is_exact_match(text, REFERENCE), is_normalized_match(text, REFERENCE)) == (exact, alike)
