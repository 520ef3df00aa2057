// What a style sheet cannot do: let the keyboard reach what scrolls sideways, and open folded answers for print.

const scrollable = ".gp-formula, .cell_output .output, .gp-scroll, .pst-scrollable-table-container, pre";

function reachByKeyboard() {
  for (const box of document.querySelectorAll(scrollable)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
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
