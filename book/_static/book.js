// On paper everything is open, and light: dark pages would print grey on white.
{
  let theme = null;
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((box) => { box.open = true; });
    theme ??= document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    theme = null;
  });
}

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

// A link to a statement, an equation, a figure or a reference shows it: on hover, on focus, on a first tap; and so does a marked symbol
// its row of the table of notation. What is shown was written by the build, one script a page, loaded when first asked for: files
// cannot be fetched.
{
  const shown = new Map(), box = document.createElement("div");
  let link = null, timer = 0;
  window.previews = (page, pieces) => shown.set(page, pieces);
  box.id = "preview";
  box.setAttribute("role", "tooltip");
  box.hidden = true;

  const place = (anchor) => (anchor.dataset.symbol ? "notation" : new URL(anchor.href).pathname.match(/\/book\/([^/]+)\.html$/)?.[1]);
  const target = (node) => {
    const symbol = node.closest?.("[data-symbol]");
    if (symbol) return symbol;
    const anchor = node.closest?.(".bd-article a[href*='#']:not(.headerlink)");
    return anchor && anchor.origin === location.origin && place(anchor) ? anchor : null;
  };
  const load = (page) => new Promise((done) => {
    if (shown.has(page)) return done();
    const script = document.createElement("script");
    script.src = `${document.documentElement.dataset.content_root}_static/previews/${page}.js`;
    script.onload = done;
    script.onerror = () => { shown.set(page, {}); done(); };
    document.head.append(script);
  });

  function hide() {
    clearTimeout(timer);
    link?.removeAttribute("aria-describedby");
    link = null;
    box.hidden = true;
  }

  async function show(anchor, touched) {
    clearTimeout(timer);
    if (anchor === link) return;
    hide();
    link = anchor;
    const page = place(anchor);
    await load(page);
    const piece = shown.get(page)?.[anchor.dataset.symbol ?? decodeURIComponent(anchor.hash.slice(1))];
    if (link !== anchor || !piece) return touched && link === anchor && anchor.href ? location.assign(anchor.href) : undefined;
    box.innerHTML = piece + (touched && anchor.closest("a") ? "<p class=\"again\">Tap the link again to go there.</p>" : "");
    box.querySelectorAll("a").forEach((inner) => inner.replaceWith(...inner.childNodes));
    document.querySelector(".bd-article").append(box);
    box.hidden = false;
    anchor.setAttribute("aria-describedby", box.id);
    const line = anchor.getClientRects()[0], own = box.getBoundingClientRect(), edge = 8;
    const left = Math.min(line.left, document.documentElement.clientWidth - own.width - edge);
    const below = line.bottom + edge, fits = below + own.height + edge < window.innerHeight || line.top < window.innerHeight / 2;
    box.style.left = `${Math.max(edge, left)}px`;
    box.style.top = `${Math.max(edge, fits ? below : line.top - edge - own.height)}px`;
  }

  const soon = (action, wait) => { clearTimeout(timer); timer = setTimeout(action, wait); };
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const anchor = target(event.target);
    if (anchor) soon(() => show(anchor), 200);
    else if (box.contains(event.target)) clearTimeout(timer);
    else if (link) soon(hide, 300);
    else clearTimeout(timer);
  });
  document.addEventListener("focusin", (event) => {
    const anchor = target(event.target);
    if (anchor && anchor.matches(":focus-visible")) show(anchor);
    else if (link) hide();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("click", (event) => {
    const anchor = target(event.target);
    if (event.pointerType === "touch" && anchor && anchor !== link) {
      event.preventDefault();
      show(anchor, true);
    } else if (!box.contains(event.target)) hide();
  }, true);
  window.addEventListener("scroll", () => { if (link && !link.matches(":hover, :focus")) hide(); }, { passive: true });
}

// A figure as large as the window, for a lecture room: by the button in its corner, by a click on its picture, by F while it has the focus
// or the pointer. A still figure is shown as a copy, an interactive one itself.
{
  const FIGURES = ".bd-article figure:has(img), .bd-article .explore:not(:empty)", room = document.createElement("dialog");
  const named = (element, name) => { element.setAttribute("aria-label", name); element.title = name; return element; };
  const button = (name, icon, action) => {
    const made = named(document.createElement("button"), name);
    made.type = "button";
    made.className = "enlarge";
    made.innerHTML = `<i class="fa-solid fa-${icon}" aria-hidden="true"></i>`;
    made.addEventListener("click", action);
    return made;
  };
  const back = button("Back to the page", "xmark", () => room.close());
  const place = document.createElement("div");
  room.className = "room";
  room.setAttribute("aria-label", "Figure");
  room.addEventListener("close", () => { if (place.isConnected) place.replaceWith(room.lastChild); });
  room.addEventListener("click", (event) => { if (event.target.matches("dialog, figure, img")) room.close(); });

  function enlarge(figure) {
    let shown = figure;
    if (figure.matches("figure")) {
      shown = figure.cloneNode(true);
      shown.querySelectorAll(".panels, .headerlink, .enlarge").forEach((part) => part.remove());
      shown.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes));
      [shown, ...shown.querySelectorAll("[id]")].forEach((part) => part.removeAttribute("id"));
    } else {
      place.style.height = `${figure.offsetHeight}px`;  // the page keeps its length
      figure.replaceWith(place);
    }
    room.replaceChildren(back, shown);
    document.querySelector(".bd-article").append(room);
    room.showModal();
  }

  window.addEventListener("load", () => document.querySelectorAll(FIGURES).forEach((figure) => {
    figure.append(button("As large as the window (F)", "expand", () => enlarge(figure)));
    figure.querySelector(":scope > img, :scope > a > img")?.addEventListener("click", (event) => {
      event.preventDefault();
      enlarge(figure);
    });
  }));
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "f" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches?.("input:not([type='range'], [type='radio']), textarea, select")) return;
    const figure = document.activeElement.closest(FIGURES) ?? document.querySelector(`:is(${FIGURES}):hover`);
    if (room.open) room.close();
    else if (figure) enlarge(figure);
  });
}
