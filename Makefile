# Two commands do everything on a fresh machine: `make sweep` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := --no-deps --require-hashes --only-binary :all:
EXPERIMENT ?= experiments/prompt_depth.yaml

.PHONY: sweep test test-library test-orchestrator test-sweep test-integration test-cluster test-slow slow-packages versions check docs chaos mutations fuzz format lock mlflow clean

sweep: $(VENV)/.installed  ## run the quickstart sweep and benchmark every trial
	$(BIN)/python -m orchestrator.sweep $(EXPERIMENT)

test: $(VENV)/.installed  ## every check and every test, four jobs at once: those with Ray wait half of their time
	$(MAKE) --jobs=4 --keep-going --output-sync=target test-cluster test-sweep test-integration test-library test-orchestrator check

test-library: $(VENV)/.installed
	$(BIN)/python -m pytest tests/unit/vitaclip

test-orchestrator: $(VENV)/.installed
	$(BIN)/python -m pytest tests/unit --ignore=tests/unit/vitaclip

test-sweep: $(VENV)/.installed
	$(BIN)/python -m pytest tests/integration/test_sweep.py

test-integration: $(VENV)/.installed
	$(BIN)/python -m pytest tests/integration --ignore=tests/integration/test_sweep.py

test-cluster: $(VENV)/.installed
	$(BIN)/python -m pytest tests/cluster

test-slow: $(VENV)/.installed slow-packages  ## tests of minutes, on real servers and clusters; one table at the end
	$(BIN)/python -m tests.drivers.slow $(TESTS)

slow-packages:  ## the Debian packages that slow tests use, where this user may install them
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes --no-install-recommends $$(sed 's/\#.*//' tests/slow_packages.txt); \
	else echo "not root, or no apt-get: tests without their programs are skipped"; fi

versions: $(VENV)/.installed  ## every test with the lowest and with the highest versions that pyproject.toml allows
	$(BIN)/python -m tests.drivers.versions $(COMBINATION)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## the documents as a site in build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

chaos: $(VENV)/.installed  ## the fault matrix: every fault against the same sweep, minutes each
	$(BIN)/python -m tests.drivers.chaos

mutations: $(VENV)/.installed  ## break each promise of the README once, and see a test fail: about ten minutes
	$(BIN)/python -m tests.drivers.mutations

fuzz: $(VENV)/.installed  ## damaged files against everything that reads them (half a minute each, or: --minutes 10)
	$(BIN)/python -m tests.drivers.fuzz

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.installed  ## make the lock again; pins stay unless moved: make lock MOVE="--upgrade-package ray"
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes $(MOVE) \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

mlflow: $(VENV)/.installed  ## compare the trials in the browser (loopback only)
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1

# The lock pins every package and its files' hashes, and no package's own code runs while it is installed. Nothing else is
# fetched: the project itself, which has no hash, is built by the locked setuptools. pip brings uv, which installs the rest
# in a quarter of the time; where only pip knows the way to packages, as by a mirror in its settings, pip installs all.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^ /p;}' requirements.lock > $(VENV)/uv.lock
	$(PIP_INSTALL) $(LOCKED) -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(LOCKED) -r requirements.lock \
		|| $(PIP_INSTALL) $(LOCKED) -r requirements.lock
	$(PIP_INSTALL) --no-deps --no-index --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) data store mlflow.db mlartifacts
