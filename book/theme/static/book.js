// What a style sheet cannot do: let the keyboard reach what scrolls sideways, and for print open what is folded.

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

// On paper nothing is folded, so the answers to what is to be predicted stand at the end.
const answers = [];

function openForPrint() {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.openedForPrint = "";
  }
  const article = document.querySelector("article");
  for (const answer of article?.querySelectorAll("details:is(:not([class]), .gp-fold)") ?? []) {
    const words = answer.firstElementChild;
    if (!words.textContent.startsWith("Answer")) continue;
    const place = document.createElement("p"), number = document.createElement("span");
    number.textContent = ` ${answers.length + 1}`;
    place.textContent = `${words.textContent}${number.textContent} stands at the end.`;
    answer.replaceWith(place);
    words.append(number);
    article.append(answer);
    answers.push({ answer, place, number });
  }
}

function closeAfterPrint() {
  for (const { answer, place, number } of answers.splice(0)) {
    number.remove();
    place.replaceWith(answer);
  }
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
