// What the interactive figures share: palette, drawing, controls, dragging. Each <div class="explore" data-figure="NAME">
// becomes drawings with controls when NAME.js has said what to draw. Nothing is fetched, nothing is remembered; without scripts
// the box stays empty and the still figure beside it remains. The formulas are the library's (tests/test_explore.py).
"use strict";
window.explore = (() => {
  // The colours and dashes of the still figures (lib/deeplinear/plots/figure.py), and the number of each depth among them.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00", "#56b4e9", "#000000"];
  const DASHES = [[], [5, 1.6], [5, 1.4, 1.2, 1.4], [1.2, 1.2], [9, 2], [3, 1, 1, 1, 1, 1], [1, 2.5], [6, 1, 1, 1, 1, 1]];
  const OF_DEPTH = { 1: 0, 2: 1, 3: 2, 4: 3, 5: 6, 6: 5, 7: 7, 8: 4 };
  const ink = (k) => ({ stroke: COLOURS[k], "stroke-dasharray": DASHES[k].map((d) => +(2.2 * d).toFixed(2)).join(" ") || "none" });
  const GREY = { stroke: "#777777", "stroke-width": 1.2 };

  // ---------------------------------------------------------------- numbers

  const short = (x) => Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(0) : `${+x.toPrecision(3)}`;
  const fixed = (x, digits = 3) => x.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");  // no minus before a zero
  const clamp = (x, least, most) => Math.min(Math.max(x, least), most);
  const spaced = (a, b, n) => Array.from({ length: n }, (_, k) => a + (b - a) * k / (n - 1));

  // What depth N makes of the gradient (g, h) at the weights (x, y) of one output: |w|^(2-2/N) (g + (N-1) Pr_w g).
  function endToEnd(N, [g, h], x, y) {
    const r2 = x * x + y * y;
    if (r2 === 0) return N === 1 ? [g, h] : [0, 0];
    const a = r2 ** (1 - 1 / N), along = (N - 1) * (g * x + h * y) / r2;
    return [a * (g + along * x), a * (h + along * y)];
  }

  // ---------------------------------------------------------------- drawing

  const LEFT = 50, RIGHT = 10, TOP = 10, BOTTOM = 40;
  const make = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return parent.appendChild(element);
  };
  const write = (panel, x, y, text, attributes = {}) => { make("text", { x, y, ...attributes }, panel.drawn).textContent = text; };

  function ticks(a, b, log) {
    if (log) {
      const first = Math.ceil(Math.log10(a) - 1e-9), last = Math.floor(Math.log10(b) + 1e-9), by = Math.max(1, Math.ceil((last - first) / 4));
      return Array.from({ length: Math.floor((last - first) / by) + 1 }, (_, k) => 10 ** (first + k * by));
    }
    const by = 10 ** Math.floor(Math.log10((b - a) / 5)), n = by * [1, 2, 5, 10].find((m) => (b - a) / (by * m) <= 5);
    return Array.from({ length: Math.floor(b / n + 1e-9) - Math.ceil(a / n - 1e-9) + 1 }, (_, k) => (Math.ceil(a / n - 1e-9) + k) * n);
  }

  // A frame with ticks; returns the map from numbers to the drawing, with its inverse. Ranges are [least, most]; equal: one unit is
  // as long on both axes, and the shorter range grows; bare: a picture without axes.
  function frame(panel, [x0, x1], [y0, y1], { x = "", y = "", logx = false, logy = false, equal = false, bare = false } = {}) {
    const { W, H, drawn } = panel, [left, right, top, bottom] = bare ? [1, 1, 1, 1] : [LEFT, RIGHT, TOP, BOTTOM];
    const wide = W - left - right, high = H - top - bottom;
    if (equal) {
      const unit = Math.min(wide / (x1 - x0), high / (y1 - y0)), grow = (a, b, size) => [(a + b - size) / 2, (a + b + size) / 2];
      [x0, x1] = grow(x0, x1, wide / unit);
      [y0, y1] = grow(y0, y1, high / unit);
    }
    const scale = (a, b, log, from, to) => {
      const f = log ? Math.log10 : (v) => v, back = log ? (v) => 10 ** v : (v) => v;
      return [(v) => from + (to - from) * (f(v) - f(a)) / (f(b) - f(a)), (q) => back(f(a) + (f(b) - f(a)) * (q - from) / (to - from))];
    };
    const [mapx, backx] = scale(x0, x1, logx, left, W - right), [mapy, backy] = scale(y0, y1, logy, H - bottom, top);
    if (!bare) make("rect", { x: left, y: top, width: wide, height: high, class: "frame" }, drawn);
    panel.clip.setAttribute("d", `M${left} ${top}h${wide}v${high}h${-wide}z`);
    if (!bare) {
      for (const v of ticks(x0, x1, logx)) write(panel, mapx(v), H - bottom + 16, short(v), { "text-anchor": "middle" });
      for (const v of ticks(y0, y1, logy)) {
        make("line", { x1: left, x2: W - right, y1: mapy(v), y2: mapy(v), class: "grid" }, drawn);
        write(panel, left - 5, mapy(v) + 4, short(v), { "text-anchor": "end" });
      }
      write(panel, (left + W - right) / 2, H - 6, x, { "text-anchor": "middle" });
      write(panel, -(top + H - bottom) / 2, 12, y, { "text-anchor": "middle", transform: "rotate(-90)" });
    }
    const at = (a, b) => [mapx(a), mapy(b)];
    panel.at = Object.assign(at, { back: (p, q) => [backx(p), backy(q)], x: [x0, x1], y: [y0, y1], logx, logy, unit: wide / (x1 - x0) });
    return at;
  }

  // A line through points that are numbers; style: an entry of the palette, or attributes.
  function curve(panel, points, style) {
    const inside = points.filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b)).map(([a, b]) => panel.at(a, b));
    const d = inside.map(([a, b], k) => `${k ? "L" : "M"}${clamp(a, -1e4, 1e4).toFixed(1)} ${clamp(b, -1e4, 1e4).toFixed(1)}`).join("");
    const look = { class: "curve", "stroke-width": 2.2, ...(typeof style === "number" ? ink(style) : style) };
    return make("path", { d, "clip-path": `url(#${panel.id})`, ...look }, panel.drawn);
  }

  // The head of an arrow at a point of the drawing, in the direction (dx, dy) of the drawing.
  function head(panel, [p, q], dx, dy, size, fill) {
    const turn = Math.atan2(dy, dx) * 180 / Math.PI;
    make("path", { d: `M0 0L${-size} ${size / 2.4}L${-size} ${-size / 2.4}z`, fill,
                   transform: `translate(${p.toFixed(1)} ${q.toFixed(1)}) rotate(${turn.toFixed(1)})` }, panel.drawn);
  }

  function dot(panel, [a, b], attributes) {
    const [p, q] = panel.at(a, b);
    if (Number.isFinite(p + q)) make("circle", { cx: p.toFixed(1), cy: q.toFixed(1), r: 3, "clip-path": `url(#${panel.id})`, ...attributes }, panel.drawn);
  }

  // The names of curves below each other, each with a piece of its line, in a corner of the frame.
  function legend(panel, names, { right = true, bottom = false } = {}) {
    const long = 44 + 7 * Math.max(...names.map(([, name]) => name.length));
    const x = right ? panel.W - RIGHT - long : panel.at(panel.at.x[0], panel.at.y[0])[0] + 8, y0 = bottom ? panel.H - BOTTOM - 16 * names.length + 4 : TOP + 16;
    names.forEach(([style, name], k) => {
      const look = typeof style === "number" ? ink(style) : style;
      make("path", { d: `M${x} ${y0 + 16 * k - 4}h30`, class: "curve", "stroke-width": 2.2, ...look }, panel.drawn);
      write(panel, x + 36, y0 + 16 * k, name, { class: "name" });
    });
  }

  // ---------------------------------------------------------------- controls

  const range = (name, label, least, most, by, start, show = short) => ({ name, label, least, most, by, start, show });
  const choice = (name, label, values, start) => ({ name, label, values, start });
  const either = (name, label, values, start) => ({ name, label, values, start, radio: true });
  const power = (k) => short(10 ** k);
  const element = (name, parent, properties = {}) => Object.assign(parent.appendChild(document.createElement(name)), properties);

  // Each control keeps state[name] and its own look in step; ``changed`` redraws.
  function addControl(control, parent, id, state, changed) {
    state[control.name] = control.start;
    if (control.radio) {
      const group = element("fieldset", parent), inputs = [];
      element("legend", group, { textContent: control.label });
      for (const value of control.values) {
        const label = element("label", group);
        const input = element("input", label, { type: "radio", name: `${id}-${control.name}`, value, checked: value === control.start });
        label.append(` ${value}`);
        input.addEventListener("input", () => { state[control.name] = value; changed(); });
        inputs.push(input);
      }
      return () => inputs.forEach((input) => { input.checked = input.value === state[control.name]; });
    }
    const label = element("label", parent, { className: control.values ? "choice" : "slider" }), name = element("span", label, { textContent: control.label });
    const output = control.values ? null : element("output", name);
    const input = element(control.values ? "select" : "input", label, { id: `${id}-${control.name}` });
    if (control.values) for (const value of control.values) input.add(new Option(value, value));
    else Object.assign(input, { type: "range", min: control.least, max: control.most, step: control.by });
    const show = () => {
      input.value = state[control.name];
      if (control.values) return;
      output.textContent = control.show(state[control.name], state);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { state[control.name] = control.values ? input.value : +input.value; changed(); });
    if (control.play && !matchMedia("(prefers-reduced-motion: reduce)").matches) addPlay(control, parent, input, state, changed);
    return show;
  }

  // A button that moves a slider from its least to its most in some seconds.
  function addPlay(control, parent, input, state, changed) {
    const button = element("button", parent, { type: "button", textContent: "Play" });
    let playing = false;
    const stop = () => { playing = false; button.textContent = "Play"; };
    button.addEventListener("click", () => {
      if (playing) return stop();
      playing = true;
      button.textContent = "Pause";
      const whole = control.most - control.least, done = (state[control.name] - control.least) / whole, since = performance.now();
      const from = done > 0.99 ? 0 : done;
      requestAnimationFrame(function move(now) {
        if (!playing) return;
        const part = Math.min(1, from + Math.max(0, now - since) / 1000 / control.play);
        state[control.name] = control.least + Math.round(part * whole / control.by) * control.by;
        changed();
        if (part < 1) requestAnimationFrame(move);
        else stop();
      });
    });
    input.addEventListener("input", stop);
  }

  // A point of a drawing that mouse, finger and arrow keys move: place(state) says where it is, move(state, [a, b]) takes it along.
  function addHandle(handle, panel, state, changed) {
    const knob = make("g", { class: "handle", tabindex: 0, role: "slider", "aria-label": handle.label }, panel.svg);
    make("circle", { r: 23, class: "reach" }, knob);
    make("circle", { r: 6, class: "knob", ...handle.look }, knob);
    const take = ([a, b]) => {
      const { x, y } = panel.at;
      handle.move(state, [clamp(a, x[0], x[1]), clamp(b, y[0], y[1])]);
      changed();
    };
    const follow = (event) => {
      const edge = panel.svg.getBoundingClientRect(), zoom = panel.W / edge.width;
      take(panel.at.back((event.clientX - edge.left) * zoom, (event.clientY - edge.top) * zoom));
    };
    knob.addEventListener("pointerdown", (event) => { knob.setPointerCapture(event.pointerId); event.preventDefault(); knob.focus(); });
    knob.addEventListener("pointermove", (event) => { if (knob.hasPointerCapture(event.pointerId)) follow(event); });
    knob.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const by = event.shiftKey ? 20 : 5, [p, q] = panel.at(...handle.place(state));
      take(panel.at.back(p + by * move[0], q + by * move[1]));
    });
    return () => {
      const [a, b] = handle.place(state), [p, q] = panel.at(a, b);
      knob.setAttribute("transform", `translate(${p.toFixed(1)} ${q.toFixed(1)})`);
      knob.setAttribute("aria-valuenow", +a.toPrecision(3));
      knob.setAttribute("aria-valuetext", handle.say ? handle.say(state) : `${fixed(a, 2)}, ${fixed(b, 2)}`);
      knob.style.display = handle.hidden && handle.hidden(state) ? "none" : "";
    };
  }

  // ---------------------------------------------------------------- the boxes

  // A figure: caption and question, controls, handles, panels with their ratio of height to width and their least height, and
  // draw(panels, state), which returns the sentence below. The printed book has all pages in one: names of parts are numbered.
  function build(box, figure, number) {
    const state = { ...figure.state }, id = `explore-${box.dataset.figure}${number || ""}`, drawing = element("div", box, { className: "drawing" });
    drawing.style.setProperty("--least", figure.least || "100%");
    const panels = figure.panels.map(({ label, ratio, least = 190 }, k) => {
      const moves = (figure.handles || []).some((handle) => (handle.panel || 0) === k);
      const svg = make("svg", { role: moves ? "group" : "img", "aria-label": label }, drawing), drawn = make("g", {}, svg);
      const clip = make("path", {}, make("clipPath", { id: `${id}-${k}` }, make("defs", {}, svg)));
      return { svg, drawn, clip, ratio, least, id: `${id}-${k}` };
    });
    const controls = element("div", box, { className: "controls" }), said = element("p", box, { className: "said" });
    said.setAttribute("aria-live", "polite");
    const caption = element("p", box, { className: "question", textContent: figure.caption ? `${figure.caption} ` : "" });
    element("b", caption, { textContent: "Try it. " });
    caption.append(figure.question);
    const redraw = () => {
      for (const panel of panels) {
        panel.W = Math.round(panel.svg.clientWidth) || 460;
        panel.H = Math.round(Math.max(panel.ratio * panel.W, panel.least));
        panel.svg.setAttribute("viewBox", `0 0 ${panel.W} ${panel.H}`);
        panel.drawn.textContent = "";
      }
      const sentence = figure.draw(panels, state);
      if (said.textContent !== sentence) said.textContent = sentence;
      keep.forEach((show) => show());
    };
    const keep = figure.controls.map((control) => addControl(control, controls, id, state, redraw));
    keep.push(...(figure.handles || []).map((handle) => addHandle(handle, panels[handle.panel || 0], state, redraw)));
    redraw();
    let width = box.clientWidth;
    new ResizeObserver(() => { if (box.clientWidth !== width) { width = box.clientWidth; redraw(); } }).observe(box);
  }

  const figure = (name, content) => document.querySelectorAll(`div.explore[data-figure="${name}"]`).forEach((box, number) => build(box, content, number));

  return { COLOURS, DASHES, OF_DEPTH, GREY, ink, short, fixed, clamp, spaced, endToEnd, make, write, frame, curve, head, dot, legend,
           range, choice, either, power, figure };
})();
