"""`make claim`: one claim, from its cell to the ledger, and what it still lacks."""

import shutil

import nbformat
import pytest
from nbformat import v4

from book import claim, lint, notebooks, sabotage

IMPORTS = "from gpbook_utils.claims import decide"
DECISION = 'decide("two-even", x % 2 == 0)'
PROSE = "# Is two even?\n\n[Two is even](#claim-two-even)."
SABOTAGE = '[[sabotage]]\nwhy = "an odd number"\nrefutes = ["two-even"]\nreplace = "x = 2"\nby = "x = 3"\n'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The top folder of a book of one chapter, with one claim."""
    for folder in ("chapters", "plans", "records"):
        (tmp_path / folder).mkdir()
    (tmp_path / "intro.md").write_text("# Intro\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    cells = [v4.new_markdown_cell(PROSE), *map(v4.new_code_cell, (f"{IMPORTS}\nx = 2", DECISION))]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "chapters" / "07_even.ipynb")
    monkeypatch.setattr(sabotage, "PLANS", tmp_path / "plans")
    monkeypatch.setattr(lint, "ALLOWED", {"number": [], "tag": []})
    return tmp_path


def test_a_claim_is_followed_until_nothing_lacks(root, capsys):
    said = []
    missing = claim.follow(root, "7", "two-even", said.append)
    assert [line.split()[0] for line in said] == ["run", "lint"] and "holds: Two is even." in said[0]
    assert [part.split(",")[0].split(":")[0] for part in missing] == [
        "a sabotage that refutes it", "its name in CHANGELOG.md", "a machine that recorded it"
    ]  # fmt: skip
    assert 'refutes = ["two-even"]' in missing[0]
    assert notebooks.is_stale(notebooks.read(root / "chapters" / "07_even.ipynb")) is None

    (root / "plans" / "07_even.toml").write_text(SABOTAGE)
    (root / "CHANGELOG.md").write_text("# Changelog\n\n- `two-even` is new.\n")
    missing = claim.follow(root, "even", "two-even", said.append)
    assert "sabotage  refutes it" in said and missing == [missing[0]] and "make record C=even" in missing[0]


def test_a_sabotage_that_does_not_refute_and_a_sentence_that_lacks(root, capsys):
    (root / "plans" / "07_even.toml").write_text(SABOTAGE.replace("x = 3", "x = 4"))
    path = root / "chapters" / "07_even.ipynb"
    notebook = notebooks.read(path)
    notebook.cells[0].source = "# Is two even?"
    nbformat.write(notebook, path)
    missing = "\n".join(claim.follow(root, "7", "two-even", lambda line: None))
    assert "does not" in missing and "'two-even' has no sentence in the prose" in missing


@pytest.mark.parametrize(
    ("chapter", "id", "says"),
    [
        ("7", "two-evn", "makes no claim 'two-evn'; it makes two-even"),
        ("8", "two-even", "there is no chapter '8'"),
        ("", "two-even", "name a chapter and a claim"),
        ("7", "", "name a chapter and a claim"),
    ],
)
def test_what_is_not_there_is_named(root, monkeypatch, capsys, chapter, id, says):
    monkeypatch.setattr(lint, "ROOT", root)
    assert claim.main([chapter, id]) == 2
    assert says in capsys.readouterr().err


def test_a_refuted_claim_is_not_stored(root, monkeypatch, capsys):
    path = root / "chapters" / "07_even.ipynb"
    path.write_text(path.read_text().replace("x = 2", "x = 3"))
    monkeypatch.setattr(lint, "ROOT", root)
    assert claim.main(["7", "two-even"]) == 1
    assert "this run refutes" in capsys.readouterr().err


def test_the_command_ends_with_what_lacks(root, monkeypatch, capsys):
    monkeypatch.setattr(lint, "ROOT", root)
    shutil.rmtree(root / "records")
    assert claim.main(["7", "two-even"]) == 1
    assert "It lacks:\n- a sabotage" in capsys.readouterr().out
