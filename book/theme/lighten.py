"""A lighter page: of the theme's styles and icons, those that the book uses.

The theme brings the whole of Bootstrap and of an icon font, most of which no page shows. After each build, for which
Sphinx has copied the theme's files anew, the rules and icons that no page and no script names are taken out.
"""

import re
from itertools import pairwise
from pathlib import Path

import tinycss2
from fontTools import subset
from sphinx.application import Sphinx

OWN = "book.css"  # small, and some of its names are made by scripts that are stored compressed
ICONS = Path("vendor", "fontawesome", "webfonts")


def used_names(folder: Path) -> set[str]:
    """Every word of the built pages and scripts: a class or an id that is none of them can't come to be on a page."""
    files = [*folder.rglob("*.html"), *(path for path in folder.rglob("*.js") if path.name != "sections.js")]
    return set().union(*(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")) for path in files))


def lighter(rules: list, used: set[str]) -> str:
    """Write a parsed style sheet without the selectors that ask for a class or an id which is not used.

    >>> rules = tinycss2.parse_stylesheet("a.x, .y:not(.z) { top: 0 } @media print { #x { top: 0 } .z { top: 0 } }")
    >>> lighter(rules, {"y"}), lighter(rules, {"x"})
    ('.y:not(.z){ top: 0 }', 'a.x{ top: 0 }@media print {#x{ top: 0 }}')
    """
    kept = ""
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [part for part in split(rule.prelude) if names(part) <= used]
            if selectors:
                words = ",".join(tinycss2.serialize(part).strip() for part in selectors)
                kept += f"{words}{{{tinycss2.serialize(rule.content)}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports", "layer") and rule.content:
            if inner := lighter(tinycss2.parse_rule_list(rule.content), used):
                kept += f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}"
        elif rule.type == "at-rule":
            kept += rule.serialize()
    return kept


def split(prelude: list) -> list[list]:
    """The selectors of a rule: its tokens, parted at the commas."""
    parts: list[list] = [[]]
    for token in prelude:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def names(selector: list) -> set[str]:
    """The classes and ids that an element must have or lie in; those within ``:not(…)`` and its like do not count."""
    found = {token.value for token in selector if token.type == "hash"}
    return found | {name.value for dot, name in pairwise(selector) if dot == "." and name.type == "ident"}


def lighten(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the built style sheets and the icon fonts."""
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    static, used = folder / "_static", used_names(folder)
    sheets = {path: path.read_text(encoding="utf-8") for path in static.rglob("*.css")}
    for path in [path for path in sheets if path.name != OWN]:
        rules = tinycss2.parse_stylesheet(sheets[path], skip_comments=True, skip_whitespace=True)
        text = lighter(rules, used)
        # The icons are written anew in a format that needs no further library.
        text = re.sub(r'(url\([^)]*/fa-[\w-]+)\.woff2\) format\("woff2"\),[^;}]*', r'\1.woff) format("woff")', text)
        sheets[path] = text
        path.write_text(text, encoding="utf-8")
    # Icons lie in the area for private use, and are written as they are or as an escape.
    found = re.findall(r"([\ue000-\uf8ff])|\\([ef][0-9a-f]{3})\b", "".join(sheets.values()))
    icons = {ord(letter) if letter else int(code, 16) for letter, code in found}
    for path in (static / ICONS).glob("*.ttf"):
        options = subset.Options(flavor="woff", hinting=False, layout_features=[])
        font, cutter = subset.load_font(path, options), subset.Subsetter(options)
        cutter.populate(unicodes=icons)
        cutter.subset(font)
        subset.save_font(font, path.with_suffix(".woff"), options)
        path.unlink()
        path.with_suffix(".woff2").unlink()


def setup(app: Sphinx) -> None:
    """Run last, when every file is there."""
    app.connect("build-finished", lighten, priority=900)
