# make demo    install everything, train and evaluate the demo (CPU, offline after the installation)
# make test    install everything, run all tests
RECIPE ?= recipes/demo.yaml
ARGS   ?=
PORT   ?= 5092
# Whole files side by side: what a file has set up once serves all its tests.
PYTEST ?= -n logical --maxprocesses 4 --dist loadfile
RUNS   ?= $(or $(PIPELINE_RUNS),runs)
VENV   := .venv
RUN    := $(VENV)/bin/python

STAGES := data plan train export eval dialogues submission report
# All stage goals of one call go to one pipeline process: one experiment, one report.
GOALS  := $(filter $(STAGES),$(MAKECMDGOALS))

.PHONY: help setup demo demo-model dashboard status gc fetch benchmarks dry-run test test-fast bench lint format lock clean $(STAGES)

help:
	@echo "make demo                      install, train and evaluate the demo on this machine"
	@echo "make test                      install, run all tests (test-fast: without the real tools)"
	@echo "make train eval RECIPE=FILE    stages of a recipe: $(STAGES)"
	@echo "make dry-run RECIPE=FILE       print every command, start nothing"
	@echo "make dashboard                 the SwanLab board of what ran here, on http://127.0.0.1:$(PORT)"
	@echo "make status|gc RECIPE=FILE     what is done; remove what no report needs"
	@echo "make fetch RECIPE=FILE         its models, data and benchmarks, ahead of a run"
	@echo "make benchmarks WORD=ceval     which benchmarks there are"
	@echo "ARGS='--set train.learning_rate=2e-4' is handed to the pipeline"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt scripts/setup.sh
	scripts/setup.sh demo
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	scripts/setup.sh demo,dev
	@touch $@

demo-model: setup
	@$(RUN) scripts/demo_model.py

demo: demo-model
	$(RUN) -m pipeline.run recipes/demo.yaml $(ARGS)

ifneq ($(GOALS),)
$(firstword $(GOALS)): setup
	$(RUN) -m pipeline.run $(RECIPE) $(GOALS) $(ARGS)

$(wordlist 2,$(words $(GOALS)),$(GOALS)): $(firstword $(GOALS))
	@:
endif

status gc fetch: setup
	$(RUN) -m pipeline.run $(RECIPE) $@ $(ARGS)

dry-run: setup
	$(RUN) -m pipeline.run $(RECIPE) --dry-run $(ARGS)

benchmarks: setup
	$(RUN) -m pipeline.benchmarks $(WORD)

dashboard: setup
	$(VENV)/bin/swanlab watch $(RUNS)/swanlog --host 127.0.0.1 --port $(PORT)

test: $(VENV)/.installed-dev
	$(RUN) -m pytest $(PYTEST)

test-fast: $(VENV)/.installed-dev
	$(RUN) -m pytest $(PYTEST) -m 'not slow'

bench: $(VENV)/.installed-dev
	scripts/bench.sh

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Pins what is installed now; a build tag such as torch's +cpu is this machine's, not everybody's.
lock: $(VENV)/.installed-dev
	{ head -n 1 constraints.txt; $(RUN) -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | sort -f; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info
