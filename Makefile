# The commands of README.md and docs/. Only Python (3.11, 3.12 or 3.13) and git are needed;
# everything else goes into VENV.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# xdist can wait for ever for a worker that it restarted, so a crashed worker ends the tests.
PYTEST := $(BIN)/python -m pytest --dist loadfile --max-worker-restart 0

.PHONY: setup quickstart test test-quick test-exhaustive system lint generate docs clean

setup: $(VENV)/installed

# uv installs several times faster than pip, but does not read pip's settings, such as a mirror.
$(VENV)/installed: requirements-dev.lock requirements-demo.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@install="$(BIN)/pip install --quiet --disable-pip-version-check"; \
	if command -v uv >/dev/null && [ -z "$$($(BIN)/pip config list)" ]; then \
	  install="uv pip install --quiet --python $(BIN)/python"; fi; \
	echo "Installing with $$install"; \
	$$install -r requirements-dev.lock && \
	$$install --no-deps -r requirements-demo.lock && \
	$$install --no-deps --no-build-isolation -e .
	touch $@

quickstart: setup  ## train a real model on real imbalanced tweets
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no \
	  --dynamo_backend no scripts/train.py configs/quickstart.yaml

test-quick: setup  ## the tests without those that train or start processes, for every change
	$(PYTEST) -n 2 -m "not exhaustive and not slow"

test: setup system  ## lint, types, and the tests for every day
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -n 3

test-exhaustive: setup system  ## the long tests: Slurm, kills at many points, every variant
	$(PYTEST) -n 3 -m exhaustive

system:  ## Slurm and Chromium, as root with apt-get; without them, their tests are skipped
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    ! { command -v slurmctld && command -v chromium; } >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -qq --no-install-recommends \
	    slurmctld slurmd slurm-client munge chromium >/dev/null \
	  || echo "Slurm or Chromium could not be installed; the tests that need them are skipped"; fi

lint: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup  ## rewrite the files that are derived from code
	$(BIN)/python scripts/generate.py

docs: setup  ## the documentation, in build/docs; warnings are errors, and the examples are run
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html docs build/docs
	$(BIN)/python -m pytest tests/test_docs.py -m 'exhaustive or not exhaustive'

clean:
	rm -rf $(VENV) build *.egg-info
