# Two commands do all the set-up on a fresh machine: make demo, make test.
PYTHON ?= python3
# Test files run side by side, each process on one thread: two that share their cores wait for each other.
TEST_PROCESSES ?= 2

.PHONY: demo test format samples clean

demo: .venv/installed
	.venv/bin/canonistia classify data/samples --model scene15
	@echo
	@echo "Now open the page:  .venv/bin/canonistia serve   and go to http://127.0.0.1:8000"

test: .venv-dev/installed
	@.ci/browser
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

# The serving install: no PyTorch in it. Installed, not linked, so that it is what a user gets.
SERVED := $(shell find cascade webapp trainers export -type f -not -name '*.pyc')
.venv/installed: setup.cfg pyproject.toml canonistia.py $(SERVED) models/scene15/bundle.json
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --force-reinstall --no-deps .
	.venv/bin/python -m pip install --quiet .
	touch $@

# A recent pip, and the store's packages first: what they agree on is then kept, and not looked for among all releases.
.venv-dev/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python -m pip install --quiet --upgrade pip
	.venv-dev/bin/python -m pip install --quiet --editable '.[store]'
	.venv-dev/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

format: .venv-dev/installed
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

samples: .venv-dev/installed
	.venv-dev/bin/python data/samples/make_samples.py

clean:
	rm -rf .venv .venv-dev build dist *.egg-info
