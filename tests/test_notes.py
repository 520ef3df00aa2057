"""Terms and readings: the first use of a term is a link, and each link says on hover what it leads to."""

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from test_book import build, write_sample

GLOSSARY = """\
# Glossary

```{glossary}
control
  A run that differs in nothing else.

full batch
  All data in
  every step.

LOVE
  Variances from a *few* Lanczos vectors.
```
"""
TEXT = """\
# Full batch

`full batch` is code. [On the full batch](https://example.org) is a link. Full batches are out of our
control, and a full batch comes again; so does love, not LOVE. {cite:t}`reader2020` read the {term}`control`.
"""
READING = "@book{reader2020, author = {Ada Reader}, title = {On Hovering}, publisher = {Press}, year = {2020}}\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = write_sample(tmp_path_factory.mktemp("notes") / "source")
    chapters = folder / "chapters"
    (chapters / "glossary.md").write_text(GLOSSARY)
    (chapters / "bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n```\n")
    (chapters / "references.bib").write_text(READING)
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(TEXT)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, chapters / "01_chapter.ipynb")
    files = "".join(f"- file: chapters/{name}\n" for name in ("01_chapter", "glossary", "bibliography"))
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{files}")
    return folder


def links(book):
    """Words, address and title of each link of the chapter's text, in order."""
    result = build(book, book.parent)
    assert result.returncode == 0, result.stdout[-6000:]
    page = BeautifulSoup((book.parent / "_build/html/chapters/01_chapter.html").read_text(), "html.parser")
    return [(link.text, link["href"], link.get("title")) for link in page.select("article p a")]


def test_the_first_use_of_a_term_leads_to_it_and_says_what_it_means(book):
    address, reading = "glossary.html#term-", ("bibliography.html#id", "Ada Reader. On Hovering. Press, 2020.")
    found = links(book)
    assert found.pop(3)[2] == reading[1]
    assert found == [
        ("On the full batch", "https://example.org", None),
        ("Full batches", f"{address}full-batch", "All data in every step."),
        ("LOVE", f"{address}LOVE", "Variances from a few Lanczos vectors."),
        ("control", f"{address}control", "A run that differs in nothing else."),
    ]


def test_a_note_that_changes_changes_on_pages_that_did_not(book):
    links(book)
    (book / "chapters" / "glossary.md").write_text(GLOSSARY.replace("every step", "each step"))
    assert ("Full batches", "glossary.html#term-full-batch", "All data in each step.") in links(book)
