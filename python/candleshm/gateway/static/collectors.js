// One line for each collector, and the banner that says what is wrong.

import {LATE_SECONDS, severityOf} from "./board.js";
import {age, clock, count} from "./figures.js";
import {set} from "./table.js";

export const SIGNS = {ready: "●", loading: "◔", stale: "▲", late: "▲", silent: "■", dead: "✕", closed: "✕", absent: "✕",
  superseded: "↷", replay: "●", lost: "✕", unknown: "?"};
const NAMED_MAX = 3;
// Weight above this part of the limit is worth a look.
const WEIGHT_HIGH = 0.9;

export class Collectors {
  #board;
  #body;
  #nothing;
  #lines = new Map();

  constructor(board, section) {
    this.#board = board;
    this.#body = section.querySelector("tbody");
    this.#nothing = section.querySelector(".nothing");
  }

  render() {
    const blocks = this.#board.bases();
    const names = new Set(blocks.map(block => block.name));
    for (const [name, line] of this.#lines) {
      if (!names.has(name)) {
        line.element.remove();
        this.#lines.delete(name);
      }
    }
    for (const block of blocks) {
      if (!this.#lines.has(block.name)) this.#lines.set(block.name, new Line());
      const line = this.#lines.get(block.name);
      line.show(block, this.#board);
      if (this.#body.children[blocks.indexOf(block)] !== line.element) {
        this.#body.insertBefore(line.element, this.#body.children[blocks.indexOf(block)] ?? null);
      }
    }
    this.#body.parentElement.hidden = !blocks.length;
    this.#nothing.hidden = blocks.length > 0 || !this.#board.toldMs;
  }
}

const COLUMNS = [
  ["state", ""], ["name", ""], ["intervals", ""], ["series", "number"], ["heartbeat", "number"], ["oldest", "number"],
  ["until", "number"], ["weight", ""], ["stale", "number"], ["missing", "number"], ["holes", "number"], ["note", ""],
];
const LABELS = {series: "series", heartbeat: "heartbeat", oldest: "oldest data", until: "closed until", weight: "weight",
  stale: "stale", missing: "missing", holes: "holes"};

class Line {
  constructor() {
    this.element = document.createElement("tr");
    this.cells = {};
    for (const [name, kind] of COLUMNS) {
      const cell = document.createElement(name === "name" ? "th" : "td");
      if (name === "name") cell.scope = "row";
      cell.className = `${name} ${kind}`.trim();
      if (LABELS[name]) cell.dataset.label = LABELS[name];
      const text = document.createElement("span");
      cell.append(text);
      this.cells[name] = text;
      this.element.append(cell);
    }
    this.notServed = document.createElement("small");
    this.notServed.textContent = "not served";
    this.cells.name.after(this.notServed);
    this.meter = document.createElement("div");
    this.meter.className = "meter";
    this.meter.setAttribute("role", "meter");
    this.meter.append(document.createElement("div"));
    this.cells.weight.before(this.meter);
  }

  show(block, board) {
    const condition = board.isLost ? "unknown" : block.condition;
    const heartbeat = board.grown(block.heartbeat_age);
    const isThere = block.condition !== "absent";
    this.element.dataset.severity = board.isLost ? "unknown" : severityOf(block);
    this.element.dataset.block = block.name;
    this.write("state", `${SIGNS[condition] ?? "?"} ${condition}`);
    this.write("name", block.name);
    set(this.cells.name, "title", block.name);
    this.notServed.hidden = !block.not_served;
    set(this.element, "data-not-served", block.not_served ? "" : null);
    this.write("intervals", isThere ? [`${block.market} ${block.interval}`, ...derived(block, board)].join(" · ") : "");
    this.write("series", isThere ? `${count(block.symbols)} × ${count(block.length)}` : "");
    this.write("heartbeat", isThere ? age(heartbeat) : "");
    this.write("oldest", isThere ? age(board.grown(block.oldest_age)) : "");
    this.write("until", block.closed_until_ms ? clock(block.closed_until_ms, board.now()) : isThere ? "–" : "");
    this.write("weight", isThere ? `${count(block.weight_used)} of ${count(block.weight_limit)}` : "");
    this.write("stale", isThere ? count(block.stale) : "");
    this.write("missing", isThere ? count(block.missing) : "");
    this.write("holes", isThere ? count(block.holes) : "");
    writeCoded(this.cells.note, noteOf(block, board));
    for (const name of ["stale", "missing"]) mark(this.cells[name], block[name] > 0 && !block.not_served);
    mark(this.cells.heartbeat, heartbeat !== null && heartbeat > LATE_SECONDS && !block.not_served);
    mark(this.cells.weight, block.weight_limit > 0 && block.weight_used > WEIGHT_HIGH * block.weight_limit);
    this.meter.hidden = !isThere;
    this.fill(block.weight_used ?? 0, block.weight_limit || 1, `weight used, ${block.name}`);
    set(this.cells.note, "title", noteOf(block, board) || null);
    set(this.cells.intervals, "title", `collector process ${block.pid}`);
  }

  fill(used, limit, label) {
    set(this.meter, "aria-label", label);
    set(this.meter, "aria-valuemin", 0);
    set(this.meter, "aria-valuemax", limit);
    set(this.meter, "aria-valuenow", used);
    set(this.meter, "data-high", used > WEIGHT_HIGH * limit ? "" : null);
    this.meter.firstChild.style.width = `${Math.min(100, (100 * used) / limit).toFixed(1)}%`;
  }

  write(name, text) {
    if (this.cells[name].textContent !== text) this.cells[name].textContent = text;
  }
}

function derived(block, board) {
  return board.blocks.filter(other => other.parent === block.name).sort((a, b) => a.interval_ms - b.interval_ms)
    .map(other => (other.condition === block.condition ? other.interval : `${SIGNS[other.condition]} ${other.interval} ${other.condition}`));
}

function noteOf(block, board) {
  if (block.banned_until_ms !== null && block.banned_until_ms > board.now()) {
    const seconds = (block.banned_until_ms - board.now()) / 1000;
    return `no requests for ${age(seconds)}: ${block.note}`;
  }
  const notServed = block.not_served ? `not served: ${block.not_served}` : "";
  return [notServed, block.note, clusterNote(block)].filter(Boolean).join("; ");
}

/** Say where the rows of a block of a cluster come from; nothing of any other. */
function clusterNote(block) {
  if (!block.role) return "";
  if (block.role === "leader") return "leads in its cluster";
  if (block.role === "alone") return "alone in its cluster: collects everything for this host";
  return `follows ${block.source}${lagNote(block.lag)}`;
}

/** Leaders say something every second: a lag above 3 s is the time since one did. */
function lagNote(lag) {
  if (lag === null) return "";
  return lag > 3 ? `, nothing for ${age(lag)}` : `, ${Math.round(lag * 1000)} ms behind`;
}

/** Write a text in which commands stand between backticks. */
function writeCoded(element, text) {
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren(...text.split("`").map((part, at) => {
    if (at % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  }));
}

function mark(cell, isBad) {
  set(cell, "data-bad", isBad ? "" : null);
}

/** The banner: a line for each block that is not as it should be, and one when the gateway itself is gone. */
export class Banner {
  #element;
  #announcement;
  #said = "";

  constructor(element, announcement) {
    this.#element = element;
    this.#announcement = announcement;
  }

  /** Show the state of everything; return it as a word: ok, loading, stale, dead or lost. */
  render(board, link, nowMs = Date.now()) {
    const lines = [];
    let state = board.blocks.some(block => block.condition === "loading" && !block.not_served) ? "loading" : "ok";
    if (!board.toldMs) state = "connecting";
    const troubles = board.troubles();
    if (link.lostMs !== null) {
      state = "lost";
      const again = link.againMs === null ? "connecting now" : `next attempt in ${Math.max(0, Math.ceil((link.againMs - nowMs) / 1000))} s`;
      const known = board.toldMs ? `What you see is ${age((nowMs - board.toldMs) / 1000)} old; ` : "";
      lines.push(["lost", "no gateway", `The connection to the gateway is lost. ${known}${again}.`]);
    } else if (troubles.length) {
      state = troubles[0].severity > 2 ? "dead" : "stale";
    }
    for (const {block, condition, note, heartbeat} of troubles.slice(0, NAMED_MAX)) {
      const ages = condition === "absent" ? "" : `last heartbeat ${age(heartbeat)} ago, oldest data ${age(board.grown(block.oldest_age))} old`;
      lines.push([condition, `${block.name} ${condition === "late" ? "has a late heartbeat" : `is ${condition}`}`,
        [ages, note].filter(Boolean).join("; ")]);
    }
    if (troubles.length > NAMED_MAX) lines.push(["stale", `and ${troubles.length - NAMED_MAX} more blocks`, "see the lines below"]);
    this.#write(lines);
    this.#announce(lines.map(([, title]) => title).join(", "));
    return state;
  }

  #write(lines) {
    this.#element.hidden = !lines.length;
    while (this.#element.children.length < lines.length) {
      const line = document.createElement("p");
      line.append(document.createElement("b"), " ", document.createElement("span"));
      this.#element.append(line);
    }
    while (this.#element.children.length > lines.length) this.#element.lastChild.remove();
    lines.forEach(([condition, title, text], at) => {
      const [strong, span] = this.#element.children[at].children;
      const head = `${SIGNS[condition] ?? "▲"} ${title}`;
      if (strong.textContent !== head) strong.textContent = head;
      writeCoded(span, text);
    });
  }

  /** Say once what changed; ages that tick are not said. */
  #announce(text) {
    if (text === this.#said) return;
    this.#announcement.textContent = text || "All blocks are as they should be again";
    this.#said = text;
  }
}
