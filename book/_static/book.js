// On paper everything is open.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((box) => { box.open = true; });
});

// The tables of claims and of runs sort by the column whose head is pressed, again to turn the order round.
document.querySelectorAll("table.ledger").forEach((table) => {
  const rows = table.tBodies[0].rows, heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      const sorted = [...rows].sort((a, b) => turn * text(a).localeCompare(text(b), "en", { numeric: true }));
      table.tBodies[0].append(...sorted);
    });
  });
});

// What is copied holds the formulas as TeX.
document.addEventListener("copy", (event) => {
  const selection = window.getSelection();
  if (selection.isCollapsed || !event.clipboardData) return;
  const range = selection.getRangeAt(0), around = (node) => (node.closest ? node : node.parentElement).closest("math");
  const first = around(range.startContainer), last = around(range.endContainer);  // a formula is copied whole
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const copy = document.createElement("div");
  copy.append(range.cloneContents());
  const formulas = copy.querySelectorAll("math");
  if (!formulas.length) return;
  event.clipboardData.setData("text/html", copy.innerHTML);
  formulas.forEach((formula) => {
    const mark = formula.getAttribute("display") === "block" ? "$$" : "$";
    const tex = document.createElement("span");
    tex.style.whiteSpace = "pre";
    tex.textContent = mark + formula.querySelector("annotation").textContent + mark;
    formula.replaceWith(tex);
  });
  document.body.append(copy);  // only what is laid out has lines
  event.clipboardData.setData("text/plain", copy.innerText);
  copy.remove();
  event.preventDefault();
});
