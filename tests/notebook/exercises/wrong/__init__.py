"""Wrong answers that a learner would really give: a file for each notebook, as in helpers/notebook/exercises.

Each holds WRONG, a dict from an exercise's id to (function, text) pairs: the text is what the verdict has to say about
that mistake, and no two mistakes of an exercise get the same one.
"""
