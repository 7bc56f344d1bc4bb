// What the page knows: blocks, series, and which of the series are shown in which order.

const MARKETS = ["SPOT", "UM", "CM"];
export const EMPTY = 0, LIVE = 1, CLOSED = 2, VERIFIED = 3, HOLE = 4, MISSING = 5, DELISTED = 9;
const WORDS = {[EMPTY]: "loading", [LIVE]: "live", [CLOSED]: "closed", [VERIFIED]: "verified", [HOLE]: "hole", [MISSING]: "missing",
  [DELISTED]: "delisted"};
/** Conditions of a block in which its data may not be relied on, and how bad each is. */
const SEVERITY = {dead: 3, silent: 3, closed: 3, absent: 3, stale: 2, loading: 1, superseded: 1, replay: 0, ready: 0};
/** How much a block's state matters: one that is not served is nobody's trouble. */
export const severityOf = block => Math.min(SEVERITY[block.condition] ?? 3, block.not_served ? 1 : 3);
const GONE = new Set(["dead", "closed", "silent", "absent"]);
// A heartbeat comes every half second.
export const LATE_SECONDS = 3;
// The gateway tells blocks once a second.
const TOLD_MS = 1500;

export const wordOf = state => WORDS[state] ?? "unknown";

export class Board {
  #tables = new Map();
  #rows = [];
  #shown = [];
  #isStaleOrder = true;
  #orderedMs = -Infinity;
  #offsetMs = null;
  #conditions = new Map();

  constructor() {
    this.blocks = [];
    this.maxAgeSeconds = 60;
    this.toldMs = 0;
    this.sort = {key: "symbol", isUp: true};
    this.query = "";
    this.market = null;
    this.onlyAttention = false;
    /** Whether the gateway is gone, so that nothing is known about now. */
    this.isLost = false;
    /** Markets that have series, in the order of their buttons. */
    this.markets = [];
  }

  /** The gateway's time. */
  now() {
    return Date.now() + (this.#offsetMs ?? 0);
  }

  /** Take a message about blocks or rows. */
  apply(message) {
    if (message.now !== undefined) {
      // The message that was least delayed tells the offset of the two clocks best.
      const offsetMs = message.now - Date.now();
      this.#offsetMs = message.k === "hello" || this.#offsetMs === null ? offsetMs : Math.max(this.#offsetMs, offsetMs);
    }
    switch (message.k) {
      case "hello":
        this.#tables.clear();
        this.maxAgeSeconds = message.max_age;
        break;
      case "blocks":
        this.#applyBlocks(message);
        break;
      case "table":
        this.#tables.set(message.block, message);
        this.#rebuild();
        break;
      case "rows":
        this.#applyRows(message);
        break;
    }
  }

  #applyBlocks(message) {
    const kind = block => [block.name, block.parent, GONE.has(block.condition), Boolean(block.not_served)].join(" ");
    const key = blocks => blocks.map(kind).join();
    const isOther = key(message.blocks) !== key(this.blocks);
    this.blocks = message.blocks;
    this.toldMs = Date.now();
    this.#conditions = new Map(this.blocks.map(block => [block.name, block.condition]));
    if (isOther) {
      for (const name of this.#tables.keys()) {
        if (!this.blocks.some(block => block.name === name)) this.#tables.delete(name);
      }
      this.#rebuild();
    }
  }

  #applyRows({block, p, a, s}) {
    const table = this.#tables.get(block);
    if (!table) return;
    if (p) {
      const [places, closes, changes] = p;
      for (let i = 0; i < places.length; i++) {
        table.close[places[i]] = closes[i];
        table.change[places[i]] = changes[i];
      }
    }
    if (a) {
      const [places, confirmed] = a;
      for (let i = 0; i < places.length; i++) table.confirmed[places[i]] = confirmed[i];
    }
    if (s) {
      const [places, states, missing, holes, revisions] = s;
      for (let i = 0; i < places.length; i++) {
        const at = places[i];
        table.state[at] = states[i];
        table.missing[at] = missing[i];
        table.holes[at] = holes[i];
        table.revision[at] = revisions[i];
      }
    }
    if (this.sort.key !== "symbol" || this.onlyAttention) this.#isStaleOrder = true;
  }

  /**
   * One row for each symbol of each market: of the block with the shortest interval whose collector is there, among
   * those that are served if there is one.
   */
  #rebuild() {
    const known = new Map(this.#rows.map(row => [row.key, row]));
    const found = new Map();
    const ranked = this.bases().sort((a, b) => Boolean(a.not_served) - Boolean(b.not_served) ||
      GONE.has(a.condition) - GONE.has(b.condition) || a.interval_ms - b.interval_ms || a.name.localeCompare(b.name));
    for (const block of ranked) {
      const table = this.#tables.get(block.name);
      table?.symbols.forEach((symbol, at) => {
        const key = `${block.market} ${symbol}`;
        if (found.has(key)) return;
        const row = known.get(key) ?? {key, market: block.market, symbol, search: symbol.toUpperCase(), seen: null};
        row.table = table;
        row.at = at;
        found.set(key, row);
      });
    }
    this.#rows = [...found.values()];
    const markets = new Map();
    for (const {symbol} of this.#rows) markets.set(symbol, (markets.get(symbol) ?? 0) + 1);
    // A symbol of several markets does not say by itself which one is meant.
    for (const row of this.#rows) row.isAmbiguous = markets.get(row.symbol) > 1;
    this.markets = MARKETS.filter(market => this.#rows.some(row => row.market === market));
    this.#isStaleOrder = true;
    this.#orderedMs = -Infinity;
  }

  /** Blocks whose candles are fetched. */
  bases() {
    return this.blocks.filter(block => block.parent === null);
  }

  block(name) {
    return this.blocks.find(block => block.name === name);
  }

  /** Blocks that carry a series, those that are served and of short intervals first. */
  blocksOf(market, symbol) {
    const carries = block => this.#tables.get(block.parent ?? block.name)?.symbols.includes(symbol);
    return this.blocks.filter(block => block.market === market && carries(block))
      .sort((a, b) => Boolean(a.not_served) - Boolean(b.not_served) || a.interval_ms - b.interval_ms
        || a.interval.localeCompare(b.interval) || a.name.localeCompare(b.name));
  }

  /** Whether the rows of every block that there is are known. */
  get isWhole() {
    return this.bases().every(block => block.condition === "absent" || this.#tables.has(block.name));
  }

  get rows() {
    return this.#rows;
  }

  find(key) {
    return this.#rows.find(row => row.key === key);
  }

  /** Search, filter or sort otherwise. */
  change(settings) {
    Object.assign(this, settings);
    this.#isStaleOrder = true;
    this.#orderedMs = -Infinity;
  }

  /** The rows to show. Rows do not change places more than once a second by themselves. */
  shown() {
    if (this.#isStaleOrder && performance.now() - this.#orderedMs > 1000) {
      this.#shown = this.#ordered();
      this.#isStaleOrder = false;
      this.#orderedMs = performance.now();
    }
    return this.#shown;
  }

  #ordered() {
    const query = this.query.trim().toUpperCase();
    const nowMs = this.now();
    const rows = this.#rows.filter(row => (this.market === null || row.market === this.market)
      && (query === "" || row.search.includes(query)) && (!this.onlyAttention || this.needsAttention(row, nowMs)));
    const value = VALUES[this.sort.key];
    const sign = this.sort.isUp ? 1 : -1;
    const keyed = rows.map(row => [value(row, this, nowMs), row]);
    // What has no value stands last in either order.
    keyed.sort(([a, left], [b, right]) => {
      if (a === b) return compare(left.symbol, right.symbol) || compare(left.market, right.market);
      if (a === null || b === null) return a === null ? 1 : -1;
      return sign * (a < b ? -1 : 1);
    });
    const ordered = keyed.map(([, row]) => row);
    if (query) ordered.sort((a, b) => b.search.startsWith(query) - a.search.startsWith(query));
    return ordered;
  }

  /** Seconds since the exchange confirmed a series, null for never. */
  ageOf({table, at}, nowMs = this.now()) {
    const confirmed = table.confirmed[at];
    return confirmed === null ? null : Math.max(0, nowMs - confirmed) / 1000;
  }

  isStale(row, nowMs = this.now()) {
    const seconds = this.ageOf(row, nowMs);
    return row.table.state[row.at] !== DELISTED && seconds !== null && seconds > this.maxAgeSeconds;
  }

  /** The word in the column of states: what is wrong with the block, with the series, or the state of the newest row. */
  stateOf(row, nowMs = this.now()) {
    const condition = this.#conditions.get(row.table.block) ?? "absent";
    // A row that is closed is as it should be; a block that is closed has lost its collector.
    if (GONE.has(condition)) return condition === "closed" ? "gone" : condition;
    return this.isStale(row, nowMs) ? "stale" : wordOf(row.table.state[row.at]);
  }

  needsAttention(row, nowMs = this.now()) {
    const {table, at} = row;
    if (GONE.has(this.#conditions.get(table.block) ?? "absent")) return true;
    if (table.state[at] === DELISTED) return false;
    return table.missing[at] > 0 || table.confirmed[at] === null || this.isStale(row, nowMs);
  }

  /** Whether the collector of a row's block is there, so that its prices are those of now. */
  isCurrent(row) {
    return !this.isLost && (SEVERITY[this.#conditions.get(row.table.block)] ?? 3) < 2;
  }

  countAttention() {
    const nowMs = this.now();
    let count = 0;
    for (const row of this.#rows) if (this.needsAttention(row, nowMs)) count++;
    return count;
  }

  /** Age of a block's heartbeat or data: as it was told, and grown since when nothing was told for longer than usual. */
  grown(seconds) {
    const silentMs = Date.now() - this.toldMs;
    return seconds === null ? null : seconds + (silentMs > TOLD_MS ? silentMs / 1000 : 0);
  }

  /** Blocks that are served and not as they should be, the worst first: name, condition, severity, note. */
  troubles() {
    const found = [];
    for (const block of this.bases()) {
      if (block.not_served) continue;
      const heartbeat = this.grown(block.heartbeat_age);
      let severity = severityOf(block);
      let condition = block.condition;
      let note = block.note;
      if (severity < 3 && heartbeat !== null && heartbeat > LATE_SECONDS) {
        [severity, condition, note] = [2, "late", `no heartbeat for ${heartbeat.toFixed(0)} s`];
      }
      if (block.banned_until_ms !== null && block.banned_until_ms > this.now()) severity = Math.max(severity, 2);
      if (severity >= 2) found.push({block, condition, severity, note, heartbeat});
    }
    return found.sort((a, b) => b.severity - a.severity);
  }
}

const compare = (a, b) => (a < b ? -1 : Number(a > b));
const RANKS = {dead: 0, silent: 0, gone: 0, absent: 0, stale: 0, loading: 1, missing: 2, hole: 3, live: 4, closed: 5, verified: 6, delisted: 7};
const VALUES = {
  symbol: row => row.symbol,
  close: ({table, at}) => table.close[at],
  change: ({table, at}) => table.change[at],
  age: (row, board, nowMs) => board.ageOf(row, nowMs),
  state: (row, board, nowMs) => RANKS[board.stateOf(row, nowMs)] ?? 0,
  gaps: ({table, at}) => table.missing[at] * 1e6 + table.holes[at] || null,
};
