PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("boresight needs Python 3.11 or newer; pass PYTHON=/path/to/it") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[emoji,dev]"
	@touch $@

demo: .venv/installed  ## the main job on the built-in data; ARGS="..." passes options on
	$(BIN)/boresight demo $(ARGS)

test: .venv/installed  ## the whole default suite
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs report.html
