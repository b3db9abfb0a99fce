# Two commands do everything on a fresh machine: `make sweep` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXPERIMENT ?= experiments/prompt_depth.yaml

.PHONY: sweep test check chaos format mlflow clean

sweep: $(VENV)/.installed  ## run the quickstart sweep and benchmark every trial
	$(BIN)/python -m orchestrator.sweep $(EXPERIMENT)

test: $(VENV)/.installed check  ## every check and every test
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/.installed  ## the fault matrix: every fault against the same sweep, minutes each
	$(BIN)/python -m tests.chaos

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mlflow: $(VENV)/.installed  ## compare the trials in the browser (loopback only)
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1

# The lock pins every package; the project itself is installed without looking at dependencies again.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) data store mlflow.db mlartifacts
