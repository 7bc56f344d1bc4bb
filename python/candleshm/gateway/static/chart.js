// The candles of one series: final ones filled, live ones outlined, what is absent marked, volume below.

import {AbsentRows} from "./absent.js";
import {CLOSED, HOLE, LIVE, MISSING, VERIFIED, wordOf} from "./board.js";
import {decimalsOf, openTime, price, share, volume} from "./figures.js";

const SHOWN_CANDLES = 120;
const DAY_MS = 86_400_000;

export class Chart {
  #lib = globalThis.LightweightCharts;
  #chart;
  #candles;
  #volume;
  #absent = new AbsentRows();
  #rows = new Map();
  #times = [];
  #colors = {};
  #intervalMs = 60_000;
  #decimals = 2;
  #pointed = null;
  #key = null;
  #isUnplaced = false;
  #legend;

  constructor(element, legend) {
    this.#legend = legend;
    const {createChart, CandlestickSeries, HistogramSeries} = this.#lib;
    this.#chart = createChart(element, {
      autoSize: true,
      // The page shows the logo itself: the library's brings an inline style sheet, which the policy refuses.
      layout: {attributionLogo: false, fontFamily: "system-ui, sans-serif", fontSize: 11, panes: {enableResize: false}},
      rightPriceScale: {borderVisible: false, scaleMargins: {top: 0.08, bottom: 0.04}},
      timeScale: {borderVisible: false, rightOffset: 4, minBarSpacing: 0.4},
      crosshair: {mode: 0},
      localization: {locale: "en-US", timeFormatter: seconds => openTime(seconds * 1000, this.#intervalMs)},
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, {borderVisible: true, lastValueVisible: true});
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceFormat: {type: "custom", formatter: volume, minMove: 0.001}, lastValueVisible: false, priceLineVisible: false,
    }, 1);
    this.#chart.panes()[0].setStretchFactor(4);
    this.#chart.panes()[1].setStretchFactor(1);
    this.#chart.priceScale("right", 1).applyOptions({borderVisible: false, scaleMargins: {top: 0.1, bottom: 0}});
    this.#candles.attachPrimitive(this.#absent);
    this.#chart.subscribeCrosshairMove(({time}) => {
      this.#pointed = time ?? null;
      this.tell();
    });
    // On a narrow screen the chart has no size before it is looked at.
    this.#chart.timeScale().subscribeSizeChange(() => this.#isUnplaced && this.#showNewest());
    this.paint();
  }

  /** Take the page's colours, of the light or the dark theme. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const color = name => style.getPropertyValue(`--${name}`).trim();
    this.#colors = Object.fromEntries(["up", "down", "up-soft", "down-soft", "text", "muted", "line", "panel", "missing", "hole"]
      .map(name => [name, color(name)]));
    const {line, panel, muted, up, down, missing, hole, text} = this.#colors;
    this.#chart.applyOptions({
      layout: {background: {type: "solid", color: panel}, textColor: muted, panes: {separatorColor: line, separatorHoverColor: line}},
      grid: {vertLines: {color: line}, horzLines: {color: line}},
      crosshair: {vertLine: {color: muted, labelBackgroundColor: muted}, horzLine: {color: muted, labelBackgroundColor: muted}},
    });
    this.#candles.applyOptions({upColor: up, downColor: down, wickUpColor: up, wickDownColor: down, borderUpColor: up,
      borderDownColor: down});
    this.#absent.paint({missing, hole, text, panel});
    if (this.#times.length) this.#setAll();
  }

  /** Take a message with all candles of a series, or with those that changed. */
  apply(message, intervalMs) {
    const key = `${message.block} ${message.symbol}`;
    if (message.whole) {
      const isOther = key !== this.#key;
      this.#key = key;
      this.#intervalMs = intervalMs;
      this.#rows = new Map(rowsOf(message).map(row => [row.time, row]));
      this.#times = [...this.#rows.keys()];
      this.#format(message);
      this.#setAll();
      if (isOther) this.#showNewest();
    } else if (key === this.#key) {
      const newest = this.#times.at(-1) ?? -Infinity;
      const rows = rowsOf(message);
      const areOld = rows.some(row => row.time < newest) || rows.some(row => this.#isAbsent(row) || this.#wasAbsent(row));
      for (const row of rows) {
        if (row.time > (this.#times.at(-1) ?? -Infinity)) this.#times.push(row.time);
        this.#rows.set(row.time, row);
      }
      if (areOld) {
        this.#setAll();
      } else {
        for (const row of rows) {
          this.#candles.update(this.#candleOf(row));
          this.#volume.update(this.#volumeOf(row));
        }
      }
    }
    this.#showLast();
    this.tell();
  }

  /** Show nothing. */
  clear() {
    this.#key = null;
    this.#rows.clear();
    this.#times = [];
    this.#setAll();
    this.tell();
  }

  get newest() {
    for (let at = this.#times.length - 1; at >= 0; at--) {
      const row = this.#rows.get(this.#times[at]);
      if (!this.#isAbsent(row)) return row;
    }
    return null;
  }

  get decimals() {
    return this.#decimals;
  }

  get counts() {
    const counts = {missing: 0, holes: 0};
    for (const {count, state} of this.#absent.runs) counts[state === HOLE ? "holes" : "missing"] += count;
    return counts;
  }

  /** What is drawn, for tests and for the curious. */
  get model() {
    return {key: this.#key, rows: [...this.#rows.values()], absent: this.#absent.spans(), decimals: this.#decimals};
  }

  /** Show the newest candles again. */
  #showNewest() {
    const last = this.#times.length - 1;
    const width = this.#chart.timeScale().width();
    this.#isUnplaced = width < 50;
    const room = Math.max(24, Math.min(SHOWN_CANDLES, Math.round(width / 7)));
    this.#chart.timeScale().setVisibleLogicalRange({from: Math.max(-1, last - room), to: last + 4});
    this.#candles.priceScale().applyOptions({autoScale: true});
  }

  #format({o, c, h, l}) {
    this.#decimals = Math.max(1, ...[o, h, l, c].map(column => decimalsOf(column.slice(-300))));
    const priceFormat = {type: "custom", formatter: value => price(value, this.#decimals), minMove: 10 ** -this.#decimals};
    this.#candles.applyOptions({priceFormat});
    const seconds = this.#intervalMs < 60_000;
    this.#chart.timeScale().applyOptions({timeVisible: this.#intervalMs < DAY_MS, secondsVisible: seconds});
  }

  #setAll() {
    const rows = this.#times.map(time => this.#rows.get(time));
    this.#candles.setData(rows.map(row => this.#candleOf(row)));
    this.#volume.setData(rows.map(row => this.#volumeOf(row)));
    this.#absent.show(this.#runs(rows));
  }

  /** The line at the last price has the colour of the last candle's direction; a live candle's own is the background. */
  #showLast() {
    const row = this.newest;
    if (row) this.#candles.applyOptions({priceLineColor: row.close >= row.open ? this.#colors.up : this.#colors.down});
  }

  #runs(rows) {
    const runs = [];
    let last = null;
    for (const row of rows) {
      if (!this.#isAbsent(row)) {
        last = null;
      } else if (last?.state === row.state) {
        last.to = row.time;
        last.count++;
      } else {
        last = {from: row.time, to: row.time, state: row.state, count: 1};
        runs.push(last);
      }
    }
    return runs;
  }

  #isAbsent(row) {
    return row.close === null;
  }

  #wasAbsent(row) {
    const known = this.#rows.get(row.time);
    return known !== undefined && this.#isAbsent(known);
  }

  #candleOf(row) {
    const {time, open, high, low, close} = row;
    if (this.#isAbsent(row)) return {time};
    if (row.state !== LIVE) return {time, open, high, low, close};
    const color = close >= open ? this.#colors.up : this.#colors.down;
    return {time, open, high, low, close, color: this.#colors.panel, borderColor: color, wickColor: color};
  }

  #volumeOf(row) {
    const {time, open, close} = row;
    if (this.#isAbsent(row)) return {time};
    return {time, value: row.volume, color: close >= open ? this.#colors["up-soft"] : this.#colors["down-soft"]};
  }

  /** Tell the candle under the pointer, or the newest one. */
  tell() {
    const row = this.#pointed === null ? this.newest : this.#rows.get(this.#pointed);
    const words = {[LIVE]: "live", [CLOSED]: "final", [VERIFIED]: "final, verified", [HOLE]: "hole: not at the exchange",
      [MISSING]: "missing: not fetched yet"};
    const parts = row === undefined || row === null ? [] : [["", openTime(row.time * 1000, this.#intervalMs), "time"]];
    if (row && !this.#isAbsent(row)) {
      const direction = row.close >= row.open ? "up" : "down";
      const of = value => price(value, this.#decimals);
      parts.push(["O", of(row.open), direction], ["H", of(row.high), direction], ["L", of(row.low), direction],
        ["C", of(row.close), direction], ["", share(row.open ? row.close / row.open - 1 : null), direction],
        ["Vol", volume(row.volume), ""]);
    }
    if (row) parts.push(["", words[row.state] ?? wordOf(row.state), "state"]);
    while (this.#legend.children.length < parts.length) {
      this.#legend.append(document.createElement("div"));
      this.#legend.lastChild.append(document.createElement("dt"), document.createElement("dd"));
    }
    [...this.#legend.children].forEach((element, at) => {
      const [head, text, kind] = parts[at] ?? ["", "", ""];
      const [dt, dd] = element.children;
      if (dt.textContent !== head) dt.textContent = head;
      if (dd.textContent !== text) dd.textContent = text;
      if (element.className !== kind) element.className = kind;
    });
  }
}

function rowsOf({t, o, h, l, c, v, s}) {
  // A candle that opened off the grid may share its second with none: candles are a second apart at least.
  return t.map((ms, at) => ({time: Math.floor(ms / 1000), open: o[at], high: h[at], low: l[at], close: c[at], volume: v[at], state: s[at]}));
}
