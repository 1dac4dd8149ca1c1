# The README's commands. Only Python 3.11 and git are needed; everything else goes into .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup quickstart test slurm lint generate clean

setup: .venv/installed

.venv/installed: requirements.lock requirements-demo.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-demo.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

quickstart: setup  ## train a real model on real imbalanced tweets
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no scripts/train.py --config configs/quickstart.yaml

test: setup slurm  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

slurm:  ## for tests/cluster, where root and apt-get are; without it those tests are skipped, saying so
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v slurmctld >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null \
	  || echo "Slurm could not be installed; tests/cluster skips its jobs"; fi

lint: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup  ## rewrite the files that are derived from code
	$(BIN)/python scripts/generate.py

clean:
	rm -rf .venv build *.egg-info
