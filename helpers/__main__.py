"""`python -m helpers ...`: the commands behind the Makefile's names."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from helpers.errors import CourseError


def check(arguments: argparse.Namespace) -> int:
    from helpers.course.check import can_run, check_report, format_report

    checks = check_report()
    print(format_report(checks))
    return 0 if can_run(checks) else 1


def run(arguments: argparse.Namespace) -> int:
    from helpers.course import runner

    only = arguments.only.split(",") if arguments.only else None
    return runner.run(arguments.profile, only, arguments.resume, runner.parse_parameters(arguments.parameter))


def notebooks(arguments: argparse.Namespace) -> int:
    from helpers.course import readme
    from helpers.course.notebooks import build_notebooks, refresh_outputs
    from helpers.course.pictures import shrink_pictures

    for path in build_notebooks():
        print(f"built {path.name}")
    if arguments.outputs_from:
        for path in refresh_outputs(arguments.outputs_from):
            shrink_pictures(path)
            print(f"took the outputs of {path.name}")
    if arguments.keep_as:
        for path in readme.keep_reference(arguments.keep_as, arguments.outputs_from or "full"):
            print(f"kept {path.name} as a result of {arguments.keep_as}")
    if readme.refresh():
        print("refreshed the README's table")
    return 0


def hygiene(arguments: argparse.Namespace) -> int:
    from helpers.course import lint as rules
    from helpers.course.notebooks import notebook_files

    problems = rules.hygiene(notebook_files())
    print("\n".join(problems) or "The notebooks keep the rules of the house.")
    return 1 if problems else 0


def lab(arguments: argparse.Namespace) -> int:
    """JupyterLab on the learner's own copies; `python3` is this interpreter there, and `helpers` is found."""
    from helpers.course.notebooks import copy_for_lab
    from helpers.files import ROOT

    target = ROOT / "work"
    made, kept = copy_for_lab(target)
    print(f"{len(made)} notebooks copied to {target.name}/, {len(kept)} of your own left as they are.", flush=True)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={target}", *arguments.options]
    return subprocess.call(command, cwd=target, env=os.environ | {"PYTHONPATH": paths})


def models(arguments: argparse.Namespace) -> int:
    from helpers import models
    from helpers.models import package
    from helpers.models.places import MADE_BY

    models.folder_of("base")  # the others are trained on it
    print(f"[ok]      base: {package.MODEL}, from the package {package.PACKAGE}")
    sizes = models.shipped()
    for name, size in sizes.items():
        card = models.card(name)
        minutes = card.get("minutes", card.get("seconds", 0) / 60)
        training = f", trained for {minutes:.0f} minutes" if minutes else ""
        print(f"[ok]      {name}: {size / 2**20:.1f} MiB{training}")
    for name, command in MADE_BY.items():
        if name not in sizes:
            print(f"[missing] {name}: training it now; it resumes when it is stopped", flush=True)
            for part in command.split(" && "):
                status = subprocess.call([sys.executable, *part.split()[1:]])
                if status:
                    return status
    return 0


def serve(arguments: argparse.Namespace) -> int:
    from helpers.serving.run import Settings
    from helpers.serving.run import serve as serving

    names = ("model", "medusa", "guesses", "longest", "seats", "max_open", "dialect", "device")
    wrong = next((pair for pair in arguments.adapter if not all(pair.partition("="))), None)
    if wrong:
        raise CourseError(f"--adapter {wrong}: write NAME=FOLDER, or NAME=fine-tuned for the course's own.")
    adapters = dict(pair.split("=", 1) for pair in arguments.adapter)
    serving(Settings(**{name: getattr(arguments, name) for name in names}, adapters=adapters), arguments.port)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from helpers.serving import bench as benchmark

    questions = benchmark.questions_of(Path(arguments.data))
    try:
        users = [int(number) for number in arguments.at_a_time.split(",")]
    except ValueError:
        raise CourseError(f"--at-a-time {arguments.at_a_time}: write numbers, as 1,4,16.") from None
    print(benchmark.HEADER)
    asked = (arguments.url, arguments.language, questions, users, arguments.max_new_tokens, arguments.model)
    for number, load in benchmark.bench(*asked):
        print(benchmark.row_of(number, questions, load), flush=True)
    return 0


def cloud(arguments: argparse.Namespace) -> int:
    from helpers.cloud.clients import left_over

    options = dict(session=arguments.session, sure=arguments.yes, after=arguments.after, folder=arguments.records)
    return left_over(arguments.action, **options)


COMMANDS = {
    "check": check,
    "run": run,
    "notebooks": notebooks,
    "hygiene": hygiene,
    "lab": lab,
    "models": models,
    "serve": serve,
    "bench": bench,
    "cloud": cloud,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="what this machine has, and what that means for the course")
    running = commands.add_parser("run", help="run the notebooks in order with papermill")
    running.add_argument("--profile", default="cpu")
    running.add_argument("--only", default="", help="numbers of notebooks, as 00,01")
    running.add_argument("--resume", action="store_true", help="skip what finished and did not change")
    running.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    building = commands.add_parser("notebooks", help="build notebooks/*.ipynb from their sources")
    building.add_argument("--outputs-from", metavar="PROFILE", help="also take the outputs of the last run")
    building.add_argument(
        "--keep-as", metavar="MACHINE", help="keep the full profile's results as those of this machine"
    )
    commands.add_parser("hygiene", help="hold the notebooks to the rules of the house")
    opening = commands.add_parser("lab", help="open JupyterLab on your own copy of the notebooks, in work/")
    opening.add_argument("options", nargs="*", help="for JupyterLab itself, after --: -- --no-browser --port 9999")
    commands.add_parser("models", help="say which models are there, and train what is missing")
    serving = commands.add_parser("serve", help="serve a model over HTTP on the loopback interface")
    serving.add_argument("--model", default="fine-tuned", help="base, fine-tuned, a folder, or owner/name of the Hub")
    serving.add_argument("--medusa", help="heads that guess: medusa, or a folder")
    serving.add_argument("--guesses", type=int, default=5, help="tokens that the heads guess in a step")
    serving.add_argument("--port", type=int, default=8080)
    serving.add_argument("--longest", type=int, default=2048, help="tokens of prompt and answer together")
    serving.add_argument("--seats", type=int, default=16, help="sequences at a time")
    serving.add_argument("--max-open", type=int, default=128, help="requests that may be open")
    serving.add_argument("--dialect", default="lmi", help="how /invocations answers: lmi or lmi-0.26")
    serving.add_argument("--device", default="cpu")
    serving.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER", help="one that requests name")
    measuring = commands.add_parser("bench", help="ask a server your own questions, and count")
    measuring.add_argument("--url", default="http://127.0.0.1:8080")
    measuring.add_argument("--data", required=True, help='JSON lines: {"prompt": "...", "answer": "..."}')
    measuring.add_argument("--language", default="openai", help="openai, tgi or lmi")
    measuring.add_argument("--at-a-time", default="1,2,4,8", metavar="USERS", help="users at a time, as 1,4,16")
    measuring.add_argument("--max-new-tokens", type=int, default=128)
    measuring.add_argument("--model", default="", help="its name there; else the first that the server lists")
    clearing = commands.add_parser("cloud", help="what notebook 12 may have left on AWS, and delete it")
    clearing.add_argument("action", choices=("list", "cleanup"))
    clearing.add_argument("--session", default="*", help="of one session of the notebook alone")
    clearing.add_argument("--records", metavar="FOLDER", help="where it was written down, if not in the course's")
    clearing.add_argument("--after", type=float, default=0.0, metavar="SECONDS", help="wait so long first")
    clearing.add_argument("--yes", action="store_true", help="don't ask before deleting")
    arguments = parser.parse_args()
    try:
        return COMMANDS[arguments.command](arguments)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
