# Thin names for `python -m helpers ...`; every target that needs the environment sets it up first (once).
# In the activated conda environment, or with PYTHON=..., that Python is used as it is.
PROFILE ?= cpu
ONLY ?=
WORKERS ?= 2
FORCE ?=
.DEFAULT_GOAL := help
SHELL := /bin/bash

ifneq ($(origin PYTHON),command line)
ifeq ($(CONDA_DEFAULT_ENV),fast-llm-inference)
PYTHON := python
else
PYTHON := .venv/bin/python
SETUP := setup
endif
endif

ONLY_OPTION = $(if $(strip $(ONLY)),--only "$(strip $(ONLY))")
GPU_OPTION = $(if $(filter gpu,$(PROFILE)),--gpu)
.PHONY: help setup course verify test check lab notebooks models lock clean

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):[^#]*## */\1 /p' Makefile | while read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

setup:  ## set up .venv and nothing more (FORCE=1: again)
	@python3 requirements/install.py $(GPU_OPTION) $(if $(strip $(FORCE)),--force)

course: $(SETUP)  ## run all notebooks, resuming where it stopped; report in build/report/ (PROFILE=cpu, ONLY=00,01)
	@$(PYTHON) -m helpers run --profile $(PROFILE) $(ONLY_OPTION) --resume

verify: $(SETUP)  ## run every claim over all 450 prompts: the full profile (ONLY=00,01)
	@$(PYTHON) -m helpers run --profile full $(ONLY_OPTION)

test: check  ## run everything that CI runs: check, unit and property tests, all notebooks under smoke
	@status=0; \
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --timeout 300 -n $(WORKERS) -m "not papermill" || status=1; \
	$(PYTHON) -m pytest --timeout 1200 -m papermill || status=1; \
	exit $$status

check: $(SETUP)  ## lint, format, spelling, and the rules of the house
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m codespell_lib
	@$(PYTHON) -m helpers hygiene

lab: $(SETUP)  ## open JupyterLab on your own copy of the notebooks, in work/
	@$(PYTHON) -m helpers lab

notebooks: $(SETUP)  ## build notebooks/*.ipynb from notebooks/source/*.py
	@$(PYTHON) -m helpers notebooks

models: $(SETUP)  ## say which models are there, and train what is missing
	@$(PYTHON) -m helpers models

lock: $(SETUP)  ## make the locks in requirements/ anew from pyproject.toml (needs the network)
	@$(PYTHON) requirements/lock.py

clean:  ## remove what was built, not the environment nor your own work/
	@rm -rf build .pytest_cache .ruff_cache .hypothesis
	@find helpers tests -name __pycache__ -type d -prune -exec rm -rf {} +
