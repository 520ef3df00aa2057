"""Running chapters: stored when complete, otherwise untouched."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from traitlets.config import PyFileConfigLoader

from book import notebooks, stored_claims
from gpbook_utils import claims

ROOT = Path(__file__).parents[1]


def write(path, *sources, notebook=None):
    notebook = notebook or v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, path)
    return path


def start(folder, chapter):
    """The command in a process of its own."""
    program = [sys.executable, "-m", "book.notebooks", "run", chapter, "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(notebooks.PACKAGE.parent)}
    return subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True)


def beside(path):
    return [file.name for file in sorted(path.parent.iterdir())]


# With a kernel ---------------------------------------------------------------------------------


def test_run_stores_a_quiet_complete_notebook_and_again_the_same_bytes(tmp_path, monkeypatch):
    installed = tmp_path / "kernels" / "python3"  # a kernel specification that names another Python
    installed.mkdir(parents=True)
    (installed / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    stale = v4.new_code_cell("import os, sys\nprint('a')\nprint('b', flush=True)\nprint('c')", execution_count=9)
    stale.metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    where = v4.new_code_cell("os.path.basename(os.getcwd()), os.path.samefile(sys.executable, PYTHON)")
    where.source = where.source.replace("PYTHON", repr(sys.executable))
    claim = v4.new_code_cell("from gpbook_utils.claims import decide\ndecide('two-is-even', True, check='It is.')")
    skipped = v4.new_code_cell("'has run'", metadata={"tags": ["skip-execution", "raises-exception"]})
    cells = [v4.new_markdown_cell("# Title"), stale, where, claim, skipped]
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "no-such-kernel", "display_name": "x"}})
    (tmp_path / "book").mkdir()
    path = write(tmp_path / "book" / "01_small.ipynb", notebook=notebook)
    path.chmod(0o640)

    notebooks.run(path)
    stored, content = notebooks.read(path), path.read_bytes()
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert [output.text for output in code[0].outputs] == ["a\nb\nc\n"]
    assert code[1].outputs[0].data["text/plain"] == "('book', True)"
    assert stored_claims.read(path)[0]["verdict"] == "holds"
    assert "execution" not in code[0].metadata
    assert stored.metadata["kernelspec"]["name"] == "python3"
    assert "version" not in stored.metadata["language_info"]
    assert notebooks.is_stale(stored) is None
    assert path.stat().st_mode & 0o777 == 0o640
    assert beside(path) == ["01_small.ipynb"]

    notebooks.run(path)
    assert path.read_bytes() == content


def test_a_home_that_cannot_be_written_changes_no_output(tmp_path, monkeypatch):
    path = write(tmp_path / "01_figure.ipynb", "import matplotlib.pyplot")
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", os.devnull)
    runner = start(tmp_path, "01")
    said = runner.communicate()[1]  # matplotlib says there where it puts what it would keep at home
    assert runner.returncode == 0 and "MPLCONFIGDIR" in said
    assert notebooks.read(path).cells[0].outputs == []


def test_a_failing_cell_is_named_and_the_file_is_untouched(tmp_path):
    fails = v4.new_code_cell("\n# why\nx + y", metadata={"tags": ["raises-exception"]})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("x = 1"), fails, v4.new_code_cell("x")])
    path = write(tmp_path / "01_fails.ipynb", notebook=notebook)
    before = path.read_bytes()
    with pytest.raises(notebooks.ChapterError) as error:
        notebooks.run(path)
    assert str(error.value) == "01_fails.ipynb: cell 2 ('# why') failed: NameError: name 'y' is not defined"
    assert path.read_bytes() == before and beside(path) == ["01_fails.ipynb"]


def test_a_cell_that_takes_too_long_and_a_kernel_that_dies(tmp_path):
    slow = v4.new_notebook(cells=[v4.new_code_cell("import time; time.sleep(60)")])
    with pytest.raises(notebooks.ChapterError, match=r"slow: cell 1 \('import time.* took longer than 1 s"):
        notebooks.execute(slow, tmp_path, timeout=1, name="slow")
    dead = v4.new_notebook(cells=[v4.new_code_cell("1"), v4.new_code_cell("import os; os._exit(1)")])
    with pytest.raises(notebooks.ChapterError, match=r"notebook: cell 2 .* the kernel died"):
        notebooks.execute(dead, tmp_path)
    assert dead.cells[0].execution_count is None  # it ran a copy


def test_a_claim_that_the_guard_refuses_fails_the_run(tmp_path, monkeypatch, capsys):
    source = "from gpbook_utils.claims import *\ndecide('tight', below(2, 3, reason='an example'), check='Tight.')"
    path = write(tmp_path / "01_tight.ipynb", source)
    before = path.read_bytes()
    monkeypatch.setenv("GPBOOK_GUARD", "3")
    assert notebooks.main(["run", "1", "--folder", str(tmp_path)]) == 1
    problem = capsys.readouterr().err
    assert problem.startswith("01_tight.ipynb: cell 1") and "GuardError" in problem
    assert path.read_bytes() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_runner_that_is_killed_leaves_the_old_file_and_no_kernel(tmp_path, how):
    sources = [
        "print('new output')",
        "import os, pathlib, time",
        "pathlib.Path('pid').write_text(str(os.getpid()) + '.'); time.sleep(300)",
    ]
    path = write(tmp_path / "01_long.ipynb", *sources)
    before, pid = path.read_bytes(), tmp_path / "pid"
    runner = start(tmp_path, "01")
    wait_until(lambda: pid.exists() and pid.read_text().endswith("."))
    runner.send_signal(how)
    _, problem = runner.communicate()
    if how == signal.SIGINT:
        # The interrupted kernel may write there too.
        assert any(line.startswith("01_long.ipynb: cell 3") for line in problem.splitlines()), problem
    assert path.read_bytes() == before and beside(path) == ["01_long.ipynb", "pid"]
    wait_until(lambda: not is_running(int(pid.read_text().rstrip("."))))


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # where nobody collects orphans, a dead one stays as a zombie
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


# Without a kernel ------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch):
    """Replaces the kernel: each code cell gets a count and, if it is a claim, the claim's output."""

    def execute(notebook, folder, timeout=600, name="notebook"):
        notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
        for count, cell in enumerate(notebook.cells, 1):
            cell.execution_count = count
            if cell.source in {claims.HOLDS, claims.REFUTED}:
                check = claims.Check(cell.source, "0.5", "below 0.1")
                claim = claims.Decision(f"claim-{count}", "It is so.", check, claims.CHECK)
                cell.outputs = [v4.new_output("display_data", claim._repr_mimebundle_())]
        return notebook

    monkeypatch.setattr(notebooks, "execute", execute)


def test_a_refuted_claim_is_not_stored_unless_allowed(tmp_path, executed):
    path = write(tmp_path / "01_refuted.ipynb", "holds", "refuted")
    before = path.read_bytes()
    with pytest.raises(notebooks.ChapterError, match=r"refutes\n  claim-2: It is so. \(measured 0.5\)$"):
        notebooks.run(path)
    assert path.read_bytes() == before
    notebooks.run(path, allow_refuted=True)
    assert [claim["verdict"] for claim in stored_claims.read(path)] == ["holds", "refuted"]


def test_an_edit_during_the_run_is_not_overwritten(tmp_path, monkeypatch):
    path = write(tmp_path / "01_edited.ipynb", "1")

    def execute(notebook, *arguments, **options):
        write(path, "2")
        notebook.cells[0].execution_count = 1
        return notebook

    monkeypatch.setattr(notebooks, "execute", execute)
    with pytest.raises(notebooks.ChapterError, match="01_edited.ipynb: not stored, the file was edited"):
        notebooks.run(path)
    assert notebooks.read(path).cells[0].source == "2"


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_litter(tmp_path, executed, monkeypatch, step):
    path = write(tmp_path / "01_full.ipynb", "holds")
    before = path.read_bytes()

    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notebooks.os, step, no_space)
    with pytest.raises(OSError, match="No space"):
        notebooks.run(path)
    assert path.read_bytes() == before and beside(path) == ["01_full.ipynb"]


def test_a_file_with_the_same_content_keeps_its_date(tmp_path):
    path = tmp_path / "record.json"
    notebooks.replace_file(path, "{}\n")
    os.utime(path, (1, 1))
    notebooks.replace_file(path, "{}\n")
    assert path.stat().st_mtime == 1
    notebooks.replace_file(path, "[]\n")
    assert path.read_text() == "[]\n" and path.stat().st_mtime > 1


def test_stale_after_a_change_of_code_or_package_but_not_of_prose(tmp_path, executed, monkeypatch):
    notebook = v4.new_notebook(cells=[v4.new_code_cell("holds")])
    assert "never stored" in notebooks.is_stale(notebook)
    path = write(tmp_path / "01_x.ipynb", notebook=notebook)
    notebooks.run(path)
    stored = notebooks.read(path)
    stored.cells.insert(0, v4.new_markdown_cell("More prose."))
    assert notebooks.is_stale(stored) is None
    monkeypatch.setattr(notebooks, "reached_hash", lambda notebook: "another")
    assert "a module that it imports" in notebooks.is_stale(stored)
    stored.cells[1].source += " "
    assert "code cells changed" in notebooks.is_stale(stored)


def test_outputs_of_the_first_edition_are_refused_with_the_reason():
    """They carry a hash of the whole package, which says nothing of what the chapter reaches."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell("1 + 1")])
    notebook.metadata["gpbook"] = {"chapter_code": notebooks.chapter_hash(notebook), "package_code": "7a2011a067ff"}
    assert notebooks.is_stale(notebook).startswith("it was stored by an older `make run`")


def test_the_title_is_the_first_heading(tmp_path):
    cells = [v4.new_code_cell("# no heading"), v4.new_markdown_cell("Text.\n\n# Rounding: why?\n\n## Part")]
    assert notebooks.title(write(tmp_path / "07_x.ipynb", notebook=v4.new_notebook(cells=cells))) == "Rounding: why?"
    assert notebooks.title(write(tmp_path / "08_y.ipynb", "1 + 1")) == "08_y"


def test_the_hash_of_the_chapter_sees_how_code_is_split_into_cells():
    hashes = {
        notebooks.chapter_hash(v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources]))
        for sources in (["a\nb"], ["a", "b"], ["b", "a"], ["ab"], [])
    }
    assert len(hashes) == 5


def test_chapters_are_in_reading_order_and_the_ledger_is_last(tmp_path):
    for name in ["verdicts", "10_b", "02_a", "Untitled"]:
        write(tmp_path / f"{name}.ipynb", "1")
    assert [path.stem for path in notebooks.chapters(tmp_path)] == ["02_a", "10_b", "verdicts"]
    for wanted in ["2", "02", "a", "02_a", "02_a.ipynb", "chapters/02_a.ipynb"]:
        assert [path.stem for path in notebooks.select(tmp_path, wanted)] == ["02_a"]
    assert [path.stem for path in notebooks.select(tmp_path, "verdicts")] == ["verdicts"]
    assert len(notebooks.select(tmp_path)) == 3


@pytest.mark.parametrize("wanted", ["3", "20", "0", "Untitled", ".."])
def test_an_unknown_chapter_is_an_error_that_lists_those_there_are(tmp_path, capsys, wanted):
    write(tmp_path / "02_a.ipynb", "1")
    assert notebooks.main(["run", wanted, "--folder", str(tmp_path)]) == 2
    assert f"there is no chapter {wanted!r}; there are: 02_a" in capsys.readouterr().err


def test_a_folder_without_chapters_is_an_error(tmp_path, capsys):
    assert notebooks.main(["run", "--folder", str(tmp_path)]) == 2
    assert "no chapters NN_name.ipynb here" in capsys.readouterr().err


def test_the_command_prints_seconds_and_stops_at_the_first_problem(tmp_path, capsys, executed):
    for name, source in [("01_a", "holds"), ("02_b", "refuted"), ("03_c", "holds")]:
        write(tmp_path / f"{name}.ipynb", source)
    assert notebooks.main(["run", "--folder", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out.split()[0::3] == ["01_a"] and printed.out.endswith(" s\n")
    assert "02_b.ipynb: not stored, this run refutes" in printed.err
    assert notebooks.is_stale(notebooks.read(tmp_path / "03_c.ipynb"))


@pytest.mark.parametrize(
    "content, says",
    [
        (b'{"cells": [', "Expecting value"),
        (b"", "Expecting value"),
        (b"[]", "TypeError"),
        (b'{"cells": []}', "KeyError: 'nbformat'"),
        (b'{"nbformat": 3, "worksheets": []}', "notebook format 3, needed 4"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "Error"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "Error"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_a_corrupt_notebook_is_named_and_left_alone(tmp_path, capsys, content, says):
    path = tmp_path / "01_torn.ipynb"
    path.write_bytes(content)
    assert notebooks.main(["run", "1", "--folder", str(tmp_path)]) == 1
    problem = capsys.readouterr().err
    assert "01_torn.ipynb: is not a Jupyter notebook" in problem and says in problem
    assert path.read_bytes() == content


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(ValueError, match="01_gone.ipynb: cannot be read: No such file"):
        notebooks.run(tmp_path / "01_gone.ipynb")


def test_a_chapter_that_jupyterlab_opened_and_saved_is_the_same_file(tmp_path):
    settings = PyFileConfigLoader("jupyter_server_config.py", path=str(ROOT / "book" / "lab")).load_config()
    path = Path(shutil.copy(ROOT / "chapters" / "02_hidden_state.ipynb", tmp_path))
    content, manager = path.read_bytes(), settings.ServerApp.contents_manager_class(root_dir=str(tmp_path))

    async def save(edit):
        opened = await manager.get(path.name)
        edit(opened["content"])
        await manager.save(opened, path.name)

    def as_lab_leaves_it(notebook):
        notebook["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
        notebook["metadata"]["language_info"] |= {"nbconvert_exporter": "python", "version": "3.12.1"}
        for cell in notebook["cells"]:
            if cell["metadata"].get("jupyter", {}).get("source_hidden"):
                cell["metadata"]["collapsed"] = True

    asyncio.run(save(as_lab_leaves_it))
    assert path.read_bytes() == content
    asyncio.run(save(lambda notebook: notebook["cells"].pop()))
    assert len(notebooks.read(path).cells) == len(nbformat.reads(content.decode(), 4).cells) - 1
    manager.notary.store.close()  # its database of signatures: Python 3.13 warns of one that is left open
