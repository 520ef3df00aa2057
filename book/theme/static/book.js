// What a style sheet cannot do: let the keyboard reach what scrolls sideways, and open folded answers for print.

const scrollable = ".gp-formula, .gp-pan, .cell_output .output, .gp-scroll, .pst-scrollable-table-container, pre";

function reachByKeyboard() {
  for (const box of document.querySelectorAll(scrollable)) {
    const scrolls = box.scrollWidth > box.clientWidth;
    // A stop of the keyboard needs a name, and a name needs a role.
    for (const [name, value] of Object.entries({ tabindex: "0", role: "group", "aria-label": "Scrolls sideways" })) {
      box.toggleAttribute(name, scrolls);
      if (scrolls) box.setAttribute(name, value);
    }
  }
}

function openForPrint() {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.openedForPrint = "";
  }
}

function closeAfterPrint() {
  for (const fold of document.querySelectorAll("details[data-opened-for-print]")) {
    fold.open = false;
    delete fold.dataset.openedForPrint;
  }
}

addEventListener("load", () => {
  const watcher = new ResizeObserver(reachByKeyboard);
  watcher.observe(document.body);
  document.addEventListener("toggle", reachByKeyboard, true);
});
addEventListener("beforeprint", openForPrint);
addEventListener("afterprint", closeAfterPrint);
