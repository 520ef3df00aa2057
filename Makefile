# The book's commands. `make` lists them. Works with GNU make 3.81 (macOS) and later.

PYTHON ?= python3
TORCH  ?= default
C      :=
T      :=
BIN    := .venv/bin
READY  := .venv/ready
GRADER := .venv-grading/bin
PROJECTS := pyproject.toml book/pyproject.toml grading/pyproject.toml
VERSION := $(shell sed -n 's/^version = "\(.*\)".*/\1/p' pyproject.toml)
WHEEL  := _build/html/_static/gpbook-$(VERSION)-py3-none-any.whl
A      :=
NAME   :=
SUBMISSIONS :=
RELEASES :=
AGAIN  :=
FORGET :=
# Two processes run the tests: most of a test is single-threaded. A module's tests, or a chapter's cells, stay together;
# among the deep tests, those of a named group.
TESTS := -m pytest -n 2 --dist loadfile
# What computes; it is run in every environment of this machine, since no test may hang on last bits.
NUMERICAL := gpbook_utils $(foreach name,bits budget compare costs diagnose_* inducing minibatches models precision restarts symptoms,\
	$(wildcard tests/test_$(name).py))
DEEP  := -m pytest -n 2 --dist loadgroup

# Threads that spin while they wait make small problems several times slower; no number changes.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT  := 0

.DEFAULT_GOAL := help
.PHONY: help book pdf run claim test test-deep lab record assignment new-assignment grade formgrader clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Written last by the set-up, so an interrupted installation is taken up again, never mistaken for a whole one.
$(READY): requirements.txt constraints.txt $(PROJECTS) .ci/environment.py .ci/install.py
	@"$(PYTHON)" .ci/environment.py --torch $(TORCH)

# The autograder has its own environment, without torch; students' notebooks run in the book's, inside a cage.
.venv-grading/ready: requirements-grading.txt constraints.txt $(PROJECTS) .ci/environment.py .ci/install.py
	@"$(PYTHON)" .ci/environment.py --folder .venv-grading --requirements requirements-grading.txt --packages . grading

# What `pip install` takes from the page's address. Directories count, so that a module that went is noticed.
$(WHEEL): pyproject.toml LICENSE book/wheel.py $(shell find gpbook_utils -name __pycache__ -prune -o -print) | $(READY)
	@$(BIN)/python -m book.wheel $(@D)

book: $(READY) $(WHEEL)  ## build the book and say where it is
	@$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book: $(CURDIR)/_build/html/index.html"
	@[ -n "$$GPBOOK_REPOSITORY" ] || echo "Left out: links to source, issues and launch. With them: GPBOOK_REPOSITORY=https://host/owner/name make book"
	@echo "To serve it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000"

pdf: book  ## print the whole book into one PDF and say where it is
	@$(BIN)/python -m book.pdf _build/html _build/gpbook.pdf

run: $(READY)  ## execute the chapters and store them; C=01 for one
	@GPBOOK_GUARD=3 $(BIN)/python -m book.notebooks run $(C)

claim: $(READY)  ## run, sabotage and lint one claim; C=07 ID=name
	@GPBOOK_GUARD=3 $(BIN)/python -m book.claim "$(C)" "$(ID)"

test: $(READY) .venv-grading/ready  ## what to run before every change; T=tests/test_x.py for a part
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/mypy
	@$(BIN)/python $(TESTS) --durations=10 $(T)

test-deep: $(READY) .venv-grading/ready  ## what takes longer: other instructions, sabotage
	@$(BIN)/python -m gpbook_utils.machines each $(BIN)/python $(TESTS) $(NUMERICAL)
	@$(BIN)/python -m gpbook_utils.machines lowered $(BIN)/python $(TESTS) chapters
	@$(BIN)/python $(DEEP) -m deep

lab: $(READY)  ## open the chapters in JupyterLab
	@if [ -e .git ]; then \
	    git config diff.jupyternotebook.command "'$(CURDIR)/$(BIN)/git-nbdiffdriver' diff"; \
	    git config merge.jupyternotebook.driver "'$(CURDIR)/$(BIN)/git-nbmergedriver' merge %O %A %B %L %P"; \
	fi
	@JUPYTER_CONFIG_PATH="$(CURDIR)/book/lab" $(BIN)/jupyter lab intro.md

# A claim that falls here is news and no failure: status 1. What can't be recorded is one: status 2.
record: $(READY)  ## record this machine; RELEASES="oldest newest": under others (noxfile.py)
	@$(if $(RELEASES),TORCH=$(TORCH) $(BIN)/nox --session $(foreach release,$(RELEASES),"record($(release))"),\
	    $(BIN)/python -m book.records $(C) || [ $$? -eq 1 ])
	@$(BIN)/python -m book.notebooks run verdicts

assignment: $(READY)  ## zip an assignment for students; A=NAME, or list them
	@$(BIN)/python -m book.handouts $(if $(A),"$(A)")

new-assignment: $(READY)  ## begin an assignment from the template; NAME=my_assignment
	@$(BIN)/python -m book.new_assignment "$(NAME)"

grade: $(READY) .venv-grading/ready  ## grade submissions: A=name SUBMISSIONS=folder
	@PATH="$(CURDIR)/$(GRADER):$$PATH" $(GRADER)/python -m grading "$(A)" $(if $(SUBMISSIONS),"$(SUBMISSIONS)") \
	    $(if $(AGAIN),--again $(AGAIN)) $(if $(FORGET),--forget $(FORGET))

formgrader: .venv-grading/ready  ## mark answers in words, in the browser
	@PATH="$(CURDIR)/$(GRADER):$$PATH" $(GRADER)/python -m grading.formgrader course

clean:  ## remove what was built (keeps .venv and course)
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
