"""How people ask: wordings for comparisons and for each kind of question.

Every wording of a kind asks for the same SQL; `pick` draws one. `{ts}` is the plural of the table, `{c}` a column
as spoken, `{where}` the conditions as they follow the noun ("older than 5", "whose city is Oslo").
"""

from __future__ import annotations

# "whose {c} ...": a full predicate; "with {c} ...": a short one
PREDICATES = {
    ">": ("is greater than {v}", "is more than {v}", "is above {v}", "is over {v}", "exceeds {v}", "is higher than {v}",
          "is larger than {v}", "is bigger than {v}"),
    ">=": ("is at least {v}", "is no less than {v}", "is {v} or more", "is not below {v}", "is {v} or higher"),
    "<": ("is less than {v}", "is below {v}", "is under {v}", "is smaller than {v}", "is lower than {v}"),
    "<=": ("is at most {v}", "is no more than {v}", "is {v} or less", "is not above {v}", "is {v} or lower",
           "does not exceed {v}"),
    "=": ("is {v}", "is {v}", "equals {v}", "is exactly {v}", "is equal to {v}"),
    "!=": ("is not {v}", "is different from {v}", "is other than {v}", "is anything but {v}"),
    "BETWEEN": ("is between {v} and {w}", "lies between {v} and {w}", "is from {v} to {w}", "ranges from {v} to {w}",
                "falls between {v} and {w}", "is in the range {v} to {w}"),
}  # fmt: skip
SHORT = {
    ">": ("above {v}", "over {v}", "greater than {v}", "of more than {v}", "higher than {v}"),
    ">=": ("of at least {v}", "of {v} or more", "at or above {v}"),
    "<": ("below {v}", "under {v}", "less than {v}", "of less than {v}", "lower than {v}"),
    "<=": ("of at most {v}", "of {v} or less", "up to {v}", "of no more than {v}"),
    "=": ("{v}", "of {v}", "equal to {v}", "of exactly {v}"),
    "!=": ("other than {v}", "not {v}", "different from {v}"),
    "BETWEEN": ("between {v} and {w}", "from {v} to {w}", "in the range {v} to {w}"),
}
TEXT_PREDICATES = {
    "=": ("is {v}", "is {v}", "is {v}", "equals {v}", "is listed as {v}", "was recorded as {v}"),
    "!=": ("is not {v}", "isn't {v}", "is different from {v}", "is anything but {v}"),
}
TEXT_SHORT = {"=": ("{v}", "{v}", "of {v}", "equal to {v}"), "!=": ("other than {v}", "not {v}", "different from {v}")}
COUNTED = {
    ">": ("with more than {v} {c}", "that have more than {v} {c}", "with over {v} {c}", "having more than {v} {c}"),
    ">=": ("with at least {v} {c}", "that have {v} or more {c}", "that have at least {v} {c}"),
    "<": ("with fewer than {v} {c}", "with less than {v} {c}", "that have under {v} {c}", "that have fewer than {v} {c}"),
    "<=": ("with at most {v} {c}", "that have no more than {v} {c}", "with {v} or fewer {c}"),
    "=": ("with exactly {v} {c}", "with {v} {c}", "that have {v} {c}"),
    "BETWEEN": ("with between {v} and {w} {c}", "that have {v} to {w} {c}"),
}  # fmt: skip
YEARS = {
    ">": ("from after {v}", "dated after {v}"), "<": ("from before {v}", "dated before {v}"),
    ">=": ("from {v} or later", "since {v}", "dated {v} or later"), "<=": ("from {v} or earlier", "up to {v}"),
    "=": ("from {v}", "of {v}"), "BETWEEN": ("from {v} to {w}", "between {v} and {w}", "dated between {v} and {w}"),
}  # fmt: skip
OPEN = ("whose", "where the", "where", "with", "with a", "that have a", "having", "which have")

# how a noun phrase becomes a question; "|" parts: singular-safe first
ASK = (
    "Show me {np}.", "List {np}.", "Give me {np}.", "Find {np}.", "What is {np}?", "What are {np}?", "Return {np}.",
    "I need {np}.", "Tell me {np}.", "Can you list {np}?", "Please show {np}.", "Get {np}.", "Could you give me {np}?",
    "I would like to see {np}.", "Display {np}.", "Look up {np}.", "{np}", "{np}?", "I want {np}.", "Do you know {np}?",
    "What's {np}?", "Let me see {np}.", "Show {np}",
)  # fmt: skip

NOUN_PHRASES = {
    "select": ("the {cs} of {ts}{where}", "the {cs} of the {ts}{where}", "the {cs} for {ts}{where}",
               "the {cs} of all {ts}{where}", "{cs} of {ts}{where}", "the {cs} of every {t}{where}",
               "the {cs} of any {t}{where}", "the {cs} for each {t}{where}"),
    "label": ("the {ts}{where}", "all {ts}{where}", "{ts}{where}", "every {t}{where}", "the names of {ts}{where}"),
    "star": ("everything about {ts}{where}", "all details of {ts}{where}", "all information on {ts}{where}",
             "the full records of {ts}{where}", "all columns for {ts}{where}", "every detail of the {ts}{where}",
             "the complete rows of {ts}{where}", "all data on {ts}{where}", "all the fields of {ts}{where}",
             "whatever is known about {ts}{where}"),
    "count": ("the number of {ts}{where}", "how many {ts} there are{where}", "the count of {ts}{where}",
              "the total number of {ts}{where}", "a count of the {ts}{where}"),
    "distinct": ("the different {cp} of {ts}{where}", "the distinct {cp} of {ts}{where}",
                 "the unique {cp} of the {ts}{where}", "all the different {cp} of {ts}{where}",
                 "the {cp} of {ts}{where}, without duplicates", "the {cp} of {ts}{where}, each only once",
                 "the {cp} of {ts}{where} without repeats", "every distinct {c} of the {ts}{where}"),
    "count_distinct": ("the number of different {cp} of {ts}{where}", "the number of distinct {cp} of {ts}{where}",
                       "how many different {cp} the {ts}{where} have", "the number of unique {cp} among {ts}{where}",
                       "the count of distinct {cp} for {ts}{where}"),
    "AVG": ("the average {c} of {ts}{where}", "the mean {c} of the {ts}{where}", "the average {c} of all {ts}{where}",
            "the average {c} for {ts}{where}", "the {c} of {ts}{where} on average", "the mean {c} across {ts}{where}"),
    "SUM": ("the total {c} of {ts}{where}", "the sum of the {c} of {ts}{where}", "the combined {c} of all {ts}{where}",
            "the total {c} of all {ts}{where}", "the summed {c} of the {ts}{where}",
            "the total {c} across {ts}{where}"),
    "MAX": ("the highest {c} of {ts}{where}", "the maximum {c} of the {ts}{where}", "the largest {c} among {ts}{where}",
            "the greatest {c} of all {ts}{where}", "the biggest {c} of any {t}{where}",
            "the top {c} for {ts}{where}"),
    "MIN": ("the lowest {c} of {ts}{where}", "the minimum {c} of the {ts}{where}", "the smallest {c} among {ts}{where}",
            "the least {c} of all {ts}{where}", "the smallest {c} of any {t}{where}",
            "the lowest {c} for {ts}{where}"),
    "two": ("the {a} and the {b} {c} of {ts}{where}", "the {a} and {b} {c} of the {ts}{where}",
            "the {a} {c} and the {b} {c} of {ts}{where}", "the {a} and {b} {c} among {ts}{where}",
            "{a} and {b} {c} of all {ts}{where}"),
    "sorted": ("the {cs} of {ts}{where}, {order}", "the {cs} of all {ts}{where} {order}", "{cs} of {ts}{where} {order}",
               "the {cs} of the {ts}{where}, {order}", "the {cs} for {ts}{where} {order}"),
    "best": ("the {cs} of the {t}{where} with the {most} {o}", "the {cs} of the {t} with the {most} {o}{where}",
             "the {cs} of the {sup} {t}{where}"),
    "top": ("the {cs} of the {k} {ts}{where} with the {most} {o}", "the {cs} of the {top} {k} {ts}{where} by {o}",
            "the {cs} of the {k} {sup} {ts}{where}", "the {top} {k} {ts}{where} by {o}, with their {cs}"),
    "group_count": ("the number of {ts}{where} for each {g}", "the number of {ts}{where} per {g}",
                    "how many {ts}{where} there are for each {g}", "each {g} and its number of {ts}{where}",
                    "the count of {ts}{where} by {g}", "for every {g}, the number of {ts}{where}"),
    "group_agg": ("the {agg} {c} of {ts}{where} for each {g}", "the {agg} {c} of the {ts}{where} per {g}",
                  "each {g} with the {agg} {c} of its {ts}{where}", "the {agg} {c} by {g}{for_where}",
                  "for every {g}, the {agg} {c} of {ts}{where}", "the {agg} {c} of {ts}{where} grouped by {g}"),
    "having": ("the {gp} with {many} {ts}{where}", "the {gp} that have {many} {ts}{where}",
               "each {g} with {many} {ts}{where}", "every {g} that has {many} {ts}{where}",
               "the {gp} shared by {many} {ts}{where}", "any {g} with {many} {ts}{where}"),
    "common": ("the {common} {g} among {ts}{where}", "the {common} {g} of {ts}{where}",
               "the {g} with the {most_n} {ts}{where}", "the {common} {g} of the {ts}{where}",
               "the {g} that has the {most_n} {ts}{where}", "the {g} shared by the {most_n} {ts}{where}"),
}  # fmt: skip

# questions with a verb of their own; the others come from ASK and a noun phrase
QUESTIONS = {
    "select": ("What {cs} do {ts}{where} have?", "Which {cs} belong to {ts}{where}?", "For {ts}{where}, what is the {cs}?",
               "For each {t}{where}, give the {cs}.", "What is the {cs} of {ts}{where}?",
               "{Ts}{where}: what is their {cs}?"),
    "label": ("Which {ts}{are}?", "Which {t}{is}?", "What {ts}{are}?", "Which {ts} are there{where}?",
              "What are the names of the {ts}{where}?", "Name the {ts}{where}.", "Which {ts}{are}?", "Who or what are the {ts}{where}?"),
    "star": ("What do we know about {ts}{where}?", "Show all there is on {ts}{where}.",
             "Give me every column of the {ts}{where}."),
    "count": ("How many {ts}{are}?", "How many {ts} are there{where}?", "How many {ts}{where} do we have?",
              "Count the {ts}{where}.", "How many {ts}{where} exist?", "How many {ts}{where} are in the table?",
              "Count all {ts}{where}", "How many {ts} do we have{where}?"),
    "distinct": ("Which different {cp} do {ts}{where} have?", "What distinct {cp} are there for {ts}{where}?",
                 "Which {cp} occur among {ts}{where}, each listed once?", "What are the different {cp} of {ts}{where}?"),
    "count_distinct": ("How many different {cp} do {ts}{where} have?", "How many distinct {cp} are there for {ts}{where}?",
                       "How many unique {cp} do the {ts}{where} have?", "Count the distinct {cp} of {ts}{where}.",
                       "How many different {cp} occur among {ts}{where}?"),
    "AVG": ("What {c} do {ts}{where} have on average?", "How much {c} do {ts}{where} have on average?",
            "On average, what is the {c} of {ts}{where}?", "Average {c} of {ts}{where}?"),
    "SUM": ("How much {c} do {ts}{where} have in total?", "What is the {c} of all {ts}{where} together?",
            "What does the {c} of {ts}{where} add up to?", "Add up the {c} of {ts}{where}."),
    "MAX": ("How high does the {c} of {ts}{where} go?", "What is the most {c} any {t}{where} has?",
            "What {c} is the highest among {ts}{where}?", "Highest {c} of {ts}{where}?"),
    "MIN": ("How low does the {c} of {ts}{where} go?", "What is the least {c} any {t}{where} has?",
            "What {c} is the lowest among {ts}{where}?", "Lowest {c} of {ts}{where}?"),
    "two": ("What are the {a} and {b} {c} of {ts}{where}?", "What are the {a} and the {b} {c} among {ts}{where}?",
            "For {ts}{where}, what are the {a} and {b} {c}?", "{A} and {b} {c} of {ts}{where}?",
            "Give both the {a} and the {b} {c} of {ts}{where}."),
    "sorted": ("List {ts}{where} by {cs}, {order}.", "Sort the {ts}{where}: give the {cs}, {order}.",
               "What are the {cs} of {ts}{where}, {order}?", "Give the {cs} of {ts}{where} {order}.",
               "Show the {cs} of all {ts}{where}, {order}."),
    "best": ("Which {cs} does the {t}{where} with the {most} {o} have?", "What is the {cs} of the {sup} {t}{where}?",
             "Which {t}{where} has the {most} {o}? Give its {cs}.", "The {sup} {t}{where}: what is its {cs}?",
             "What {cs} does the {sup} {t}{where} have?", "Find the {sup} {t}{where} and give its {cs}.",
             "What is the {cs} of the {t}{where} with the {most} {o}?"),
    "best_label": ("Which {t}{where} has the {most} {o}?", "Which {t}{where} is the {sup}?", "What is the {sup} {t}{where}?",
                   "Name the {sup} {t}{where}.", "Which is the {sup} {t}{where}?", "The {sup} {t}{where}?",
                   "Who or what is the {sup} {t}{where}?", "Find the {t}{where} with the {most} {o}.",
                   "Show me the {sup} {t}{where}.", "Tell me which {t}{where} has the {most} {o}."),
    "top": ("What are the {cs} of the {k} {sup} {ts}{where}?", "Which {cs} do the {k} {sup} {ts}{where} have?",
            "Give the {cs} of the {top} {k} {ts}{where} by {o}.", "Take the {k} {ts}{where} with the {most} {o}: what {cs} do they have?",
            "For the {k} {sup} {ts}{where}, show the {cs}."),
    "top_label": ("Which {k} {ts}{where} have the {most} {o}?", "What are the {k} {sup} {ts}{where}?",
                  "Name the {k} {sup} {ts}{where}.", "List the {top} {k} {ts}{where} by {o}.", "The {k} {sup} {ts}{where}?",
                  "Show me the {k} {sup} {ts}{where}.", "Which are the {k} {sup} {ts}{where}?",
                  "Find the {k} {ts}{where} with the {most} {o}.", "Give me the {top} {k} {ts}{where} by {o}.",
                  "I want the {k} {sup} {ts}{where}."),
    "group_count": ("How many {ts}{where} are there for each {g}?", "How many {ts}{where} does each {g} have?",
                    "For each {g}, how many {ts}{where} are there?", "Count the {ts}{where} per {g}.",
                    "How many {ts}{where} are there per {g}?", "How many {ts}{where} are in each {g}?"),
    "group_agg": ("What is the {agg} {c} of {ts}{where} for each {g}?", "For each {g}, what is the {agg} {c} of {ts}{where}?",
                  "What {agg} {c} does each {g} have{for_where}?", "Show each {g} and its {agg} {c}{for_where}.",
                  "What is the {agg} {c} per {g}{for_where}?"),
    "having": ("Which {gp} have {many} {ts}{where}?", "Which {gp} occur in {many} {ts}{where}?", "What {gp} have {many} {ts}{where}?",
               "Which {g} has {many} {ts}{where}?", "For which {gp} are there {many} {ts}{where}?"),
    "common": ("Which {g} has the {most_n} {ts}{where}?", "Which {g} is the {common} among {ts}{where}?",
               "Which {g} do the {most_n} {ts}{where} have?", "What is the {common} {g} of {ts}{where}?",
               "Which {g} occurs {often} among {ts}{where}?"),
}  # fmt: skip

AGGREGATES = {"AVG": ("average", "mean"), "SUM": ("total", "combined"), "MAX": ("highest", "maximum", "largest"),
              "MIN": ("lowest", "minimum", "smallest")}  # fmt: skip
MOST = {True: ("highest", "most", "largest", "greatest", "biggest", "maximum"),
        False: ("lowest", "least", "smallest", "minimum")}  # fmt: skip
ORDER = {
    True: ("sorted by {o} in descending order", "ordered by {o} from highest to lowest", "by {o}, highest first",
           "sorted by {o} descending", "in descending order of {o}", "ordered by {o}, largest first"),
    False: ("sorted by {o}", "ordered by {o}", "sorted by {o} in ascending order", "from lowest to highest {o}",
            "in ascending order of {o}", "ordered by {o}, lowest first"),
}  # fmt: skip
TEXT_ORDER = {
    True: ("in reverse alphabetical order of {o}", "sorted by {o} from Z to A", "sorted by {o} in descending order"),
    False: ("in alphabetical order of {o}", "sorted alphabetically by {o}", "sorted by {o} from A to Z",
            "sorted by {o}", "ordered by {o}"),
}  # fmt: skip
MANY = {">": ("more than {n}", "over {n}"), ">=": ("at least {n}", "{n} or more"), "<": ("fewer than {n}", "less than {n}"),
        "=": ("exactly {n}",)}  # fmt: skip
RANKS = {True: ("top", "most", "most often"), False: ("bottom", "fewest", "least often")}
COMMON = {True: ("most common", "most frequent"), False: ("least common", "rarest", "least frequent")}

OPENINGS = (
    "Sure!", "Of course.", "Certainly!", "Happy to help.", "Here you go.", "Good question.", "No problem.", "Let me see.",
    "Absolutely.", "Okay.", "Alright.", "Great question!", "Thanks for asking.", "Gladly.", "With pleasure.", "Right.",
    "Sure thing.", "That is easy.", "One moment.", "Yes, we can do that.", "Fine.", "Let us look.", "Here is a query.", "I can do that.",
)  # fmt: skip
RESTATED = (
    "To get {np}, run:", "You asked for {np}:", "This query finds {np}:", "Here is {np}:", "For {np}, use:",
    "I read this as {np}:", "This returns {np}:", "So we want {np}:",
)  # fmt: skip
LEADS = ("Run this query:", "Try this:", "This should work:", "The query is:", "Here is the SQL:", "Use this:")
RESTATED_AFTER = (
    "It returns {np}.", "This gives {np}.", "That is {np}.", "You will see {np}.", "The result is {np}.",
    "It looks up {np}.",
)  # fmt: skip
CLOSINGS = (
    "Hope that helps!", "Let me know if it works.", "Anything else?", "Run it and see.", "Ask me if it fails.", "Good luck!",
    "That is all.", "Enjoy!", "It should be fast.", "Tell me how it goes.", "Easy enough.", "Cheers!", "That should do it.",
    "Feel free to ask more.", "Have fun!", "You are welcome.", "Try it out.", "Done!", "Just ask for more.", "All set.",
    "I hope this is clear.", "Happy querying!", "Glad to help.", "See you!",
)  # fmt: skip


def template_words() -> frozenset[str]:
    """Every word that the wordings themselves use: function words, never drawn as names."""
    import re

    def strings(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
        return [s for v in values for s in strings(v)]

    text = " ".join(s for value in list(globals().values()) if isinstance(value, (dict, tuple)) for s in strings(value))
    return frozenset(w.lower() for w in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text)))
