"""A benchmark on one's own questions: all three languages, the right counts, and a sentence for a wrong file."""

import json

import pytest

from helpers.errors import CourseError
from helpers.serving import bench, client
from helpers.serving.bench import Question
from helpers.serving.load_test import Load, Sample
from tests.serving.test_server import PROMPT


@pytest.mark.parametrize("language", sorted(bench.LANGUAGES))
def test_every_language_counts_the_same_tokens_and_right_answers(server, language):
    answer = client.ask(server.url, PROMPT, max_new_tokens=6).text
    questions = [Question(PROMPT, answer), Question(PROMPT, "another"), Question("Who?")]
    found = dict(bench.bench(server.url + "/", language, questions, [1, 3], 6))
    assert set(found) == {1, 3}
    for users, load in found.items():
        assert len(load.done) == 3 and sum(sample.num_tokens for sample in load.done) == 18
        assert bench.right(questions, load) == (1, 2)
        assert "3/3" in bench.row_of(users, questions, load) and "1/2" in bench.row_of(users, questions, load)


def test_white_space_doesn_t_count_and_no_answer_is_no_right_one():
    samples = [Sample(0, (1.0, 2.0), 200, " a\n b "), Sample(0, (), 429), Sample(0, (1.0,), 200, "c")]
    questions = [Question("1", "a b"), Question("2", ""), Question("3")]
    assert bench.right(questions, Load(samples)) == (1, 2)
    assert "2/3" in bench.row_of(1, questions, Load(samples))


def test_a_file_is_read_line_by_line(tmp_path):
    file = tmp_path / "my.jsonl"
    file.write_text('\ufeff{"prompt": "a"}\r\n\n{"prompt": "b\u2028", "answer": "c"}\n', encoding="utf-8", newline="")
    assert bench.questions_of(file) == [Question("a"), Question("b\u2028", "c")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"my.jsonl is empty: write a line"),
        ('{"prompt": "a"}\n{"prompt"', r"my.jsonl, line 2: no JSON"),
        ('["a"]', r"my.jsonl, line 1: write"),
        ('{"prompt": ""}', r"my.jsonl, line 1: write"),
        ('{"prompt": "a", "answer": 5}', r"my.jsonl, line 1: write"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, sentence):
    file = tmp_path / "my.jsonl"
    file.write_text(text)
    with pytest.raises(CourseError, match=sentence):
        bench.questions_of(file)
    with pytest.raises(CourseError, match="can't be read"):
        bench.questions_of(tmp_path / "nowhere.jsonl")


def test_a_server_that_isn_t_there_and_a_language_that_nobody_speaks(server):
    with pytest.raises(CourseError, match="There is no language 'latin' here; there are openai, tgi, lmi"):
        list(bench.bench(server.url, "latin", [Question("a")], [1], 4))
    with pytest.raises(CourseError, match="at least 1"):
        list(bench.bench(server.url, "lmi", [Question("a")], [0], 4))
    with pytest.raises(CourseError, match="names no model"):
        list(bench.bench("http://127.0.0.1:9", "openai", [Question("a")], [1], 4))
    [(_, load)] = bench.bench("http://127.0.0.1:9", "lmi", [Question("a")], [1], 4)
    with pytest.raises(CourseError, match="No request was answered"):
        bench.row_of(1, [Question("a")], load)


def test_answers_of_one_token_have_no_time_between_tokens(server):
    [(_, load)] = bench.bench(server.url, "lmi", [Question("a")], [1], 1)
    assert "nan" in bench.row_of(1, [Question("a")], load)


def test_the_command(server, tmp_path, capsys, monkeypatch):
    from helpers.__main__ import main

    file = tmp_path / "my.jsonl"
    file.write_text(json.dumps({"prompt": PROMPT}) + "\n")
    command = ["helpers", "bench", "--url", server.url, "--data", str(file), "--at-a-time", "1,2"]
    monkeypatch.setattr("sys.argv", [*command, "--max-new-tokens", "4"])
    assert main() == 0
    header, _, one, two = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "users" and one.split()[:2] == ["1", "1/1"] and two.split()[0] == "2"
    monkeypatch.setattr("sys.argv", [*command[:-1], "many"])
    assert main() != 0 and "write numbers, as 1,4,16" in capsys.readouterr().err
