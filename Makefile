.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SCALE ?=
SEEDS ?= $(if $(SCALE),1,3)
OUT ?= outputs/tables
TABLE = $(BIN)/python scripts/table.py --seeds $(SEEDS) --out $(OUT) $(if $(SCALE),--scale $(SCALE))

help:  ## list the targets
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

setup: $(READY)  ## build .venv from requirements.lock (about 3 minutes, 6 GB: torch brings CUDA)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and f"Python 3.10 or newer is needed, {v[0]}.{v[1]} found; use make PYTHON=python3.11 setup")'
	@echo "setting up .venv from requirements.lock: about 3 minutes and 6 GB, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(READY)

check: $(READY)  ## format, lint, types and the fast tests (about 6 minutes)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not faults and not tables"

test: $(READY)  ## the tests (under 20 minutes), but for test-tables and test-faults
	@echo "running the tests, under 20 minutes on two cores"
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not faults and not tables"

coverage: $(READY)  ## the same with coverage of every line, which takes half as long again
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not faults and not tables" --cov=harness --cov=rambo --cov=ranksim --cov-report=term --cov-fail-under=90

test-tables: $(READY)  ## every row of every table on stand-in data, some 240 runs; `make test` runs 8 of them
	$(BIN)/pytest -q -m tables

test-distributed: $(READY)  ## the slow tests of runs over several processes (2 to 6 minutes)
	$(BIN)/pytest -q -m distributed

test-faults: $(READY)  ## runs killed, short of disk or of W&B, long, many and under stress (about an hour)
	$(BIN)/pytest -q -n 2 --dist worksteal -m faults

demo: $(READY)  ## train on rendered letters: untrained, triplet and RaMBO side by side, with pictures (under 5 minutes)
	@echo "training on rendered letters, under 5 minutes on two cores"
	$(BIN)/python scripts/demo.py letters

demo-regression: $(READY)  ## imbalanced regression on turned digits: vanilla, LDS, RankSim and both, with pictures (under 5 minutes)
	@echo "training on turned digits, under 5 minutes on two cores"
	$(BIN)/python scripts/demo.py digits

demo-detection: $(READY)  ## a small detector on rendered scenes: cross-entropy and RaMBO, with pictures (under 6 minutes)
	@echo "training on rendered scenes, under 6 minutes on two cores"
	$(BIN)/python scripts/demo.py scenes

report: $(READY)  ## a page of the runs below outputs/: outputs/report.html
	$(BIN)/python scripts/report.py outputs --html outputs/report.html

table-%: $(READY)  ## a paper's table, such as table-cub: runs what is missing, then shows it beside ours (SEEDS=3 OUT=outputs/tables)
	$(TABLE) $*

table-fair-%: $(READY)  ## all losses in one recipe, each with a search of its own: table-fair-omniglot, table-fair-stsb (under an hour each)
	$(BIN)/python scripts/fair.py $* --out $(OUT) $(if $(SCALE),--scale $(SCALE)) $(if $(TRIALS),--trials $(TRIALS)) \
	  $(if $(filter command environment,$(origin SEEDS)),--seeds $(SEEDS))

tables: $(READY)  ## every table (SCALE=fixture: on tiny stand-in data, to see it work)
	$(TABLE) --all

results: $(READY)  ## every page of docs/results/tables anew, running what is missing (hours on two cores; needs the small data sets)
	@failed=0; shown='--out docs/results/tables --formats markdown csv'; \
	$(BIN)/python scripts/table.py omniglot bccd demo demo-regression demo-detection $$shown || failed=1; \
	$(BIN)/python scripts/table.py stsb-small --seeds 5 $$shown || failed=1; \
	for name in omniglot stsb; do $(BIN)/python scripts/fair.py $$name --out docs/results/tables || failed=1; done; \
	exit $$failed

benchmark: $(READY)  ## measure the speed and memory claims (long; wants a quiet machine)
	for name in ranking peers evaluation rank_similarity smoothing detection step trainer settings input; do $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(READY)  ## README, docs/ and the docstrings as pages: build/site/index.html (needs: pip install '.[docs]')
	rm -rf build/pages && mkdir -p build/pages/benchmarks
	cp -rL README.md CONTRIBUTING.md CHANGELOG.md docs build/pages
	cp benchmarks/*.md build/pages/benchmarks
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

gpu:  ## what this machine's GPU makes of losses, steps and evaluation (at most 8 minutes; PYTHON=python3 with torch 2.10 will do)
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/gpu_check.py

lock: $(READY)  ## resolve requirements.lock anew
	$(BIN)/python -m pip install --quiet uv
	@echo "# Every package of the development environment, for Python 3.10 to 3.13. Made by: make lock" > requirements.lock
	printf 'torch==2.14.1\ntorchvision==0.29.1\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --all-extras pyproject.toml \
	  --no-emit-index-url --no-annotate --no-header --constraint - >> requirements.lock

audit: $(READY)  ## look the packages of requirements.lock up in PyPI's list of known holes
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip

.PHONY: help setup check test test-tables test-distributed test-faults docs demo demo-regression demo-detection report tables results benchmark gpu lock audit
