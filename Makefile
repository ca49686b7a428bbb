# Everything starts with `make setup`: it makes .venv with all that the project needs.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that wait give their core away: beside other work torch is otherwise many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test test-slow reproduce lint dagster dagster-dvc clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: .venv/installed ## make .venv with everything

.venv/installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctinterp needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[pipeline,deploy,multiframe,pacs,dev]'
	touch $@

demo: setup data/demo/thin.png ## the released model on a built-in phantom, then the whole pipeline on six of them
	@dvc repro
	@ctinterp summary

data/demo/thin.png: | setup
	@dvc repro --quiet thicken
	@mkdir -p $(@D)
	@ctinterp interpolate "$$(ls data/thicken/box-x5/*.nii | head -1)" -o $(@D)/thin.nii.gz --profile box --preview $@ --force
	@echo "look at $@: the released model has made the fine slices out of the coarse ones to their left"

test: setup lint ## all checks, default tests, a process a core
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile

test-slow: setup ## the long tests too
	pytest -m "slow or not slow"

reproduce: setup ## clone the committed state twice, run the smoke preset in different surroundings, compare every hash
	pytest -m slow -s tests/repository/test_reproduce.py

lint: setup ## ruff, mypy, import-linter, codespell
	pre-commit validate-config
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	codespell

dagster: setup ## the web UI at http://127.0.0.1:3000
	dg dev --host 127.0.0.1

dagster-dvc: setup ## the wheel of the Dagster-DVC library, in dist/
	python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist deploy/dagster-dvc

clean: ## remove what the pipeline made (not data/raw)
	rm -rf data/ingest data/thicken data/autoencoder data/encode data/expect data/train data/latent data/generate data/demo
