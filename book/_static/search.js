// The page of search: titles first, then statements, sections, figures, names of the library, texts; a symbol is found as it is written.
{
  const WEIGHTS = { page: 60, section: 30, statement: 40, figure: 15, name: 25 };
  const GREEK = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ϵε", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ",
    xi: "ξ", rho: "ρ", sigma: "σΣ", tau: "τ", phi: "ϕφΦ", varphi: "φ", chi: "χ", psi: "ψ", omega: "ωΩ", gradient: "∇", norm: "∥" };
  const SHORT = { thm: "theorem", prop: "proposition", cor: "corollary", lem: "lemma", def: "definition", ex: "exercise", fig: "fig.", figure: "fig." };
  const quoted = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

  // A word begins where it is searched; a sign or a letter with an index stands for itself.
  function pattern(term) {
    const start = /^[\p{L}\p{N}]/u.test(term) ? "(?<![\\p{L}\\p{N}_^])" : "";
    const end = term.length === 1 && start ? "(?![\\p{L}\\p{N}])" : "";
    const letters = GREEK[term] ? `|[${GREEK[term]}]` : "";
    return new RegExp(`${start}${quoted(term)}${end}${letters}`, "giu");
  }

  function score([, kind, title, text], query, terms) {
    const low = title.toLowerCase(), named = low.replace(/^[\d.]+ /, "");
    let sum = 0, titled = 0;
    for (const term of terms) {
      const inTitle = title.match(term), inText = text.match(term);
      if (!inTitle && !inText) return 0;
      if (inTitle) titled += 1;
      sum += (inTitle ? WEIGHTS[kind] : 0) + Math.min((inText || []).length, 8) / 2;
    }
    if (/^\S_\S+$/.test(query) || query in GREEK) sum += title === "Notation" ? 9 : title.startsWith("Definition") ? 5 : kind === "statement" ? 2 : 0;
    if (titled === terms.length) sum += WEIGHTS[kind];
    if (named.startsWith(query)) sum += WEIGHTS[kind];
    if (low === query || named === query || new RegExp(`^${quoted(query)}(?![\\d.]*\\d)(?: |$)`).test(low)) sum += 500;
    return sum;
  }

  function snippet(text, terms) {
    const at = Math.max(0, Math.min(...terms.map((term) => text.search(term)).filter((place) => place >= 0).concat(text.length)));
    const from = at < 90 || at === text.length ? 0 : text.indexOf(" ", at - 80) + 1;
    const to = text.length - from < 230 ? text.length : text.lastIndexOf(" ", from + 220);
    return (from ? "… " : "") + text.slice(from, to) + (to < text.length ? " …" : "");
  }

  function marked(text, terms) {
    const line = document.createElement("p"), any = new RegExp(terms.map((term) => term.source).join("|"), "giu");
    let end = 0;
    for (const found of text.matchAll(any)) {
      const mark = document.createElement("mark");
      mark.textContent = found[0];
      line.append(text.slice(end, found.index), mark);
      end = found.index + found[0].length;
    }
    line.append(text.slice(end));
    return line;
  }

  function show(written) {
    const query = written.trim().toLowerCase().replace(/\s+/g, " ")
      .replace(/^([a-z]+)\.? (?=\d)/, (all, kind) => (SHORT[kind] ? `${SHORT[kind]} ` : all));
    const box = document.getElementById("search-results");
    if (!query) return box.replaceChildren();
    const number = query.match(/^[a-z]+\.? \d[\d.]*$/);  // of a statement or a figure: one term
    const terms = (number ? [query] : query.split(" ")).map(pattern);
    const pages = new Map(SEARCHED.filter((entry) => entry[1] === "page").map((entry) => [entry[0], entry[2]]));
    const found = SEARCHED.map((entry, place) => [score(entry, query, terms), place]).filter(([points]) => points)
      .sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    const said = document.createElement("p"), list = document.createElement("ul");
    said.setAttribute("role", "status");
    said.textContent = found.length ? `${found.length} found${found.length > 50 ? ", the first 50 shown" : ""}` : "Nothing was found.";
    for (const [, place] of found.slice(0, 50)) {
      const [address, kind, title, text] = SEARCHED[place], item = document.createElement("li"), link = document.createElement("a");
      link.href = address;
      link.textContent = title;
      item.append(link);
      if (kind !== "page") item.append(` in ${pages.get(address.replace(/#.*/, ""))}`);
      item.append(marked(snippet(text, terms), terms));
      list.append(item);
    }
    box.replaceChildren(said, list);
  }

  const field = document.querySelector(".bd-search-container input"), asked = new URLSearchParams(location.search).get("q") || "";
  field.value = asked;
  field.addEventListener("input", () => show(field.value));
  show(asked);
}
