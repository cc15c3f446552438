"""A learner opens 00 in the real JupyterLab, in a real browser: runs it, asks, answers wrongly and then rightly."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from helpers.course.notebooks import copy_for_lab
from helpers.files import ROOT

selenium = pytest.importorskip("selenium", reason="selenium is not installed: `make setup` brings it")
from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
IN_A_MINUTE, IN_A_RUN = 60, 600  # seconds

pytestmark = [
    pytest.mark.papermill,  # with the notebooks, one after the other
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no browser: `apt install chromium chromium-driver` brings it"
    ),
]


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab on a fresh copy of the notebooks, set to the smallest profile."""
    copy_for_lab(tmp_path / "work")
    start = tmp_path / "work" / "00_start_here.ipynb"
    start.write_text(start.read_text().replace('PROFILE: str = \\"cpu\\"', 'PROFILE: str = \\"smoke\\"'))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COURSE_BUILD": str(tmp_path / "build")}
    options = [
        "--no-browser",
        "--allow-root",
        "--LabApp.expose_app_in_browser=True",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={tmp_path / 'work'}",
        "--IdentityProvider.token=learner",
    ]
    log = tmp_path / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment,
            stdout=out,
            stderr=out,
            cwd=tmp_path / "work",
        )
    try:
        for _ in range(IN_A_MINUTE):
            found = re.search(r"http://(localhost|127\.0\.0\.1):\d+", log.read_text())
            if found:
                break
            assert server.poll() is None, log.read_text()
            time.sleep(1)
        yield f"{found.group()}/lab/tree/00_start_here.ipynb?token=learner"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def browser(tmp_path):
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1200,1400", f"--user-data-dir={tmp_path / 'me'}"):
        options.add_argument(argument)
    driver = Chrome(options, ChromeService(DRIVER))
    yield driver
    driver.quit()


class Learner:
    """What a person does with the notebook, by the browser's keyboard; cells are found by what is written in them."""

    def __init__(self, browser):
        self.browser = browser

    def js(self, script, *arguments):
        return self.browser.execute_script(f"const notebook = {NOTEBOOK}; {script}", *arguments)

    def until(self, script, *arguments, seconds=IN_A_MINUTE):
        WebDriverWait(self.browser, seconds, 0.5).until(lambda _: self.js(f"return {script}", *arguments))

    def settle(self, seconds=IN_A_RUN):
        """Wait until the kernel has nothing more to do."""
        idle = "notebook.sessionContext.session?.kernel?.status === 'idle'"
        running = "c => c.model.type === 'code' && c.model.executionState === 'running'"
        self.until(f"{idle} && !notebook.content.widgets.some({running})", seconds=seconds)

    def cell(self, text):
        found = self.js(
            "return notebook.content.widgets.findIndex(c => c.model.type === 'code' &&"
            " c.model.sharedModel.source.includes(arguments[0]))",
            text,
        )
        assert found >= 0, f"no cell holds {text}"
        return found

    def run_all(self):
        # Not by an asynchronous script: selenium would give its answer up after two minutes.
        self.js(
            "window.hasRunAll = false; window.jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { window.hasRunAll = true; })"
        )
        self.until("window.hasRunAll", seconds=IN_A_RUN)
        self.settle()

    def write_and_run(self, place, text):
        """Click into the cell, replace what it says by typing, and run it with Ctrl+Enter."""
        self.js(f"notebook.content.activeCellIndex = {place}; notebook.content.activeCell.node.scrollIntoView();")
        editor = self.browser.find_element(By.CSS_SELECTOR, ".jp-Cell.jp-mod-active .cm-content")
        editor.click()
        editor.send_keys(Keys.CONTROL, "a")
        editor.send_keys(text)
        assert self.js(f"return notebook.content.widgets[{place}].model.sharedModel.source") == text
        before = self.js(f"return notebook.content.widgets[{place}].model.executionCount")
        editor.send_keys(Keys.CONTROL, Keys.ENTER)
        self.until(f"notebook.content.widgets[{place}].model.executionCount > {before or 0}", seconds=IN_A_MINUTE)
        self.settle()
        return self.output(place)

    def output(self, place):
        outputs = self.js(f"return notebook.content.widgets[{place}].model.outputs?.toJSON() ?? []")
        return "".join("".join(each.get("text", "")) for each in outputs)

    def errors(self):
        return self.js(
            "return notebook.content.widgets.flatMap(c => c.model.outputs?.toJSON() ?? [])"
            ".filter(o => o.output_type === 'error').map(o => o.evalue)"
        )


@pytest.mark.timeout(1200)
def test_a_learner_runs_asks_and_answers_in_the_real_lab(lab, browser):
    browser.get(lab)
    me = Learner(browser)
    WebDriverWait(browser, IN_A_MINUTE).until(lambda _: me.js("return notebook?.content?.widgets?.length > 20"))
    me.settle()
    me.run_all()
    assert me.errors() == []
    assert "float32: 2 of 2 answers identical" in me.output(me.cell("show_identity(results, in_full)"))

    asked = me.write_and_run(
        me.cell("QUESTION ="),
        "mine = make_ask(tuned, tokenizer, start.longest)("
        '"CREATE TABLE bridge (name TEXT, river TEXT, length INTEGER)", "Which bridges cross the Elbe?")',
    )
    assert "FROM bridge WHERE river = 'Elbe'" in asked and "On invented rows it returns" in asked

    exercise = me.cell('check("00.2"')
    said = me.write_and_run(exercise, 'least = check("00.2", lambda weight_bytes, bandwidth: weight_bytes / bandwidth)')
    assert said.startswith("Not yet")
    said = me.write_and_run(
        exercise, 'least = check("00.2", lambda weight_bytes, bandwidth: weight_bytes / bandwidth * 1e3)'
    )
    assert said.startswith("Right")
    assert me.errors() == []
