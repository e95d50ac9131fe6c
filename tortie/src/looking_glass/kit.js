// Elements, numbers, tables, and asking the router. What comes from the router is only ever written as text: a node's
// textContent or an attribute's value, never markup.

const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") node.className = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
};
const $ = (id) => document.getElementById(id);
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// ---- numbers ----
const UNITS = ["", " k", " M", " G", " T", " P"];
const si = (value, base = 1000) => {
  let unit = 0;
  while (value >= base && unit + 1 < UNITS.length) { value /= base; unit += 1; }
  const digits = unit === 0 ? (Number.isInteger(value) || value >= 100 ? 0 : 1) : value < 10 ? 2 : value < 100 ? 1 : 0;
  return value.toFixed(digits) + UNITS[unit];
};
const count = (value) => value.toLocaleString("en-US").replaceAll(",", "\u202f");
const rate = (value) => value == null ? "–" : si(value) + "/s";
const bits = (bytes) => bytes == null ? "–" : (si(bytes * 8) + "bit/s").replace(/^([\d.]+)bit/, "$1 bit");
const span = (seconds) => {
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
};
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
const address = (ip, port) => !port ? ip : ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;

// A counter's change a second, from two looks at it; unknown until there are two, and where it began anew.
class Rates {
  constructor() { this.before = new Map(); this.now = new Map(); this.seconds = 0; this.time = null; }
  begin() {
    const time = performance.now();
    this.seconds = this.time == null ? 0 : (time - this.time) / 1000;
    this.time = time;
    this.before = this.now;
    this.now = new Map();
  }
  of(name, value) {
    this.now.set(name, value);
    const before = this.before.get(name);
    return before == null || value < before || this.seconds <= 0 ? null : (value - before) / this.seconds;
  }
}

// ---- asking ----
class Trouble extends Error {}
const ask = async (path, parameters) => {
  const query = new URLSearchParams(Object.entries(parameters || {}).filter(([, value]) => value)).toString();
  const url = query ? `${path}?${query}` : path;
  let answer;
  try {
    answer = await fetch(url, { headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    throw new Trouble("The router doesn't answer. Does it run, and is the way to it open?");
  }
  const text = await answer.text();
  let value;
  try { value = JSON.parse(text); } catch { throw new Trouble(text.trim() || `The router answers ${answer.status}.`); }
  if (!answer.ok && value.error) throw new Trouble(value.error);
  return value;
};

// ---- tables ----
// A column: { title, value(row): to sort by and to show, cell(row): { text, class, href, title, meter } or text, kind, wide }.
class Table {
  constructor({ caption, columns, key, empty, sort }) {
    Object.assign(this, { columns, key, empty, rows: new Map(), last: [] });
    this.order = sort ? { column: sort[0], down: sort[1] === "down" } : null;
    this.note = el("span", { class: "quiet" });
    const heads = columns.map((column, place) => {
      const head = el("th", { scope: "col", class: this.classes(column) });
      if (column.value) head.append(el("button", { type: "button", on: { click: () => this.sortBy(place) } }, column.title));
      else head.textContent = column.title;
      return head;
    });
    this.heads = heads;
    this.body = el("tbody");
    this.node = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", {}, el("caption", {}, caption, this.note), el("thead", {}, el("tr", {}, ...heads)), this.body));
    this.mark();
  }
  classes(column) { return [column.kind || "", column.wide ? "wide" : ""].join(" ").trim(); }
  sortBy(place) {
    const same = this.order && this.order.column === place;
    this.order = { column: place, down: same ? !this.order.down : this.columns[place].kind === "num" };
    this.mark();
    this.show(this.last);
  }
  mark() {
    this.heads.forEach((head, place) => {
      const here = this.order && this.order.column === place;
      if (here) head.setAttribute("aria-sort", this.order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }
  show(rows, note = this.note.textContent) {
    this.last = rows;
    write(this.note, note);
    if (this.order) {
      const value = this.columns[this.order.column].value;
      const compare = (a, b) => typeof a === "number" || typeof b === "number"
        ? (a ?? -1) - (b ?? -1) : String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
      rows = [...rows].sort((a, b) => compare(value(a), value(b)) * (this.order.down ? -1 : 1));
    }
    const seen = new Set();
    let place = this.body.firstChild;
    rows.forEach((row, index) => {
      const key = this.key ? this.key(row) : String(index);
      seen.add(key);
      let line = this.rows.get(key);
      if (!line) {
        line = el("tr", {}, ...this.columns.map((column, number) =>
          el(number === 0 ? "th" : "td", { class: this.classes(column), scope: number === 0 ? "row" : null })));
        this.rows.set(key, line);
      }
      if (place === line) place = line.nextSibling;
      else this.body.insertBefore(line, place);
      this.columns.forEach((column, number) => this.fill(line.children[number], column, row));
      line.classList.toggle("alarm", Boolean(row.alarm));
    });
    for (const [key, line] of this.rows) if (!seen.has(key)) { line.remove(); this.rows.delete(key); }
    if (this.nothing) this.nothing.remove();
    this.nothing = null;
    if (!rows.length && this.empty) {
      this.nothing = el("tr", {}, el("td", { class: "empty", colspan: this.columns.length }, this.empty));
      this.body.append(this.nothing);
    }
  }
  // Only what has changed is written, so that what somebody has marked stays marked.
  fill(node, column, row) {
    const given = column.cell ? column.cell(row) : column.value(row);
    const cell = given !== null && typeof given === "object" ? given : { text: given };
    const text = cell.text == null || cell.text === "" ? "–" : String(cell.text);
    const sign = JSON.stringify([text, cell.class, cell.href, cell.title, cell.meter]);
    if (node.dataset.sign === sign) return;
    node.dataset.sign = sign;
    node.className = `${this.classes(column)} ${cell.class || ""}`.trim();
    if (cell.title) node.title = cell.title; else node.removeAttribute("title");
    const content = cell.href ? el("a", { href: cell.href }, text) : text;
    if (cell.meter == null) node.replaceChildren(content);
    else node.replaceChildren(el("meter", { min: 0, max: 1, value: cell.meter, "aria-hidden": "true" }), " ", content);
  }
}

// ---- tiles with what passed lately ----
const LOOKS = 90;
class Tile {
  constructor(title) {
    this.past = [];
    this.figure = el("p", { class: "figure" }, "–");
    this.more = el("p", { class: "more" });
    const SVG = "http://www.w3.org/2000/svg";
    const graph = document.createElementNS(SVG, "svg");
    this.line = document.createElementNS(SVG, "polyline");
    for (const [name, value] of [["viewBox", `0 0 ${LOOKS} 20`], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) graph.setAttribute(name, value);
    graph.append(this.line);
    this.node = el("section", { class: "tile" }, el("h3", {}, title), this.figure, this.more, graph);
  }
  show(figure, more, value) {
    write(this.figure, figure);
    write(this.more, more || "\u00a0");
    if (value != null) {
      this.past.push(value);
      if (this.past.length > LOOKS) this.past.shift();
    }
    const top = Math.max(...this.past, 1e-9);
    const first = LOOKS - this.past.length;
    this.line.setAttribute("points", this.past.map((value, at) => `${first + at},${(19 - 17 * value / top).toFixed(2)}`).join(" "));
  }
}

const notes = (list) => list.length ? el("ul", { class: "notes" }, ...list.map((note) => el("li", {}, note))) : null;
const field = (label, name, value, more) =>
  el("label", {}, label, el("input", { name, value: value || "", autocomplete: "off", spellcheck: "false", autocapitalize: "none", ...more }));
