import sys
sys.path.insert(0, "/tmp/wip17")
from helpers.notebook.exercises.pruning import EXERCISES
from helpers.notebook.exercises.verdict import judge
from tests.notebook.exercises.wrong.pruning import WRONG
for e in EXERCISES:
    print(e.id, judge(e.function(), e).text)
    for f, says in WRONG[e.id]:
        t = judge(f, e).text
        print("  ", "ok " if says in t else "BAD", f.__name__, "|", t)
