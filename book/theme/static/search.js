// The search: sections of the book, while the reader types, in the dialog and on the search page. The index comes with
// the first search, and as a script, so that it works from a folder without a server too.

const root = new URL("..", document.currentScript.src);
const shown = 20;
const unsaying = new Set(
  `a after an and are as at be but by can do does for from get has have how i in is it its me my of on or so than that
  the their then there they this to was we what when where which who why will with you your`.split(/\s+/)
);
// What people write, and what the book writes.
const meant = {
  "not positive definite": "notpsderror",
  cuda: "gpu",
  loading: "state_dict",
  checkpoint: "state_dict",
  "single precision": "float32",
  "double precision": "float64",
};
let index;

function load(name) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: new URL(`_static/${name}`, root), onload: done, onerror: failed });
    document.head.append(script);
  });
}

// The words of a text, and the parts of a name: NotPSDError is found by "not psd" too.
function words(text) {
  return text.match(/[\p{L}\p{N}_]+/gu)?.flatMap((word) => {
    const parts = word.split(/_+|(?<=\p{Ll})(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})/u).filter(Boolean);
    return parts.length > 1 ? [word, ...parts] : [word];
  }) ?? [];
}

// Without endings, so that "loading" finds what is loaded; American spelling is British.
function stem(word) {
  word = word.toLowerCase();
  if (unsaying.has(word)) return null;
  word = word.replace(/iz(?=e|i|a)/, "is");
  return word.replace(/(?<=\p{L}{4})(?:ences?|ents?|ing|ations?|ies|y|ed|es|e|s)$/u, "");
}

async function open() {
  const sections = new Promise((done) => (window.gpbookSections = done));
  await Promise.all([load("scripts/minisearch.js"), load("sections.js")]);
  const made = new MiniSearch({
    fields: ["title", "chapter", "text", "code", "words"],
    storeFields: ["page", "anchor", "title", "chapter", "text", "code"],
    tokenize: words,
    processTerm: stem,
    searchOptions: {
      boost: { title: 4, words: 4, chapter: 1.5, code: 0.3 },
      // Exercises explain nothing, and an entry of the glossary only its own word.
      boostDocument: (id, term, { title, anchor }) =>
        /^(Exercises|Readings|Take-away|Bibliography)$/.test(title) ||
        (anchor.startsWith("term-") && !title.toLowerCase().includes(term)) ? 0.5 : 1,
      prefix: (word) => word.length > 2,
      fuzzy: (word) => (word.length > 4 && !/\d/.test(word) ? 1 : false),
      weights: { prefix: 0.6, fuzzy: 0.1 },
      bm25: { k: 1.2, b: 0.4, d: 0.5 }, // a short entry of the glossary is not better for being short
    },
  });
  const all = Object.entries(await sections).flatMap(([page, found]) =>
    found.map((section) => ({ page, chapter: found[0].title, ...section })));
  made.addAll(all.map((section, id) => ({ id, ...section })));
  return made;
}

// The more of the words a section has, the higher it stands.
function find(query) {
  const forms = [query.toLowerCase()];
  for (const [said, other] of Object.entries(meant))
    if (forms[0].includes(said)) forms.unshift(forms[0].replace(said, other));
  const hits = forms.flatMap((form) => {
    const asked = new Set(words(form).map(stem).filter(Boolean)).size;
    const weight = form === forms.at(-1) ? 1 : 4;
    const share = (hit) => (hit.queryTerms.length / asked) ** 2;
    return index.search(form).map((hit) => ({ ...hit, score: weight * hit.score * share(hit) }));
  });
  hits.sort((a, b) => b.score - a.score);
  const seen = new Set();
  return hits.filter(({ id }) => !seen.has(id) && seen.add(id)).slice(0, shown);
}

// Of the line with most of the words that were found, the part with most of them, marked.
function excerpt(hit) {
  const width = 220;
  const terms = new Set(hit.terms);
  const found = (piece) => words(piece).map(stem).filter((word) => terms.has(word));
  const most = (list, count) => list.reduce((best, one) => (count(one) > count(best) ? one : best), list[0]);
  const prose = most(hit.text.split("\n"), (line) => new Set(found(line)).size || words(line).length > 4 && 0.5);
  const code = most(hit.code.split("\n"), (line) => new Set(found(line)).size);
  const line = found(prose).length || !found(code).length ? prose : code;
  let at = 0;
  const pieces = line.split(/([\p{L}\p{N}_]+)/u).map((text) => {
    at += text.length;
    return { text, at: at - text.length, terms: found(text) };
  });
  const within = (start) => pieces.filter((piece) => piece.at >= start && piece.at < start + width - 60);
  const around = (piece) => (piece.terms.length ? within(piece.at).flatMap((one) => one.terms) : []);
  const first = most(pieces, (piece) => new Set(around(piece)).size);
  const start = line.length > width ? Math.max(0, Math.min(first.at - 60, line.length - width)) : 0;
  const paragraph = document.createElement("p");
  const kept = pieces.filter((piece) => piece.at >= start && piece.at + piece.text.length <= start + width);
  for (const { text, terms } of kept) {
    const mark = terms.length ? document.createElement("mark") : "";
    if (mark) mark.textContent = text;
    paragraph.append(mark || text);
  }
  if (kept[0] !== pieces[0]) paragraph.prepend("… ");
  if (kept.at(-1) !== pieces.at(-1)) paragraph.append(" …");
  return paragraph;
}

function item(hit) {
  const link = document.createElement("a");
  link.href = new URL(`${hit.page}#${hit.anchor}`, root);
  link.textContent = hit.title;
  const entry = document.createElement("li");
  entry.append(link);
  if (hit.title !== hit.chapter) {
    const chapter = document.createElement("small");
    chapter.textContent = hit.chapter;
    entry.append(" ", chapter);
  }
  entry.append(excerpt(hit));
  return entry;
}

function attach(form) {
  const input = form.querySelector("input");
  const status = document.createElement("p");
  const list = document.createElement("ol");
  const results = document.createElement("div");
  status.setAttribute("role", "status");
  results.className = "gp-results";
  results.append(status, list);
  form.after(results);

  async function show() {
    index ??= open();
    index = await index;
    const query = input.value.trim();
    const hits = query ? find(query) : [];
    list.replaceChildren(...hits.map(item));
    status.textContent = query && (hits.length ? `${hits.length} sections` : "No section has these words.");
  }

  input.addEventListener("input", show);
  // From the field down to the results and back.
  form.parentElement.addEventListener("keydown", (event) => {
    const stops = [input, ...list.querySelectorAll("a")];
    const at = stops.indexOf(document.activeElement);
    const next = stops[at + ({ ArrowDown: 1, ArrowUp: -1 }[event.key] ?? NaN)];
    if (at < 0 || !next) return;
    event.preventDefault();
    next.focus();
  });
  results.addEventListener("click", (event) => {
    if (event.target.closest("a")) form.closest("dialog")?.close(); // the section may be on this page
  });
  const asked = new URLSearchParams(location.search).get("q");
  if (asked && !form.closest("dialog")) {
    input.value = asked;
    show();
  }
}

addEventListener("DOMContentLoaded", () => document.querySelectorAll("form.bd-search").forEach(attach));
addEventListener("keydown", (event) => {
  // After Escape the field can keep the focus for a moment, although its dialog is closed.
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]")?.checkVisibility();
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.querySelector(".search-button__button").click();
});
