# Two commands do all the set-up on a fresh machine: make demo, make test.
PYTHON ?= python3
# Test files run side by side, each process on one thread: two that share their cores wait for each other.
TEST_PROCESSES ?= 2
PYTEST = OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
	--no-loadscope-reorder

.PHONY: help demo test check docs coverage format samples hooks clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed ## install the serving part, and classify the sample pictures
	.venv/bin/canonistia classify data/samples --model scene15
	@echo
	@echo "Now open the page:  .venv/bin/canonistia serve   and go to http://127.0.0.1:8000"

test: check docs ## everything that must pass: check, docs, and every test
	@.ci/browser
	$(PYTEST)

check: .venv-dev/installed ## ruff, formatting and mypy
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

docs: .venv-dev/installed ## build the docs site into build/site; a warning is an error
	.venv-dev/bin/python -m sphinx --quiet --fail-on-warning --fresh-env -c docs -d build/doctrees . build/site

coverage: .venv-dev/installed ## run the tests, and report which lines they reach
	$(PYTEST) --cov --cov-report term --cov-report html

# What setuptools leaves here: modules that were moved since would get into the next wheel.
UNBUILD = rm -rf build/lib build/bdist.* *.egg-info

# The serving install: no PyTorch in it. Installed, not linked, so that it is what a user gets.
SERVED := $(shell find cascade webapp trainers export -type f -not -name '*.pyc')
.venv/installed: setup.cfg pyproject.toml canonistia.py $(SERVED) models/scene15/bundle.json
	$(PYTHON) -m venv .venv
	$(UNBUILD)
	.venv/bin/python -m pip install --quiet --force-reinstall --no-deps .
	.venv/bin/python -m pip install --quiet .
	$(UNBUILD)
	touch $@

# A recent pip, and the store's packages first: what they agree on is then kept, and not looked for among all releases.
.venv-dev/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python -m pip install --quiet --upgrade pip
	.venv-dev/bin/python -m pip install --quiet --editable '.[store]'
	.venv-dev/bin/python -m pip install --quiet --editable '.[dev]'
	$(UNBUILD)
	touch $@

format: .venv-dev/installed ## fix what ruff can fix
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

samples: .venv-dev/installed ## draw the sample pictures again
	.venv-dev/bin/python data/samples/make_samples.py

hooks: .venv-dev/installed ## run 'make check' before every commit
	.venv-dev/bin/pre-commit install

clean: ## remove both environments and everything that was built
	rm -rf .venv .venv-dev build dist *.egg-info .coverage
