// One document from the pages of the built book. Called with them as {address: text}; returns its body and its styles.
(pages) => {
  const slug = (address) => address.replace(/\.html$/, "").replace(/\W+/g, "-");
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const here = (address) => new URL(address, document.baseURI).href.replace(/[#?].*/, "");
  const names = new Map(Object.keys(pages).map((address) => [here(address), slug(address)]));

  // What a page says, for reading on paper.
  function chapter(address) {
    const base = new URL(address, document.baseURI);
    const parsed = new DOMParser().parseFromString(pages[address], "text/html");
    const article = document.importNode(parsed.querySelector("article.bd-article"), true);
    const all = (selector) => [...article.querySelectorAll(selector)];
    for (const gone of all("script, style, button, source, .headerlink, .gp-evidence, .gp-deciding, .toctree-wrapper"))
      gone.remove();
    for (const term of all("[aria-label]")) if (!term.matches("img, [role]")) term.removeAttribute("aria-label");

    // Answers and solutions are turned to after the chapter.
    const answers = make("section", "", { id: "answers", class: "gp-answers" });
    answers.append(make("h2", "Answers and solutions"));
    const count = {};
    for (const fold of all("details")) {
      const title = fold.querySelector("summary").innerText.trim().split("\n")[0].trim();
      const kind = /^answer/i.test(title) ? "Answer" : /solution/i.test(title) ? "Solution" : "";
      if (!kind) continue;
      const number = (count[kind] = (count[kind] ?? 0) + 1);
      const before = fold.closest("section").querySelector("h1, h2, h3").textContent;
      const cell = fold.closest(".cell") ?? fold;
      const link = make("p", "", { class: "gp-turn", id: `from-${kind}-${number}` });
      link.append(make("a", `${kind} ${number}`, { href: `#to-${kind}-${number}` }), " stands at the end of the chapter.");
      cell.replaceWith(link);
      const entry = make("div", "", { id: `to-${kind}-${number}`, class: "gp-answer" });
      const heading = make("h3");
      heading.append(make("a", `${kind} ${number}`, { href: `#from-${kind}-${number}` }), ` (${before})`);
      fold.querySelector("summary").remove();
      if (cell === fold) entry.append(heading, ...fold.childNodes);
      else {
        fold.replaceWith(...fold.childNodes);
        entry.append(heading, cell);
      }
      answers.append(entry);
    }
    const top = article.querySelector("section") ?? article;
    const claimed = all("details").find((fold) => fold.querySelector(".gp-notes"));
    if (answers.children.length > 1) claimed ? claimed.before(answers) : top.append(answers);

    // A claim's evidence, as notes that their numbers lead to.
    if (claimed) {
      const notes = make("section", "", { id: "claims", class: "gp-claims" });
      const title = claimed.querySelector("summary").textContent.replace(/^What this page/, "What this chapter");
      notes.append(make("h2", title));
      claimed.querySelector("summary").remove();
      notes.append(...claimed.childNodes);
      claimed.replaceWith(notes);
      for (const note of notes.querySelectorAll("ol.gp-notes > li[value]")) note.id = `note-${note.value}`;
      for (const number of all(".gp-note")) {
        const text = number.textContent;
        number.replaceChildren(make("a", text, { href: `#note-${text}` }));
      }
    }
    for (const fold of all("details")) {
      // What is folded on the page for being plumbing is left out; what is folded for its length is open.
      if (fold.matches(".hide")) fold.remove();
      else {
        const title = make("div", "", { class: "gp-unfolded" });
        title.append(...fold.querySelector("summary").childNodes);
        fold.querySelector("summary").replaceWith(title);
        fold.replaceWith(...fold.childNodes);
      }
    }

    // Names and addresses, unique in the whole.
    const name = slug(address);
    for (const element of all("[id]")) element.id = `${name}--${element.id}`;
    for (const image of all("img")) {
      image.src = new URL(image.getAttribute("src"), base).href;
      image.removeAttribute("loading");
    }
    for (const link of all("a[href]")) {
      const target = new URL(link.getAttribute("href"), base);
      const page = names.get(target.href.replace(/[#?].*/, ""));
      const anchor = target.hash && `--${decodeURIComponent(target.hash.slice(1))}`;
      if (page) link.setAttribute("href", `#${page}${anchor}`);
      else if (target.protocol === "file:") link.replaceWith(...link.childNodes);
    }
    article.id = name;
    return article;
  }

  const order = [...document.querySelectorAll(".bd-links a.reference")];
  const body = document.createElement("main");
  body.className = "bd-content gp-print";
  const contents = make("article", "", { class: "bd-article gp-contents", id: "contents" });
  contents.append(make("h1", "Contents"));
  let part = "";
  for (const link of order) {
    const caption = link.closest("ul").previousElementSibling?.textContent.trim() ?? "";
    if (caption !== part) contents.append(make("p", (part = caption), { class: "gp-part" }));
    const address = link.getAttribute("href");
    const entry = make("a", "", { href: `#${slug(address)}`, class: "gp-entry" });
    entry.append(make("span", link.textContent.trim()), make("span", "000", { class: "gp-page" }));
    contents.append(entry);
  }
  body.append(make("div", "", { class: "gp-cover" }), contents);
  for (const address of Object.keys(pages)) body.append(chapter(address));
  // A link to what is left out becomes plain text.
  const ids = new Set([...body.querySelectorAll("[id]")].map(({ id }) => id));
  for (const link of body.querySelectorAll("a[href^='#']"))
    if (!ids.has(link.getAttribute("href").slice(1))) link.replaceWith(...link.childNodes);
  const styles = [...document.querySelectorAll("link[rel=stylesheet]")].map(({ href }) => href);
  return { body: body.outerHTML, styles };
}
