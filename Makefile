# SPDX-License-Identifier: Apache-2.0
.PHONY: setup dev check format test demo

BIN := .venv/bin

setup:  ## what a run needs
	sh setup.sh

dev:  ## what a run and the tests need
	sh setup.sh dev

check: dev  ## everything that must pass before a change lands
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

test: dev
	$(BIN)/python -m pytest

demo: setup  ## the default model over a clip, DEMO=clip.mp4, or over a drawn street
	$(BIN)/sightline demo $(DEMO)

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
