# Every target makes .venv itself if it is missing: uv if present, else venv and pip, at the versions of the lock.
PYTHON ?= python3
BIN = .venv/bin
WEAK ?= embedded:qwen2.5-coder-1.5b

.PHONY: install demo test test-all check fix lock

install: .venv/installed

.venv/installed: constraints.txt pyproject.toml
	@command -v uv >/dev/null && uv venv -q --clear --python $(PYTHON) .venv || $(PYTHON) -m venv --clear .venv
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(BIN)/python -c constraints.txt -e . --group dev; \
	else \
	  $(BIN)/python -m pip install -q --upgrade "pip>=25.1" && $(BIN)/python -m pip install -q -c constraints.txt -e . --group dev; \
	fi
	@touch $@

# The model that reads is fetched once, 1.1 GB; WEAK=embedded:smollm2 is quick and small, and cannot read a guide.
demo: install
	$(BIN)/sleicl demo --weak $(WEAK)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd benchmarks && ../$(BIN)/mypy --strict paper.py paper_summary.py official.py borrowed.py
	cd benchmarks/talks && ../../$(BIN)/mypy --strict score.py fit.py
	$(BIN)/mypy --strict --explicit-package-bases -m benchmarks.overhead -m benchmarks.failures -m benchmarks.agreement \
	  -m benchmarks.controls -m benchmarks.false_alarms -m benchmarks.throughput -m benchmarks.prefixes -m benchmarks.repack \
	  -m benchmarks.batch_memory -m benchmarks.exported -m benchmarks.choosers -m benchmarks.serving \
	  -m benchmarks.learned -m benchmarks.gains -m benchmarks.power

# Two processes, a file each: most of the time is spent waiting for the engine, which takes one thread in tests.
test: check
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow and not ollama"

# All of `test`, and what is slow: docs, wheels, a browser and a real Ollama, which are installed or built here. Where
# one cannot be had the tests fail.
test-all: test
	.ci/browser
	OLLAMA_HOST=$$(.ci/ollama) && export OLLAMA_HOST && \
	  SLEICL_NEEDS_OLLAMA=1 $(BIN)/pytest -q -m "slow or ollama"

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Fresh versions within the bounds of pyproject.toml; run the tests before committing the result.
lock:
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --group dev pyproject.toml -o constraints.txt
