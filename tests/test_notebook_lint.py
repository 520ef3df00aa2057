"""The stored notebooks pass every rule of the lint, and every rule is seen failing."""

import base64
import functools
import io

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from book import lint, notebooks
from gpbook_utils import claims

STORED = [(path, rule) for path in lint.documents() for rule in lint.rules_for(path)]
read = functools.cache(lint.read)


def test_there_are_notebooks_to_lint():
    assert [path for path, _ in STORED if path.suffix == ".ipynb"], "chapters/ has no notebook"


@pytest.mark.parametrize("path, rule", STORED, ids=lambda value: getattr(value, "__name__", getattr(value, "name", "")))
def test_stored(path, rule):
    problems = rule(path, read(path))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("rule", lint.BOOK_RULES)
def test_stored_book(rule):
    problems = rule({path: read(path) for path in lint.documents()})
    assert not problems, "\n".join(problems)


def test_no_notebook_at_all_is_a_problem(tmp_path):
    (tmp_path / "intro.md").write_text("# A page\n")
    [problem] = lint.lint(tmp_path)
    assert "has no notebook" in problem


# A small notebook that passes ------------------------------------------------------------------


def png(width=8, noise=False):
    image = Image.effect_noise((width, width), 90) if noise else Image.new("L", (width, width))
    image.save(content := io.BytesIO(), "png")
    return base64.b64encode(content.getvalue()).decode()


def claim_output(id="two-is-even", sentence="Two is even.", verdict=claims.HOLDS):
    claim = claims.Decision(id, sentence, claims.Check(verdict, measured="0.123456", bound="1e-9"), claims.CHECK)
    return v4.new_output("display_data", claim._repr_mimebundle_())


def figure_output():
    alt = "Two covariance matrices side by side, equal."
    return v4.new_output(
        "display_data",
        {"image/png": png(), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": 4}},
    )


def code(source, count, *outputs):
    return v4.new_code_cell(source, execution_count=count, outputs=list(outputs))


PROSE = """(sec-2006)=
# When are two covariances the same?

See {cite}`rasmussen2006`, the [intro](../intro.md) or <https://example.org/2006/12345>, and 0.5, 800
or 1,200 rows in `float64` on AVX-512, issue #2306, F19.
![Two matrices side by side, one of them zero.](../intro.md)
> The folk answer says: it is just chance.
```python
assert clearly
```
"""


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A notebook (its path and content) that passes every rule: prose, claim, figure, folded solution."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "intro.md").write_text("# Intro\n")
    solution = code("answer = 3", 3)
    solution.metadata.update(tags=["hide-input"], jupyter={"source_hidden": True})
    cells = [
        v4.new_markdown_cell(PROSE),
        code("decide(...)", 1, claim_output()),
        code("plots.show(...)", 2, figure_output()),
        solution,
    ]
    return tmp_path / "chapters" / "01_clean.ipynb", stamp(v4.new_notebook(cells=cells))


def stamp(notebook):
    codes = {"chapter_code": notebooks.chapter_hash(notebook), "reached_code": notebooks.reached_hash(notebook)}
    notebook.metadata["gpbook"] = codes
    return notebook


def test_a_clean_notebook_passes(clean, tmp_path):
    path, notebook = clean
    assert [problem for rule in lint.rules_for(path) for problem in rule(path, notebook)] == []
    nbformat.write(notebook, path)
    assert lint.lint(tmp_path) == lint.allowances({path: notebook})  # the book's own allow-list is unused here


# Each rule seen failing ------------------------------------------------------------------------

BREAKS = []


def breaks(rule, says, cell):
    """Register a change of the clean notebook that ``rule`` must report for ``cell``, saying ``says``."""

    def register(change):
        BREAKS.append(pytest.param(rule, says, cell, change, id=f"{rule.__name__}-{change.__name__}"))
        return change

    return register


@pytest.mark.parametrize("rule, says, cell, change", BREAKS)
def test_rule_fails(clean, rule, says, cell, change):
    path, notebook = clean
    assert rule(path, notebook) == []
    change(notebook)
    problems = rule(path, notebook)
    assert problems
    place = "all cells" if cell == "all" else f"cell {cell}"
    assert all(problem.startswith(f"01_clean.ipynb, {place}") and ";" in problem for problem in problems)
    assert any(says in problem for problem in problems), problems


def test_every_rule_is_seen_failing():
    elsewhere = {lint.file_name}
    seen = {param.values[0] for param in BREAKS} | elsewhere
    assert seen == {*lint.PAGE_RULES, *lint.NOTEBOOK_RULES}


def prose(rule, says, *texts):
    for text in texts:

        def change(notebook, text=text):
            notebook.cells[0].source += text

        change.__name__ = text.strip()[:30]
        breaks(rule, says, 1)(change)


def output(rule, says, *texts, mimes=("text/plain", "text/markdown", "stdout")):
    for text in texts:
        for mime in mimes:

            def change(notebook, text=text, mime=mime):
                stream = v4.new_output("stream", name=mime, text=text)
                data = stream if mime.startswith("std") else v4.new_output("display_data", {mime: text})
                notebook.cells[1].outputs.append(data)

            change.__name__ = f"{mime}: {text[:30]}"
            breaks(rule, says, 2)(change)


prose(
    lint.numbers_in_prose,
    "number 801",
    "\n`n = 801`",
    "\nat $n=801$",
    "\n```\n801\n```",
    "\n```{note}\n801\n```",
)
prose(lint.numbers_in_prose, "number 0.693", "\nthe default 0.693")
prose(lint.numbers_in_prose, "number 2006", "\nIn 2006,", "\n# 2006", "\n| 2006 | b |", "\n[2006](../intro.md)")
prose(lint.numbers_in_prose, "number 12345", "\n12,345", "\n$12\\,345$", "\n$12{,}345$")
prose(
    lint.numbers_in_prose,
    "number 1e-16",
    "\n1e-16",
    "\n$10^{-16}$",
    "\n10⁻¹⁶",
    "\n1E-16",
    "\n$\\le10^{-16}$",
    "\n10**-16",
)
prose(lint.numbers_in_prose, "number 1e-16", "\n10<sup>-16</sup>", "\n10^(-16)")
prose(lint.numbers_in_prose, "number 3.5e-4", "\n$3.5\\times10^{-4}$", "\n3.5 × 10⁻⁴", "\n3.5e-04")
prose(lint.numbers_in_prose, "number 2^-53", "\n$2^{-53}$", "\n2⁻⁵³")
prose(lint.numbers_in_prose, "number 2.13.0", "\ntorch 2.13.0")
prose(
    lint.soft_words,
    "the word",
    "\nThis is simply so.",
    "\nJust run it.",
    "\nObviously",
    "\nclearly",
    "\nOf course",
)
prose(lint.soft_words, "'just'", "\n```{note}\nA note.\n```\nIt is just so.", "\n:::{tip} just a title\n:::")
prose(lint.links, "leads to no file", "\n[next](02_missing.ipynb)", "\n[next](missing.md#here)")
prose(lint.links, "is absolute", "\n[data](/etc/passwd)", "\n[data](file:///etc/passwd)")
prose(lint.images_in_prose, "is missing", "\n![](a.png)", "\n```{figure} a.png\n```", "\n<img src='a.png'>")
prose(lint.images_in_prose, "does not describe", "\n![a.png](a.png)", "\n:::{image} a.png\n:alt: plot\n:::")
prose(lint.images_in_prose, "not a sentence", "\n![Two matrices that differ in one entry](a.png)")


@breaks(lint.executed, "never executed; run `make run C=01`", "all")
def strip_counts(notebook):
    for cell in notebook.cells[1:]:
        cell.execution_count, cell.outputs = None, []


@breaks(lint.execution_counts, "execution count 7, not 2", 3)
def gap_in_counts(notebook):
    notebook.cells[2].execution_count = 7


@breaks(lint.execution_counts, "execution count None", 4)
def one_cell_not_run(notebook):
    notebook.cells[3].execution_count = None


@breaks(lint.execution_counts, "empty", 5)
def empty_code_cell(notebook):
    notebook.cells.append(v4.new_code_cell(" \n"))


@breaks(lint.fresh, "code cells changed", "all")
def edit_code(notebook):
    notebook.cells[3].source = "answer = 4"


@breaks(lint.fresh, "a module that it imports, or one that this imports, changed", "all")
def edit_package(notebook):
    notebook.metadata["gpbook"]["reached_code"] = "0" * 64


@breaks(lint.fresh, "never stored", "all")
def run_in_jupyterlab(notebook):
    del notebook.metadata["gpbook"]


@breaks(lint.errors, "NameError: name 'x' is not defined", 4)
def stored_error(notebook):
    notebook.cells[3].outputs = [
        v4.new_output("error", ename="NameError", evalue="name 'x' is not defined", traceback=[])
    ]


@breaks(lint.figures, "does not decode", 3)
def damaged_png(notebook):
    data = notebook.cells[2].outputs[0].data
    data["image/png"] = data["image/png"][:40]


@breaks(lint.figures, "does not decode", 3)
def not_a_png(notebook):
    notebook.cells[2].outputs[0].data["image/png"] = "no base64 at all"


@breaks(lint.figures, "stored as image/svg+xml", 3)
def vector_figure(notebook):
    notebook.cells[2].outputs[0].data["image/svg+xml"] = "<svg/>"


@breaks(lint.figures, "at most 120", 3)
def heavy_png(notebook):
    notebook.cells[2].outputs[0].data["image/png"] = png(500, noise=True)


@breaks(lint.figures, "is missing", 3)
def no_alternative_text(notebook):
    notebook.cells[2].outputs[0].metadata = {}


@breaks(lint.figures, "does not describe", 3)
def path_as_alternative_text(notebook):
    notebook.cells[2].outputs[0].metadata["image/png"]["alt"] = "../_build/jupyter_execute/01_clean_2_0.png"


@breaks(lint.scripts, "without a picture", 3)
def script_without_picture(notebook):
    data = notebook.cells[2].outputs[0].data
    data["text/html"] = "<script>1</script>"
    del data["image/png"]


@breaks(lint.scripts, "at most 120", 3)
def explorer_too_large(notebook):
    notebook.cells[2].outputs[0].data["text/html"] = "<script>1</script>" + " " * 120_000


@breaks(lint.scripts, "loads something", 3)
def explorer_that_loads(notebook):
    notebook.cells[2].outputs[0].data["text/html"] = "<script src='https://example.org/a.js'></script>"


@breaks(lint.figures, "not a sentence", 3)
def label_as_alternative_text(notebook):
    notebook.cells[2].outputs[0].metadata["image/png"]["alt"] = "covariance matrices of two models"


@breaks(lint.size, "MB", 3)
def heavy_notebook(notebook):
    notebook.cells[2].outputs[0].data["text/html"] = "x" * 1_000_000


output(lint.machine_text, "path of this machine", "in /home/ada/book/a.py", "path=/private/var/a", "~/book/x.py")
output(lint.machine_text, "path of this machine", "in /tmp/x", "/root", "C:/Users/x")
output(
    lint.machine_text,
    "path of this machine",
    "C:\\Users\\ada\\x",
    "<a href='/home/ada/x'>",
    mimes=["text/html", "stdout"],
)
output(lint.machine_text, "memory address", "<Kernel at 0x7f3a2b1c4d50>")
output(lint.machine_text, "network address", "https://example.org/x", "from 192.168.0.1", "localhost:8888")
output(
    lint.machine_text,
    "timing",
    "done in 0.42 s",
    "took 0.42s",
    "12 ms",
    "Wall time: 3",
    "3 seconds",
    "5.1it/s",
    "done in 12s",
    "0:00:03",
    "1 min",
)
output(
    lint.machine_text,
    "a warning",
    "UserWarning: not positive definite",
    "warnings.warn(",
    "WARNING: bad",
    mimes=["text/plain", "stdout"],
)
output(lint.machine_text, "stderr", "a message", mimes=["stderr"])
output(lint.numbers_in_outputs, "number 51.62", "lengthscale 51.62", "tensor([51.62, 1.0])")
output(lint.numbers_in_outputs, "number 3.1e-9", "error 3.1e-09")


def tag(notebook, *names):
    notebook.cells[3].metadata["tags"] += names


for name in [
    "nbval-skip",
    "nbval-ignore-output",
    "raises-exception",
    "nbval-raises-exception",
    "skip-execution",
    "hide_input",
]:
    change = functools.partial(lambda notebook, name: tag(notebook, name), name=name)
    change.__name__ = name
    breaks(lint.tags, repr(name), 4)(change)

for marker in [
    "# NBVAL_SKIP",
    "#NBVAL_IGNORE_OUTPUT",
    "# PYTEST_VALIDATE_IGNORE_OUTPUT",
    "# nbval_raises_exception",
]:

    def change(notebook, marker=marker):
        notebook.cells[3].source = f"{marker}\nanswer = 3"

    change.__name__ = marker
    breaks(lint.tags, marker.strip("# "), 4)(change)


@breaks(lint.folded, "folded on the page only", 4)
def open_in_lab(notebook):
    del notebook.cells[3].metadata["jupyter"]


@breaks(lint.folded, "folded in JupyterLab only", 4)
def open_on_page(notebook):
    notebook.cells[3].metadata["tags"] = []


@breaks(lint.cell_length, "17 lines", 4)
def long_cell(notebook):
    notebook.cells[3].source = "x = 1\n" * 17


for line in ["!pip install x", "%matplotlib inline", "%%time\nx = 1", "x?"]:

    def change(notebook, line=line):
        notebook.cells[3].source = line

    change.__name__ = line.split()[0]
    breaks(lint.plain_python, "not plain Python", 4)(change)


@breaks(lint.plain_python, "get_ipython", 4)
def hidden_magic(notebook):
    notebook.cells[3].source = "get_ipython().system('ls')"


@breaks(lint.plain_python, "semicolon", 4)
def final_semicolon(notebook):
    notebook.cells[3].source = "answer;"


@breaks(lint.claim_outputs, "also made by cell 2", 4)
def claim_id_twice(notebook):
    notebook.cells[3].outputs = [claim_output(sentence="Four is even.")]


@breaks(lint.claim_outputs, "full stop", 4)
def no_sentence(notebook):
    notebook.cells[3].outputs = [claim_output("no-sentence", "evenness of two")]


@breaks(lint.claim_outputs, "refuted", 4)
def refuted(notebook):
    notebook.cells[3].outputs = [claim_output("three-is-even", "Three is even.", claims.REFUTED)]


@breaks(lint.claim_outputs, "but its text says", 2)
def verdict_edited_by_hand(notebook):
    notebook.cells[1].outputs[0].data["text/plain"] = "[holds] two-is-even: Two is even, always."


@pytest.mark.parametrize(
    "text",
    [
        "text/html and/or 1/2",
        "n = 800, 1,000, 0.693",
        "3 of 4 seeds",
        "float32",
        "a(b)/ccc/dd",
        "./a/b.png",
        "minutes",
    ],
)
def test_harmless_output_passes(clean, text):
    path, notebook = clean
    notebook.cells[1].outputs.append(
        v4.new_output("display_data", {"text/plain": text, "text/html": f"{text} 3.14159"})
    )
    assert lint.machine_text(path, notebook) == lint.numbers_in_outputs(path, notebook) == []


@pytest.mark.parametrize("before", ["<img src='data:image/png;base64,", '<script type="application/gzip">'])
def test_a_packed_picture_is_no_path(clean, before):
    path, notebook = clean
    page = v4.new_output("display_data", {"text/html": f"{before}AAA+/bbbb/cccc=</script>"})
    notebook.cells[1].outputs.append(page)
    assert lint.machine_text(path, notebook) == []
    page["data"]["text/html"] = page["data"]["text/html"].replace(before, "<p>")
    assert lint.machine_text(path, notebook)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- 2006 -->",
        "{ref}`the figure <fig-2006>`",
        "[text](#sec-2006)",
        "[b]: https://example.org/2006",
        ":width: 400px",
        "<img alt='A picture of what is seen here.' width='400'>",
        "doi:10.1137/0912345 and arXiv:1809.11165v2",
        "v1.15.2, A100, K_801, sha256",
        "$x^2$, m², 10 000 000, 99 %, 0.05, 1.0, 5 s",
        "The adjusted clearance.",
        "`just`",
    ],
)
def test_harmless_prose_passes(clean, text):
    path, notebook = clean
    notebook.cells[0].source += f"\n{text}\n"
    assert [problem for rule in lint.PAGE_RULES for problem in rule(path, notebook)] == []


@pytest.mark.parametrize("name", ["Untitled.ipynb", "1_short.ipynb", "01-dash.ipynb"])
def test_a_notebook_that_make_run_would_leave_out(clean, name):
    path, notebook = clean
    [problem] = lint.file_name(path.with_name(name), notebook)
    assert name in problem and "rename it" in problem
    assert lint.file_name(path.with_name("verdicts.ipynb"), notebook) == []


def test_a_page_in_markdown_is_linted_with_line_numbers(tmp_path):
    page = tmp_path / "glossary.md"
    page.write_text("# Glossary\n\n<!-- 2006\n-->\nA default of 0.693 is\nobviously odd.\n")
    notebook = lint.read(page)
    problems = [problem for rule in lint.rules_for(page) for problem in rule(page, notebook)]
    assert [problem.split(":")[0] for problem in problems] == ["glossary.md, line 5", "glossary.md, line 6"]


@pytest.mark.parametrize("target", ["01_clean.ipynb#kind-6-what-a-state_dict-holds", "01_clean.ipynb#it-ends"])
def test_a_symptom_leads_to_a_section(clean, target):
    assert section_problems(clean, target) == []


@pytest.mark.parametrize(
    "target, says",
    [
        ("01_clean.ipynb", "leads to the top of a chapter"),
        ("01_clean.ipynb#", "leads to the top of a chapter"),
        ("01_clean.ipynb#when-are-two-covariances-the-same", "names no section"),
        ("01_clean.ipynb#claim-two-is-even", "names no section"),
        ("01_clean.ipynb#kind-6", "names no section"),
    ],
)
def test_a_symptom_leads_nowhere(clean, target, says):
    [problem] = section_problems(clean, target)
    assert problem.startswith("symptoms.md, line 3: ")
    assert f"{says}" in problem and "it-ends" in problem


def section_problems(clean, target):
    """What the lint says of a page of symptoms with one link."""
    chapter, notebook = clean
    notebook.cells[0].source += "\n## Kind 6: what a `state_dict` holds\n\n### It ends\n"
    nbformat.write(notebook, chapter)
    page = chapter.with_name(lint.SYMPTOMS)
    page.write_text(f"# What you see\n\nWhy: [there]({target}), and `[code](01_clean.ipynb)`.\n")
    assert lint.section_links in lint.rules_for(page)
    assert lint.section_links not in lint.rules_for(chapter.with_name("glossary.md"))
    return lint.section_links(page, lint.read(page))


def test_a_corrupt_notebook_is_reported_with_the_others(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "01_torn.ipynb").write_text('{"cells": [')
    assert any("01_torn.ipynb: is not a Jupyter notebook" in problem for problem in lint.lint(tmp_path))


def test_claim_ids_are_unique_in_the_book(clean):
    path, notebook = clean
    [problem] = lint.claim_ids({path: notebook, path.with_name("02_other.ipynb"): notebook})
    assert problem.startswith("02_other.ipynb, cell 2") and "01_clean.ipynb" in problem


def test_a_number_in_the_sentence_of_a_claim_may_be_repeated(clean):
    """A table of claims repeats their sentences; the ledger those of other chapters."""
    path, notebook = clean
    sentence = "float32 moves K by 1e-8 to 1e-5 at n = 1234."
    notebook.cells[1].outputs = [claim_output("f32", sentence)]
    nbformat.write(notebook, path)
    ledger = v4.new_notebook(cells=[code("table()", 1, v4.new_output("display_data", {"text/plain": sentence}))])
    assert lint.numbers_in_outputs(path, notebook) == []
    assert lint.numbers_in_outputs(path.with_name("verdicts.ipynb"), ledger) == []


# The allow-list --------------------------------------------------------------------------------


def allow(monkeypatch, number=(), tag=()):
    monkeypatch.setattr(lint, "ALLOWED", {"number": list(number), "tag": list(tag)})


def test_an_allowed_number_passes_in_its_file_only(clean, monkeypatch):
    path, notebook = clean
    notebook.cells[0].source += "\nfrom n = 801"
    allow(monkeypatch, [{"file": "01_*.ipynb", "number": "801", "source": "max_cholesky_size"}])
    assert lint.numbers_in_prose(path, notebook) == []
    assert lint.numbers_in_prose(path.with_name("02_other.ipynb"), notebook)
    assert lint.allowances({path: notebook}) == []


def test_an_allowed_tag_passes_in_its_cell_only(clean, monkeypatch):
    path, notebook = clean
    tag(notebook, "nbval-ignore-output")
    entry = {"file": path.name, "cell": notebook.cells[3].id, "tag": "nbval-ignore-output", "reason": "why"}
    allow(monkeypatch, tag=[entry])
    assert lint.tags(path, notebook) == lint.allowances({path: notebook}) == []
    allow(monkeypatch, tag=[entry | {"cell": notebook.cells[2].id}])
    assert lint.tags(path, notebook) and lint.allowances({path: notebook})


def test_an_allowance_that_nothing_needs_is_reported(clean, monkeypatch):
    path, notebook = clean
    allow(monkeypatch, [{"file": "*.ipynb", "number": "801", "source": "max_cholesky_size"}])
    [problem] = lint.allowances({path: notebook})
    assert "'801'" in problem and "delete it" in problem


@pytest.mark.parametrize(
    "text, says",
    [
        ('[[number]]\nfile = "a"\nnumber = "801"', "needs file, number, source"),
        ('[[number]]\nfile = "a"\nnumber = "801"\nsource = " "', "non-empty"),
        ('[[number]]\nfile = "a"\nnumber = 801\nsource = "b"', "as non-empty texts"),
        ('[[numbers]]\nfile = "a"', "unknown table [[numbers]]"),
        ('[[number]]\nfile = "a"\nnumber = "801"\nsource = "b"\n' * 2, "twice"),
        ("[[number]", "not valid TOML"),
    ],
)
def test_a_broken_allow_list_is_an_error(tmp_path, text, says):
    path = tmp_path / "lint_allowed.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        lint.read_allowed(path)
    assert "lint_allowed.toml" in str(error.value) and says in str(error.value)


def test_the_readme_shows_the_figure_that_the_book_made():
    stored = [notebooks.readme_figure(lint.read(path)) for path in notebooks.chapters(lint.ROOT / "chapters")]
    pictures = [picture for picture in stored if picture]
    assert [(lint.ROOT / "chapters" / notebooks.README_FIGURE).read_bytes()] == pictures
    assert f"chapters/{notebooks.README_FIGURE}" in (lint.ROOT / "README.md").read_text(encoding="utf-8")
