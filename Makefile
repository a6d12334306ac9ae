# Everything runs from a fresh clone with python3 (3.11 or newer) and make; the first target that
# needs the environment creates it. PIP_ARGS goes to every pip call (`make install PIP_ARGS=...`).

VENV ?= .venv
PIP_ARGS ?=
# Words for `wtie`, after its own: make train CONFIG=configs/quickstart.yaml ARGS="--seeds 0-4"
ARGS ?=

# The first interpreter that is new enough; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo train compare test test-all coverage lint format docs results schema claims claims-smoke bench clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
		| sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "wtie needs Python 3.11 or newer, and found none;" \
		"install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "wtie needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; \
		exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "could not create $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt --no-build-isolation \
		-e '.[corpora,dev,hf,mt,ray,report]'
	@touch $@

install: $(INSTALLED) ## Create .venv and install what everything needs, at pinned versions

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt --no-build-isolation \
		-e '.[bench]'
	@touch $@

demo: $(INSTALLED) ## Train the quickstart (tied against untied, 3 seeds) and print the verdict
	$(BIN)/wtie train --config configs/quickstart.yaml $(ARGS)

train: $(INSTALLED) ## Train every missing cell of CONFIG=FILE
	@test -n "$(CONFIG)" || { echo "say which: make train CONFIG=FILE" >&2; exit 2; }
	$(BIN)/wtie train --config $(CONFIG) $(ARGS)

compare: $(INSTALLED) ## Print the tables and the verdict of RUN=FOLDER (default: the newest run)
	$(BIN)/wtie compare $(RUN) $(ARGS)

test: $(INSTALLED) ## Run the quick tests (under 5 minutes, no network)
	$(BIN)/python -m pytest -n 2 -m 'not slow' $(ARGS)

test-all: $(INSTALLED) coverage ## Run every test (under 30 minutes), and coverage
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

coverage: $(INSTALLED) ## Fail where the storage room's own tests leave a line or a branch untaken
	$(BIN)/python -m pytest -q tests/storage --cov=tyro_cli.storage --cov-branch \
		--cov-report=term-missing --cov-fail-under=100

lint: $(INSTALLED) ## Check style, types, the order of the rooms, and that generated docs are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tyro_cli.cli.reference --check
	$(BIN)/python docs/results/build.py --check

format: $(INSTALLED) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED) ## Write the generated docs: docs/CLI.md, docs/CONFIG.md, docs/*.schema.json
	$(BIN)/python -m tyro_cli.cli.reference

results: $(INSTALLED) ## Write the numbers in README.md and docs/results/ from the committed records
	$(BIN)/python docs/results/build.py

schema: $(INSTALLED) ## Write docs/*.schema.json, which editors complete configurations from
	$(BIN)/wtie schema --out docs/wtie.schema.json
	$(BIN)/wtie schema --study --out docs/study.schema.json

CLAIMS := $(sort $(wildcard configs/claims/*.yaml))
# The corpus of a claim, where it does not come with an installed package.
CORPUS_OF = $(if $(findstring wikitext2,$(shell grep -h '^experiment:' $(1))),data.corpus=$(DATA)/wikitext-2) \
	$(if $(findstring multi30k,$(shell grep -h '^experiment:' $(1))),data.corpus=$(DATA)/multi30k)

# So a sweep ends when cells failed or diverged; the page says so, and the other claims go on.
FAILED_CELLS := 4

claims: $(INSTALLED) ## Run every claim and write their page: DATA=FOLDER with wikitext-2 and multi30k
	@test -n "$(DATA)" || { echo "say where the corpora lie: make claims DATA=FOLDER" >&2; exit 2; }
	@test -d "$(DATA)" || { echo "there is no folder $(DATA): make claims DATA=FOLDER" >&2; exit 2; }
	@for corpus in wikitext-2 multi30k; do test -d "$(DATA)/$$corpus" || { \
		echo "$(DATA) has no folder $$corpus, which some claims are about" >&2; exit 2; }; done
	@set -e; $(foreach claim,$(CLAIMS),$(BIN)/wtie sweep --config $(claim) --out runs/claims \
		$(call CORPUS_OF,$(claim)) $(ARGS) || test $$? -eq $(FAILED_CELLS);)
	@set -e; for run in runs/claims/wikitext2-small-*; do $(BIN)/wtie probe "$$run" >/dev/null; done
	$(BIN)/wtie report runs/claims

claims-smoke: $(INSTALLED) ## Try every claim on its small budget, in minutes and without a network
	@set -e; $(foreach claim,$(CLAIMS),$(BIN)/wtie sweep --config $(claim) --smoke \
		--out runs/claims-smoke $(ARGS) || test $$? -eq $(FAILED_CELLS);)
	@set -e; for run in runs/claims-smoke/wikitext2-small-*; do \
		$(BIN)/wtie probe "$$run" >/dev/null; done
	$(BIN)/wtie report runs/claims-smoke

bench: $(BENCH_INSTALLED) ## Measure against peers: ARGS="pair-8192 --seconds 10 --repeats 3"
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove caches and build products; runs/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
