// The table of series: as many rows in the document as fit on the screen, whatever the number of series.

import {DELISTED} from "./board.js";
import {age, count, directionOf, price, share} from "./figures.js";

const SPARE_ROWS = 6;
// How long a price that changed is marked. It is no animation: that would cost more than all else on the page.
const TICK_MS = 400;
const ATTENTION = new Set(["stale", "loading", "missing", "dead", "silent", "gone", "absent"]);
const SIGNS = {stale: "▲ ", loading: "◔ ", missing: "△ ", hole: "○ ", dead: "✕ ", silent: "■ ", gone: "✕ ", absent: "✕ "};

export class Table {
  #board;
  #scroll;
  #grid;
  #body;
  #above;
  #below;
  #lines = [];
  #rowHeight = 26;
  #cursor = null;
  #chosen = null;
  #choose;

  /** `choose(row)` is called when a row is clicked, or entered by key. */
  constructor(board, scroll, grid, choose) {
    this.#board = board;
    this.#scroll = scroll;
    this.#grid = grid;
    this.#choose = choose;
    this.#body = grid.tBodies[0];
    this.#above = spacer();
    this.#below = spacer();
    this.#body.append(this.#above, this.#below);
    scroll.addEventListener("scroll", () => this.render(), {passive: true});
    new ResizeObserver(() => this.render()).observe(scroll);
    this.#body.addEventListener("click", event => {
      const line = this.#lines.find(known => known.element === event.target.closest("tr"));
      if (line?.row) this.choose(line.row);
    });
    for (const head of grid.tHead.rows[0].cells) {
      head.firstElementChild.addEventListener("click", () => this.sortBy(head.dataset.sort));
    }
  }

  /** Sort by a column; by the same one again in the other order. */
  sortBy(key) {
    const {sort} = this.#board;
    const startsUp = key === "symbol" || key === "state";
    this.#board.change({sort: {key, isUp: sort.key === key ? !sort.isUp : startsUp}});
    for (const head of this.#grid.tHead.rows[0].cells) {
      const isIt = head.dataset.sort === key;
      if (isIt) head.setAttribute("aria-sort", this.#board.sort.isUp ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    this.#scroll.scrollTop = 0;
    this.render();
  }

  /** Move the cursor by so many rows, and keep it in sight. */
  move(by) {
    const shown = this.#board.shown();
    if (!shown.length) return;
    // Whoever searches begins at the best match; otherwise at the series that is shown.
    const at = shown.indexOf(this.#cursor ?? (this.#board.query ? null : this.#chosen));
    const next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.max(0, Math.min(shown.length - 1, at + by));
    this.#cursor = shown[next];
    this.#reveal(next);
    this.render();
  }

  get pageRows() {
    return Math.max(1, Math.floor((this.#scroll.clientHeight - this.#headHeight) / this.#rowHeight) - 1);
  }

  get cursor() {
    return this.#cursor;
  }

  /** Choose the row under the cursor, or the first one. */
  enter() {
    const shown = this.#board.shown();
    const row = shown.includes(this.#cursor) ? this.#cursor : shown[0];
    if (row) this.choose(row);
  }

  choose(row) {
    this.#cursor = this.#chosen = row;
    this.#choose(row);
    this.render();
  }

  mark(row) {
    this.#chosen = row;
    this.#cursor ??= row;
    const at = this.#board.shown().indexOf(row);
    if (at >= 0) this.#reveal(at);
  }

  leaveCursor() {
    this.#cursor = null;
  }

  get #headHeight() {
    return this.#grid.tHead.offsetHeight;
  }

  #reveal(at) {
    const top = at * this.#rowHeight;
    const room = this.#scroll.clientHeight - this.#headHeight - this.#rowHeight;
    if (top < this.#scroll.scrollTop) this.#scroll.scrollTop = top;
    else if (top > this.#scroll.scrollTop + room) this.#scroll.scrollTop = top - room;
  }

  /** Bring the rows that are in sight up to date. */
  render() {
    const shown = this.#board.shown();
    this.#rowHeight = parseFloat(getComputedStyle(this.#grid).getPropertyValue("--row")) || this.#rowHeight;
    const fitting = Math.ceil(this.#scroll.clientHeight / this.#rowHeight) + 2 * SPARE_ROWS;
    const first = Math.max(0, Math.min(Math.floor(this.#scroll.scrollTop / this.#rowHeight) - SPARE_ROWS, shown.length - fitting));
    const rows = shown.slice(first, first + fitting);
    while (this.#lines.length < rows.length) this.#lines.push(new Line(this.#body, this.#below));
    while (this.#lines.length > rows.length) this.#lines.pop().element.remove();
    setHeight(this.#above, first * this.#rowHeight);
    setHeight(this.#below, (shown.length - first - rows.length) * this.#rowHeight);
    const nowMs = this.#board.now();
    let active = "";
    rows.forEach((row, place) => {
      const isCursor = row === this.#cursor;
      if (isCursor) active = `row-${place}`;
      this.#lines[place].show(row, this.#board, nowMs, `row-${place}`, first + place, isCursor, row === this.#chosen);
    });
    set(this.#grid, "aria-rowcount", shown.length + 1);
    set(this.#grid, "aria-activedescendant", active);
  }
}

class Line {
  constructor(body, before) {
    this.row = null;
    this.element = document.createElement("tr");
    this.cells = ["", "number", "number", "number", "state", "number gaps"].map((kind, at) => {
      const cell = document.createElement(at ? "td" : "th");
      if (!at) cell.scope = "row";
      cell.className = kind;
      cell.append("");
      this.element.append(cell);
      return cell;
    });
    this.texts = this.cells.map(() => "");
    this.tickedMs = 0;
    body.insertBefore(this.element, before);
  }

  show(row, board, nowMs, id, place, isCursor, isChosen) {
    const {table, at} = row;
    const isOther = row !== this.row;
    const close = table.close[at];
    const state = board.stateOf(row, nowMs);
    const change = table.change[at];
    const [missing, holes] = [table.missing[at], table.holes[at]];
    this.row = row;
    this.write(0, row.symbol);
    this.write(1, price(close));
    this.write(2, share(change));
    this.write(3, table.state[at] === DELISTED ? "–" : age(board.ageOf(row, nowMs)));
    this.write(4, (SIGNS[state] ?? "") + state);
    this.write(5, gapsText(missing, holes));
    set(this.cells[0], "title", row.key);
    set(this.cells[0], "data-market", row.isAmbiguous ? row.market : null);
    const {element} = this;
    set(element, "id", id);
    set(element, "aria-rowindex", place + 2);
    set(element, "aria-selected", isChosen);
    set(element, "data-cursor", isCursor ? "" : null);
    set(element, "data-parity", place % 2);
    set(element, "data-faint", table.state[at] === DELISTED || !board.isCurrent(row) ? "" : null);
    set(element, "data-attention", ATTENTION.has(state) ? "" : null);
    set(this.cells[2], "data-direction", directionOf(change));
    set(this.cells[5], "title", gapsTitle(missing, holes));
    set(this.cells[5], "data-missing", missing ? "" : null);
    const isChanged = !isOther && row.seen !== null && close !== null && close !== row.seen;
    if (isChanged) this.tickedMs = performance.now();
    if (isChanged) set(this.cells[1], "data-tick", close > row.seen ? "up" : "down");
    else if (isOther || performance.now() - this.tickedMs > TICK_MS) set(this.cells[1], "data-tick", null);
    row.seen = close;
  }

  write(at, text) {
    if (this.texts[at] === text) return;
    this.texts[at] = text;
    this.cells[at].firstChild.data = text;
  }
}

function gapsText(missing, holes) {
  const parts = [];
  if (missing) parts.push(`△ ${count(missing)}`);
  if (holes) parts.push(`○ ${count(holes)}`);
  return parts.join(" ");
}

function gapsTitle(missing, holes) {
  const parts = [];
  if (missing) parts.push(`${count(missing)} missing`);
  if (holes) parts.push(holes === 1 ? "1 hole" : `${count(holes)} holes`);
  return parts.length ? parts.join(", ") : null;
}

function spacer() {
  const element = document.createElement("tr");
  element.setAttribute("aria-hidden", "true");
  element.className = "spacer";
  return element;
}

function setHeight(element, pixels) {
  const text = `${Math.max(0, pixels)}px`;
  if (element.style.height !== text) element.style.height = text;
}

export function set(element, name, value) {
  if (value === null || value === "" && name === "aria-activedescendant") {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}
