"""Servers in processes of their own: they say why they stop, and end with their starter."""

import subprocess
import sys
import time

import httpx
import pytest

from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.serving import own_process
from helpers.serving.course_server import course_serve
from helpers.serving.run import Settings


def test_a_server_that_stops_is_told_by_its_own_words(tmp_path):
    lines = "RuntimeError: the reason", "RuntimeError: failed. See root cause above"
    (tmp_path / "two_errors.py").write_text(f"raise SystemExit({chr(10).join(('a', *lines))!r})")
    for module, words in {
        "helpers.no_such_module": "No module named",
        "two_errors": "RuntimeError: the reason$",
    }.items():
        with pytest.raises(CourseError, match=rf"It stopped: .*{words}"):
            with own_process.server_process("It", module, {}, {"PYTHONPATH": str(tmp_path)}, own_process.free_port()):
                pass


def test_one_that_does_not_come_is_ended(monkeypatch):
    monkeypatch.setattr(own_process, "PATIENCE", 0.5)
    with pytest.raises(CourseError, match=r"It was not there after 0.5 s"):
        with own_process.server_process("It", "http.server", {}, {}, own_process.free_port()):
            pass


@pytest.fixture
def settings(folder):
    return Settings(str(folder), longest=128, seats=2, dtype="float32", name="served")


def test_the_course_s_server_in_a_process_of_its_own(settings, model, tokenizer):
    with course_serve(settings) as url:
        body = {"model": "served", "prompt": "Who?", "max_tokens": 4, "temperature": 0}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
    ids = plain_greedy(model, tokenizer("Who?", add_special_tokens=False)["input_ids"], 4)
    assert answer["choices"][0]["text"] == tokenizer.decode(ids, skip_special_tokens=True)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/ping")


def test_it_ends_with_a_starter_that_is_killed(settings):
    script = (
        "import time\n"
        "from helpers.serving.course_server import course_serve\n"
        "from helpers.serving.run import Settings\n"
        f"with course_serve({settings!r}) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    url = starter.stdout.readline().strip()
    assert httpx.get(f"{url}/ping").status_code == 200
    starter.kill()
    starter.wait()
    for _ in range(100):
        time.sleep(0.1)
        try:
            httpx.get(f"{url}/ping")
        except httpx.TransportError:
            return
    raise AssertionError("the server lives on")
