"""Claims: their verdicts, their three forms, and what bad input gets."""

import dataclasses
import json
import math
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch

from book import ledger, stored_claims
from gpbook_utils import claims
from gpbook_utils.claims import above, below, decide, near, unobservable, within

WHY = "an example"


def make_notebook(path, *outputs, execution_count=1):
    cell = nbformat.v4.new_code_cell("1", execution_count=execution_count)
    cell.outputs = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def stored(id, verdict="holds"):
    check = claims.Check(verdict)
    return claims.Decision(id, "A sentence.", check, claims.CHECK)._repr_mimebundle_()


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (near(1.005, 1, rtol=1e-2, reason=WHY), "holds"),
        (near(1.02, 1, rtol=1e-2, reason=WHY), "refuted"),
        (near(-2, -2, rtol=1e-9, reason=WHY), "holds"),
        (near(math.nan, 1, rtol=1e-2, reason=WHY), "refuted"),
        (within(1e-7, 1e-8, 1e-6, reason=WHY), "holds"),
        (within(0, 1e-8, 1e-6, reason=WHY), "refuted"),
        (within(1e-5, 1e-8, 1e-6, reason=WHY), "refuted"),
        (below(0, 1, reason=WHY), "holds"),
        (below(1, 1, reason=WHY), "refuted"),
        (below(math.inf, 1, reason=WHY), "refuted"),
        (above(2, 1, reason=WHY), "holds"),
        (above(1, 1, reason=WHY), "refuted"),
        (above(math.nan, 1, reason=WHY), "refuted"),
        (above(torch.tensor(2.0, requires_grad=True), 1, reason=WHY), "holds"),
        (unobservable("no GPU"), "not observable here"),
    ],
)
def test_verdicts(check, verdict):
    assert check.verdict == verdict


def test_an_outcome_cannot_be_edited():
    check = below(2, 1, reason=WHY)
    for one in (check, claims.Decision("a", "", check, claims.FINDING)):
        for field in dataclasses.fields(one):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, field.name, claims.HOLDS)


def test_slack_is_the_factor_to_the_nearer_bound():
    assert within(1e-7, 1e-8, 1e-5, reason=WHY).slack == pytest.approx(10)
    assert below(1, 4, reason=WHY).slack == pytest.approx(4)
    assert above(8, 2, reason=WHY).slack == pytest.approx(4)
    assert near(1.001, 1, rtol=1e-2, reason=WHY).slack == pytest.approx(10)


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), torch.equal(torch.ones(1), torch.ones(1))])
def test_truth_values(value, capsys):
    decide("a-claim", value, check="A sentence.")
    assert capsys.readouterr().out == "[holds] a-claim\n"


@pytest.mark.parametrize("value", [1, 0.0, None, "yes", torch.ones(2, dtype=torch.bool), torch.tensor(1.0), np.ones(1)])
def test_what_is_not_a_truth_value_is_refused(value):
    with pytest.raises(ValueError, match="outcome of claim 'a-claim' must be a truth value"):
        decide("a-claim", value, check="A sentence.")


@pytest.mark.parametrize("id", ["Upper", "two words", "", "under_score", "-x", 3])
def test_bad_ids_are_refused(id):
    with pytest.raises(ValueError, match="id must be lower-case words"):
        decide(id, True, check="A sentence.")


@pytest.mark.parametrize("sentence", ["", "No full stop", "Two\nlines.", 3])
def test_bad_sentences_are_refused(sentence):
    with pytest.raises(ValueError, match="check of claim 'a-claim'"):
        decide("a-claim", True, check=sentence)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: near(1, 0, rtol=1, reason=WHY), "reference must not be zero"),
        (lambda: near(1, 1, rtol=0, reason=WHY), "rtol must be one finite real number, above 0; got 0"),
        (lambda: near(1, math.nan, rtol=1, reason=WHY), "reference must be one finite real number; got nan"),
        (lambda: near("much", 1, rtol=1, reason=WHY), "measured must be one real number"),
        (lambda: near(torch.ones(2), 1, rtol=1, reason=WHY), "measured must be one real number"),
        (lambda: near("1.0", 1, rtol=1, reason=WHY), "measured must be one real number"),
        (lambda: near(True, 1, rtol=1, reason=WHY), "measured must be one real number"),
        (lambda: near(10**400, 1, rtol=1, reason=WHY), "measured must be one real number"),
        (lambda: within(1, 2, 1, reason=WHY), "high must be one finite real number, above 2; got 1"),
        (lambda: within(1, 0, 1, reason=WHY), "low must be one finite real number, above 0"),
        (lambda: below(1, -1, reason=WHY), "bound must be one finite real number, above 0"),
        (lambda: above(1, math.inf, reason=WHY), "bound must be one finite real number"),
        (lambda: above(1, 1, reason=""), "reason"),
        (lambda: unobservable(" "), "reason"),
    ],
)
def test_bad_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_plain_text_has_no_digit_until_the_claim_is_refuted():
    good = claims.Decision("small", "", below(1.234e-9, 1, reason=WHY), claims.FINDING)
    bad = claims.Decision("small", "", below(1.234, 1, reason=WHY), claims.FINDING)
    assert repr(good) == "[holds] small"
    assert repr(bad) == "[refuted] small (measured 1.23; needed below 1)"
    assert "1.23e-09" in good._repr_html_()


def test_html_escapes_and_json_is_strict():
    one = claims.Decision("less", "", unobservable("a < b & c"), claims.FINDING)
    assert "a &lt; b &amp; c" in one._repr_html_()
    exact = claims.Decision("exact", "", near(1, 1, rtol=1, reason=WHY), claims.FINDING)
    assert json.loads(json.dumps(exact.to_json(), allow_nan=False))["slack"] is None


def test_guard_mode(monkeypatch):
    monkeypatch.setenv("GPBOOK_GUARD", "3")
    decide("wide", below(1, 4, reason=WHY), check="It is small.")
    with pytest.raises(claims.GuardError, match="by a factor 2 only, the guard asks for 3"):
        decide("narrow", below(1, 2, reason=WHY), check="It is small.")
    decide("fallen", below(2, 1, reason=WHY), check="It is small.")  # a refuted claim is reported as such
    for text in ("much", "nan", "-1"):
        monkeypatch.setenv("GPBOOK_GUARD", text)
        with pytest.raises(ValueError, match="GPBOOK_GUARD"):
            decide("wide", below(1, 4, reason=WHY), check="It is small.")


def test_verdicts_are_logged(monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv("GPBOOK_VERDICTS", str(log))
    decide("one", True, check="One.")
    decide("two", unobservable("no GPU"), check="Two.")
    assert [json.loads(line)["verdict"] for line in log.read_text().splitlines()] == ["holds", "not observable here"]


def test_reading_back(tmp_path):
    path = make_notebook(tmp_path / "01_one.ipynb", stored("a"), {"text/plain": "no claim"}, stored("b", "refuted"))
    assert [(c["id"], c["verdict"], c["chapter"]) for c in stored_claims.read(path)] == [
        ("a", "holds", "01_one"),
        ("b", "refuted", "01_one"),
    ]


def test_reading_what_is_no_notebook(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    (tmp_path / "b.ipynb").write_text("[]")
    for name, message in [
        ("a", "is not a Jupyter notebook"),
        ("b", "is not a Jupyter notebook"),
        ("c", "cannot be read"),
    ]:
        with pytest.raises(ValueError, match=rf"{name}\.ipynb: {message}"):
            stored_claims.read(tmp_path / f"{name}.ipynb")


@pytest.mark.parametrize(
    "text",
    [
        '{"nbformat": 4, "cells": null}',
        '{"nbformat": 4, "cells": {}}',
        '{"nbformat": 4, "cells": ["x"]}',
        '{"nbformat": 4, "cells": [{}]}',
        '{"nbformat": 4, "cells": [{"cell_type": "code"}]}',
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": "1", "execution_count": 1}]}',
    ],
)
def test_reading_a_damaged_notebook(tmp_path, text, capsys):
    (tmp_path / "a.ipynb").write_text(text)
    assert ledger.main([str(tmp_path / "a.ipynb")]) == 2
    assert "a.ipynb: is not a Jupyter notebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        {"id": "a"},
        "a text",
        claims.Decision("a", "A.", claims.Check("maybe"), claims.CHECK).to_json(),
        {"id": "a", "sentence": "Of the first edition.", "verdict": "holds", "measured": "", "bound": ""},
    ],
)
def test_reading_a_damaged_claim(tmp_path, damage):
    path = make_notebook(tmp_path / "01_x.ipynb", {claims.MIME: damage})
    with pytest.raises(ValueError, match="a stored claim is damaged|is not a Jupyter notebook"):
        stored_claims.read(path)


def test_reading_what_was_never_executed(tmp_path):
    path = make_notebook(tmp_path / "01_one.ipynb", execution_count=None)
    with pytest.raises(ValueError, match="01_one: has code cells that were never executed"):
        stored_claims.read(path)


def test_an_id_may_be_used_once(tmp_path):
    first, second = (make_notebook(tmp_path / f"0{i}_x.ipynb", stored("same")) for i in (1, 2))
    with pytest.raises(ValueError, match="'same' is used in .*01_x.ipynb and in .*02_x.ipynb"):
        stored_claims.read_all([first, second])
    twice = make_notebook(tmp_path / "03_x.ipynb", stored("same"), stored("same"))
    with pytest.raises(ValueError, match="03_x: two cells make the claim 'same'"):
        stored_claims.read(twice)
    with pytest.raises(ValueError, match="paths is empty"):
        stored_claims.read_all([])
    with pytest.raises(ValueError, match="names a notebook twice"):
        stored_claims.read_all([first, str(first)])
    (tmp_path / "other").mkdir()
    namesake = make_notebook(tmp_path / "other" / first.name, stored("same"))
    with pytest.raises(ValueError, match="'same' is used in"):
        stored_claims.read_all([first, namesake])


def test_command_line(tmp_path, capsys):
    good = make_notebook(tmp_path / "01_x.ipynb", stored("good"), stored("unseen", "not observable here"))
    bad = make_notebook(tmp_path / "02_x.ipynb", stored("bad", "refuted"))
    assert ledger.main([str(good)]) == 0
    assert "2 claims: 1 holds, 0 refuted, 1 not observable here" in capsys.readouterr().out
    assert ledger.main([str(good), str(bad), "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert [(c["id"], c["chapter"]) for c in listed] == [("good", "01_x"), ("unseen", "01_x"), ("bad", "02_x")]
    assert ledger.main([str(tmp_path / "03_x.ipynb")]) == 2
    assert "03_x.ipynb: cannot be read" in capsys.readouterr().err


def test_runs_as_a_module(tmp_path):
    path = make_notebook(tmp_path / "01_x.ipynb", stored("bad", "refuted"))
    done = subprocess.run([sys.executable, "-m", "book.ledger", path], capture_output=True, text=True)
    assert done.returncode == 1 and "refuted" in done.stdout
