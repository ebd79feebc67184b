# `make train` and `make test` do all the set-up on a fresh machine; both are quick when it is done.
PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready
export PYTHONDONTWRITEBYTECODE := # what is set is obeyed by Python, but each of many processes would compile anew

.PHONY: train test lint soak fuzz kills setup clean

train: setup  ## train the default nano model (ARGS="moe=shared_experts ..." to change it)
	$(VENV)/bin/python train.py $(ARGS)

test: lint  ## lint, and test on two cores (ARGS="tests/model" to choose)
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

soak: setup  ## two hours of watched training
	$(VENV)/bin/python -m tests.reliability.soak $(ARGS)

fuzz: setup  ## damaged files for every reader
	$(VENV)/bin/python -m tests.reliability.fuzz $(ARGS)

kills: setup  ## a hundred kills while checkpoints are written
	MOE_TOY_KILLS=100 $(VENV)/bin/python -m pytest tests/reliability/test_checkpoint_file.py -k killed

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c requirements.lock -e '.[dev]'
	$(VENV)/bin/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true  # on all cores, where pip takes one
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
