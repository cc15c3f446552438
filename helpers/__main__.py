"""`python -m helpers ...`: the commands behind the Makefile's names."""

from __future__ import annotations

import argparse
import sys

from helpers.errors import CourseError


def check(arguments: argparse.Namespace) -> int:
    from helpers.machine_report import can_run, check_report, format_report

    checks = check_report()
    print(format_report(checks))
    return 0 if can_run(checks) else 1


def run(arguments: argparse.Namespace) -> int:
    from helpers import runner

    only = arguments.only.split(",") if arguments.only else None
    return runner.run(arguments.profile, only, arguments.resume, runner.parse_parameters(arguments.parameter))


def notebooks(arguments: argparse.Namespace) -> int:
    from helpers.notebooks import build_notebooks, refresh_outputs

    for path in build_notebooks():
        print(f"built {path.name}")
    if arguments.outputs_from:
        for path in refresh_outputs(arguments.outputs_from):
            print(f"took the outputs of {path.name}")
    return 0


def hygiene(arguments: argparse.Namespace) -> int:
    from helpers import hygiene as rules
    from helpers.notebooks import notebook_files

    problems = rules.hygiene(notebook_files())
    print("\n".join(problems) or "The notebooks keep the rules of the house.")
    return 1 if problems else 0


COMMANDS = {"check": check, "run": run, "notebooks": notebooks, "hygiene": hygiene}


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
    commands.add_parser("hygiene", help="hold the notebooks to the rules of the house")
    arguments = parser.parse_args()
    try:
        return COMMANDS[arguments.command](arguments)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
