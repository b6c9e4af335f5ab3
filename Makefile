# Every target sets up .venv by itself, through stamp files that follow pyproject.toml.
#   make train [ARGS="..."]   install what training needs, run python -m onethinker_jax.train
#   make test  [ARGS="..."]   install the development extra, run the tests; ARGS="-m slow": those that take minutes
#   make lint                 ruff check, ruff format --check, pyright
#   make bench ARGS="NAME …"  install the development extra, run python -m benchmarks.NAME

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TRAIN_STAMP := $(VENV)/.installed-train
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: train test lint bench clean
.DEFAULT_GOAL := train

train: $(TRAIN_STAMP)
	$(BIN)/python -m onethinker_jax.train $(ARGS)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --warnings

bench: $(DEV_STAMP)
	@test -n "$(ARGS)" || { echo 'Which? make bench ARGS="NAME --flags", NAME one of:' \
		$(basename $(notdir $(wildcard benchmarks/*.py) benchmarks/gpu)) >&2; exit 2; }
	$(BIN)/python -m benchmarks.$(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(TRAIN_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing onethinker_jax into $(VENV) (a minute or two the first time)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing onethinker_jax with its development tools into $(VENV) (a few minutes the first time)"
	@$(PIP) install --quiet --editable ".[dev]"
	@SAM2_BUILD_CUDA=0 $(PIP) install --quiet --no-deps --no-build-isolation sam2==1.1.0
	@touch $(TRAIN_STAMP) $@
