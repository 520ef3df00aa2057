"""Records and the ledger: written whole, read back, stale when the sentence changed."""

import json
import subprocess
import sys
from pathlib import Path

import gpytorch
import pytest
from test_claims import make_notebook, stored

from book import ledger, notebooks, stored_claims
from book import records as written
from book.ledger import UNDECIDED, FolkAnswer, Ledger, folk_sentences
from gpbook_utils.machines import bits, machine, records

ROOT = Path(__file__).parents[1]
FIRST_EDITION = Path(__file__).with_name("first_edition")


def a_claim(id="a", verdict="holds", bound=""):
    told = {"sentence": "A sentence.", "measured": "", "chapter": "01_x", "kind": "finding"}
    return {"id": id, "verdict": verdict, "bound": bound, **told}


def test_a_record_is_written_and_read_back(tmp_path):
    path = written.write([a_claim()], tmp_path)
    (record,) = records.load(tmp_path)
    assert path.stem == record["machine"] == machine.identity()
    assert ledger.verdict_in(record, a_claim()) == "holds"
    assert ledger.verdict_in(record, a_claim(bound="below 1")) == "stale"
    assert ledger.verdict_in(record, a_claim(id="b")) is None


@pytest.mark.parametrize("change", [{"claims": []}, {"claims": {"a": {}}}, {"claims": {"a": {"verdict": "passed"}}}])
def test_a_damaged_record(tmp_path, change):
    path = written.write([a_claim()], tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="is not a record"):
        records.load(tmp_path)


def test_a_forged_fingerprint(tmp_path):
    path = written.write([a_claim()], tmp_path)
    record = json.loads(path.read_text())
    record["fingerprint"]["gpu"] = "a large one"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="its fingerprint is not that of its machine"):
        records.load(tmp_path)


def test_this_machine_is_known_by_its_processor(tmp_path, monkeypatch):
    here = machine.fingerprint()
    for change in ({"gpu": "a large one"}, {"cpu": "another"}):
        monkeypatch.setattr(machine, "fingerprint", lambda change=change: here | change)
        written.write([a_claim()], tmp_path)
    monkeypatch.setattr(machine, "fingerprint", lambda: here)
    assert [record["fingerprint"]["gpu"] for record in records.of_this_machine(tmp_path)] == ["a large one"]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not a record"), ("{}", "lacks machine"), ("3", "is not a record")]
)
def test_what_is_no_record(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json: .*{message}"):
        records.load(tmp_path)


def test_a_renamed_record_is_refused(tmp_path):
    written.write([a_claim()], tmp_path).rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match="a record bears its machine's name"):
        records.load(tmp_path)


def test_making_a_record(tmp_path, capsys):
    chapters = tmp_path / "chapters"
    chapters.mkdir()
    path = make_notebook(chapters / "01_x.ipynb", stored("one-is-two"))
    notebook = notebooks.read(path)
    notebook.cells[0].source = "from gpbook_utils.claims import decide\ndecide('one-is-two', 1 == 2, check='It is.')"
    path.write_text(json.dumps(notebook))
    before = path.read_bytes()
    assert written.main(["--chapters", str(chapters), "--records", str(tmp_path / "records")]) == 1
    out = capsys.readouterr().out
    assert "one-is-two: refuted here, holds in the book" in out
    assert "shared with the other recorded machines:" in out
    assert path.read_bytes() == before
    (record,) = records.load(tmp_path / "records")
    assert record["claims"]["one-is-two"]["verdict"] == "refuted"

    kept = (tmp_path / "records" / f"{machine.identity()}.json").read_bytes()
    notebook.cells[0].source = "1 / 0"
    path.write_text(json.dumps(notebook))
    assert written.main(["--chapters", str(chapters), "--records", str(tmp_path / "records")]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "records" / f"{machine.identity()}.json").read_bytes() == kept


def test_one_chapter_is_recorded_and_the_others_keep_their_entries(tmp_path, capsys):
    chapters, folder = tmp_path / "chapters", tmp_path / "records"
    chapters.mkdir()
    make_notebook(chapters / "01_x.ipynb", stored("kept"))
    notebook = notebooks.read(make_notebook(chapters / "02_y.ipynb", stored("again")))
    notebook.cells[0].source = "from gpbook_utils.claims import decide\ndecide('again', 1 == 1, check='A sentence.')"
    (chapters / "02_y.ipynb").write_text(json.dumps(notebook))
    written.write([a_claim("kept"), a_claim("again", "refuted"), a_claim("gone")], folder)
    (whole,) = records.load(folder)
    assert written.main(["2", "--chapters", str(chapters), "--records", str(folder)]) == 0
    (record,) = records.load(folder)
    assert {id: entry["verdict"] for id, entry in record["claims"].items()} == {"kept": "holds", "again": "holds"}
    assert record["bits"] == whole["bits"]
    assert written.main(["3", "--chapters", str(chapters), "--records", str(folder)]) == 2
    assert "there is no chapter '3'" in capsys.readouterr().err


def test_what_one_chapter_says_of_a_new_machine_holds_no_bits(tmp_path):
    written.write([a_claim()], tmp_path, keep=["of-another-chapter"])
    (record,) = records.load(tmp_path)
    assert record["claims"].keys() == {"a"} and records.hashes(record) == {}


def test_the_faults_of_the_library_are_found_in_every_release_recorded_but_one():
    page = {claim["id"] for claim in stored_claims.read(ROOT / "chapters" / "21_upstream.ipynb")}
    asked = {}
    for record in records.load(ROOT / "records"):
        if verdicts := {id: entry["verdict"] for id, entry in record["claims"].items() if id in page}:
            asked[record["fingerprint"]["gpytorch"]] = {id for id in page if verdicts.get(id) != "holds"}
    older = {release: absent for release, absent in asked.items() if release != gpytorch.__version__}
    assert len(older) >= 4 and set(map(tuple, older.values())) == {("upstream-sgpr",)}
    assert not asked.get(gpytorch.__version__)


def test_a_record_holds_bits_of_one_edition(tmp_path, monkeypatch):
    written.write([a_claim()], tmp_path)
    (record,) = records.load(tmp_path)
    assert records.hashes(record) == bits.hashes(bits.computations())
    monkeypatch.setattr(bits, "EDITION", "another")
    assert records.hashes(record) == {}


def test_a_record_without_bits_is_still_one(tmp_path):
    path = written.write([a_claim()], tmp_path)
    older = {key: value for key, value in json.loads(path.read_text()).items() if key != "bits"}
    path.write_text(json.dumps(older))
    (record,) = records.load(tmp_path)
    assert records.hashes(record) == {}
    path.write_text(json.dumps(older | {"bits": {"edition": 3}}))
    with pytest.raises(ValueError, match="its bits are"):
        records.load(tmp_path)


def test_a_record_of_the_first_edition_keeps_its_verdicts_and_its_bits_are_not_compared(tmp_path):
    """One that the book shipped before records held bits, cut to three claims; and one with bits of another edition."""
    (old,) = records.load(FIRST_EDITION)
    assert [entry["verdict"] for entry in old["claims"].values()] == ["holds"] * 3
    entry = old["claims"]["null-prior"]
    here = {"machine": "here", "claims": {"null-prior": entry}, "bits": {"edition": bits.EDITION, "K": "1"}}
    other = old | {"bits": {"edition": "00000000", "K": "1"}}
    path = tmp_path / f"{old['machine']}.json"
    path.write_text(json.dumps(other))
    for record in (old, *records.load(tmp_path)):
        assert records.hashes(record) == {}
        (line,) = written.sharing(here, [record])
        assert line == f"{old['machine']}: same verdict on 1 of 1 claims; its bits are not comparable"
    path.write_text(json.dumps(old | {"bits": {"K": "1"}}))
    with pytest.raises(ValueError, match="is not a record: its bits are .*write it with `make record`"):
        records.load(tmp_path)


def test_what_records_share():
    entry = {"verdict": "holds", "measured": "", "digest": "d"}
    here = {
        "machine": "here",
        "claims": {"a": entry, "b": entry},
        "bits": {"edition": bits.EDITION, "K": "1", "y": "2"},
    }
    other = here | {"machine": "other", "bits": here["bits"] | {"y": "3"}}
    other["claims"] = {"a": entry | {"verdict": "refuted"}, "b": entry | {"digest": "of another sentence"}}
    older = {"machine": "older", "claims": {"a": entry}}
    assert written.sharing(here, [here, other, older]) == [
        "other: same verdict on 0 of 1 claims; same bits of 1 of 2 results",
        "older: same verdict on 1 of 1 claims; its bits are not comparable",
    ]


def test_the_ledger_shows_every_verdict(tmp_path):
    written.write([a_claim(), a_claim("b", "refuted"), a_claim("c", "not observable here"), a_claim("d")], tmp_path)
    book = [a_claim(), a_claim("b"), a_claim("c"), a_claim("d", bound="below 1"), a_claim("e")]
    ledger = Ledger(book, records.load(tmp_path))
    assert repr(ledger).endswith("1 holds, 1 not observable here, 1 not run, 1 refuted, 1 stale")
    for mark in ("✓", "✗", "○", "~", 'aria-label="not run"'):
        assert mark in ledger._repr_html_()


def test_the_ledger_shows_what_each_machine_measured(tmp_path):
    written.write([a_claim(bound="below 1") | {"measured": "0.25"}], tmp_path)
    ledger = Ledger([a_claim(bound="below 1") | {"measured": "<0.5"}], records.load(tmp_path))
    assert "<small>&lt;0.5</small>" in ledger._repr_html_()
    assert "<small>0.25</small>" in ledger._repr_html_()


def test_a_chapter_says_where_a_claim_does_not_hold(tmp_path):
    written.write([a_claim(), a_claim("b", "refuted")], tmp_path)
    whole = Ledger([a_claim()], records.load(tmp_path), {"01_x": "A <title>"})._repr_html_()
    assert "<summary>A &lt;title&gt; <small>1 claim; all hold here and on 1 machine</small>" in whole
    parts = Ledger([a_claim(), a_claim("b"), a_claim("c")], records.load(tmp_path))._repr_html_()
    assert "<summary>01_x <small>3 claims; machine 1: 1 not run, 1 refuted</small>" in parts


FOLK = {"id": "F0", "sentence": "So & so.", "judgement": "refuted", "range": "of K", "why": "Because.", "claims": ["a"]}


def test_checks_are_folded_apart_from_findings(tmp_path):
    written.write([a_claim(), a_claim("b")], tmp_path)
    page = Ledger([a_claim(), a_claim("b") | {"kind": "check"}], records.load(tmp_path))._repr_html_()
    findings, checks = page.split("<summary>1 check</summary>")
    assert 'id="ledger-a"' in findings and 'id="ledger-b"' in checks
    assert page.count("<summary>") == 2


def test_machines_stand_under_their_processor_and_are_counted_apart(tmp_path):
    (record,) = records.load(written.write([a_claim()], tmp_path).parent)
    found = record["fingerprint"] | {"cpu": "One", "aten": "AVX2", "threads": 2, "switches": {}}
    other = found | {"threads": 1, "switches": {"MKL_CBWR": "COMPATIBLE"}}
    three = [record | {"fingerprint": each} for each in (found, other, found | {"cpu": "An<other"})]
    page = Ledger([a_claim()], three)._repr_html_()
    assert "<p>2 processors in 3 settings.</p>" in page
    assert 'colspan="2">One</th>' in page and 'colspan="1">An&lt;other</th>' in page
    assert ">2<small>AVX2, 1 thread, compatible</small>" in page


def test_a_machine_stands_where_it_was_asked_with_the_releases_that_others_lack(tmp_path):
    (record,) = records.load(written.write([a_claim()], tmp_path).parent)
    alike = record["fingerprint"] | {"aten": "AVX2", "threads": 2, "switches": {}, "gpytorch": "1.15.2"}
    usual = record | {"fingerprint": alike}
    (other,) = records.load(written.write([a_claim("b")], tmp_path / "other").parent)
    old = other | {"fingerprint": alike | {"gpytorch": "1.11"}}
    book = [a_claim(), a_claim("b") | {"chapter": "02_y"}]
    first, second = Ledger(book, [usual, usual, old])._repr_html_().split("01_x")[1].split("02_y")
    assert ">2<small>AVX2, 2 threads</small>" in first and "all hold here and on 2 machines" in first
    assert ">3<small>AVX2, 2 threads, GPyTorch 1.11</small>" in second and "on 1 machine<" in second
    assert ">3<" not in first and ">2<" not in second


def test_a_folk_sentence_comes_first_then_its_judgement_and_the_claims_that_decide_it():
    page = FolkAnswer([a_claim()], [FOLK])._repr_html_()
    assert 'data-verdict="refuted"' in page and 'href="#ledger-a"' in page
    assert page.index("So &amp; so.") < page.index(">refuted<") < page.index("of K") < page.index("Because.")
    assert 'id="ledger-a"' in Ledger([a_claim()], [])._repr_html_()


def test_a_folk_sentence_stands_only_while_its_claims_hold():
    assert FolkAnswer([a_claim()], [FOLK]).rows[0]["judgement"] == "refuted"
    fallen = FolkAnswer([a_claim(verdict="refuted")], [FOLK]).rows[0]
    assert (fallen["judgement"], fallen["range"], fallen["why"]) == (UNDECIDED, "", "a must hold first")
    assert FolkAnswer([], [FOLK | {"claims": []}]).rows[0]["judgement"] == UNDECIDED
    with pytest.raises(ValueError, match=r"F0 is decided by \['a'\], which no chapter claims"):
        FolkAnswer([a_claim("b")], [FOLK])
    with pytest.raises(ValueError, match="F0 is judged 'true'; say 'holds', 'holds within a range', 'refuted'"):
        FolkAnswer([a_claim()], [FOLK | {"judgement": "true"}])


def test_the_folk_table_is_complete_and_decided_by_real_claims():
    rows = folk_sentences()
    assert [row["id"] for row in rows] == [f"F{i}" for i in range(1, 22)]
    book = stored_claims.read_all(path for path in notebooks.chapters("chapters") if path.name != notebooks.LEDGER)
    assert [row["id"] for row in FolkAnswer(book).rows if row["judgement"] == UNDECIDED] == []


def test_reading_verdicts_back_imports_no_torch():
    """Nor the folk answer's table: both are read where the page is built, by whatever has the notebooks."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'IPython']))  # whoever imports one fails\n"
        "from book import ledger; ledger.folk_sentences(); sys.exit(ledger.main(['--json', sys.argv[1]]))"
    )
    chapter = Path(__file__).parents[1] / "chapters" / "01_same_covariance.ipynb"
    result = subprocess.run([sys.executable, "-c", program, chapter], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {"id", "sentence", "verdict"} <= json.loads(result.stdout)[0].keys()
