# Every target is one to three lines; what stands behind them is in deploy/setup.
# ARGS is passed on: make run ARGS="--port 9000", make test ARGS="tests/engine -x".
.PHONY: help install run test test-services test-slow test-clients test-deploy check fmt bench conformance pocket lock deploy undeploy bundle image clean
.DEFAULT_GOAL := help
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadgroup --timeout 300

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r t w; do printf '  make %-10s %s\n' "$$t" "$$w"; done

install: ## install what is missing; afterwards .venv/bin/parley is there
	@deploy/setup/prepare

run: install ## install what is missing, then serve on http://127.0.0.1:8000
	@exec .venv/bin/parley serve --stand-in pocket $(ARGS)

test: ## install what is missing, then run the tests, a few minutes
	@deploy/setup/prepare --dev
	@exec .venv/bin/pytest $(SIDE_BY_SIDE) $(ARGS)

test-services: ## the tests that start, kill and switch whole services, and those in a browser; some minutes more
	@deploy/setup/prepare --dev
	@exec .venv/bin/pytest -m '(services or browser) and not slow' $(SIDE_BY_SIDE) $(ARGS)

test-slow: ## the tests that take minutes each
	@deploy/setup/prepare --dev
	@exec .venv/bin/pytest -m slow $(ARGS)

test-clients: ## other people's clients (litellm, LangChain, llm, aider) against a running service
	@deploy/setup/prepare --dev
	@exec .venv/bin/pytest -m clients -p no:randomly tests/clients $(ARGS)

check: ## lint, format, types and layers; never writes
	@deploy/setup/prepare --dev
	@deploy/setup/check

fmt: ## put the code into its one format
	@deploy/setup/prepare --dev
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

bench: ## measure, next to llama.cpp's own tools; takes a while
	@deploy/setup/prepare --dev
	@exec .venv/bin/python -m benchmarks $(ARGS)

conformance: ## judge Parley, or another server, by what OpenAI and Anthropic document
	@deploy/setup/prepare --dev
	@exec .venv/bin/python -m tests.conformance $(ARGS)

pocket: ## train Pocket, the built-in model, from nothing; an hour or more
	@deploy/setup/prepare --dev
	@.venv/bin/pip install --quiet --requirement pocket/requirements.txt
	@exec .venv/bin/python -m pocket $(ARGS)

lock: ## resolve the dependencies of pyproject.toml anew into the lock files
	@deploy/setup/prepare --dev
	@deploy/setup/lock

test-deploy: ## deploy to a machine booted here, and run the image; needs root
	@deploy/setup/prepare --dev
	@exec .venv/bin/pytest -m deploy -p no:randomly tests/deploy $(ARGS)

deploy: ## install or upgrade a machine: make deploy HOST=user@host, or PROJECT= ZONE= for a new one
	@deploy/deploy.sh install '$(HOST)'

undeploy: ## remove Parley from a machine: make undeploy HOST=user@host
	@deploy/deploy.sh remove '$(HOST)'

bundle: ## one file that installs without a network: make bundle, or MODEL=file.gguf for another than Pocket
	@deploy/setup/prepare --dev
	@exec .venv/bin/python -m deploy.setup.bundle --model '$(or $(MODEL),pocket)' $(ARGS)

image: ## build the container image parley:latest
	@$${BUILDER:-docker} build $(ARGS) -t parley:latest .

clean: ## remove what was made here; compiled wheels stay in the cache
	@rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
