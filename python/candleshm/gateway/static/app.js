// The page: messages come in, keys and clicks choose, and each frame shows what changed.

import {Board, severityOf} from "./board.js";
import {Chart} from "./chart.js";
import {Banner, Collectors} from "./collectors.js";
import {Events} from "./events.js";
import {age, clock, count, directionOf, price, share} from "./figures.js";
import {Link} from "./link.js";
import {Table, set} from "./table.js";
import {Token} from "./token.js";

const $ = id => document.getElementById(id);
const TITLES = {ok: "●", loading: "◔", connecting: "…", stale: "▲", dead: "✕", lost: "✕"};
const SPENT_KEPT = 200;

const board = new Board();
const table = new Table(board, $("scroll"), $("grid"), row => choose(row));
const collectors = new Collectors(board, $("collectors"));
const banner = new Banner($("banner"), $("announcement"));
const events = new Events($("events"), $("no-events"));
const chart = new Chart($("chart"), $("legend"));
const main = document.querySelector("main");
const narrow = matchMedia("(max-width: 820px)");

let chosen = null;
let drawn = null;
let state = "connecting";
let isFrameDue = false;
let wanted = fromAddress();
const dirty = {rows: true, blocks: true};
const spent = [];
let frames = 0;

const token = new Token($("token"), () => link.retry());
const link = new Link(receive, () => {
  due("blocks");
  if (!link.isOpen) token.look();
});

function receive(message) {
  const began = performance.now();
  switch (message.k) {
    case "candles":
      if (drawn && message.block === drawn.name && message.symbol === chosen.symbol) drawCandles(message);
      break;
    case "refused":
      if (drawn && message.block === drawn.name && message.symbol === chosen.symbol) refuse(message.text);
      break;
    case "event":
      events.add(message);
      break;
    default:
      board.apply(message);
      if (message.k === "hello") {
        events.begin(message.events);
        $("help-limit").textContent = age(message.max_age);
      }
      if (message.k !== "rows") due("blocks");
      due("rows");
      if (message.k === "table" || message.k === "blocks") settle();
  }
  due("rows", performance.now() - began);
}

let unpaid = 0;

/** Have the next frame show it. What taking messages cost is counted with that frame. */
function due(what, cost = 0) {
  dirty[what] = true;
  unpaid += cost;
  if (isFrameDue) return;
  isFrameDue = true;
  requestAnimationFrame(frame);
}

function frame() {
  const began = performance.now();
  isFrameDue = false;
  board.isLost = link.lostMs !== null;
  if (dirty.blocks) {
    dirty.blocks = false;
    showMarkets();
    showIntervals();
    showState();
  }
  if (dirty.rows) {
    dirty.rows = false;
    table.render();
    showChosen();
  }
  frames++;
  spent.push(performance.now() - began + unpaid);
  unpaid = 0;
  if (spent.length > SPENT_KEPT) spent.shift();
}

/** Choose what the address names, or the first series, once it is known; follow a series to another block. */
function settle() {
  if (!board.isWhole) return;
  if (chosen && board.find(chosen.key) === chosen) {
    const blocks = board.blocksOf(chosen.market, chosen.symbol);
    if (!blocks.some(block => block.name === drawn?.name) && blocks.length) draw(blocks[0]);
    return;
  }
  const row = (wanted && board.find(`${wanted.market} ${wanted.symbol}`)) ?? (wanted ? null : best());
  if (row) {
    choose(row, true);
    // Once the lines above the table have their places.
    requestAnimationFrame(() => requestAnimationFrame(() => table.mark(row)));
  } else if (wanted && board.rows.length) {
    wanted = null;
    settle();
  }
}

/** The series that most people look at first. */
function best() {
  for (const name of ["BTCUSDT", "BTCUSD_PERP"]) {
    const row = board.rows.find(known => known.symbol === name);
    if (row) return row;
  }
  return board.shown()[0] ?? null;
}

function choose(row, isFirst = false) {
  chosen = row;
  const blocks = board.blocksOf(row.market, row.symbol);
  const same = blocks.find(block => block.interval === (wanted?.interval ?? drawn?.interval));
  if (blocks.length) draw(same ?? blocks[0]);
  if (!isFirst && narrow.matches) view("candles");
  due("blocks");
  due("rows");
}

function draw(block) {
  drawn = block;
  wanted = {market: chosen.market, symbol: chosen.symbol, interval: block.interval};
  history.replaceState(null, "", `#${[wanted.market, wanted.symbol, wanted.interval].map(encodeURIComponent).join("/")}`);
  main.dataset.drawing = "";
  link.draw(block.name, chosen.symbol);
  due("blocks");
}

function drawCandles(message) {
  delete main.dataset.drawing;
  chart.apply(message, drawn.interval_ms);
  $("no-candles").hidden = message.t.length > 0 || chart.newest !== null;
  if (!$("no-candles").hidden) $("no-candles").textContent = "No candles yet: the series is being loaded";
  const {missing, holes} = chart.counts;
  $("missing-count").textContent = missing ? count(missing) : "";
  $("hole-count").textContent = holes ? count(holes) : "";
}

function refuse(text) {
  delete main.dataset.drawing;
  chart.clear();
  $("no-candles").hidden = false;
  $("no-candles").textContent = text;
}

function showChosen() {
  if (chosen) {
    const {table: known, at, symbol, market} = chosen;
    const change = known.change[at];
    write($("symbol"), symbol);
    set($("symbol"), "data-market", market);
    write($("last"), price(known.close[at], chart.newest ? chart.decimals : null));
    write($("change"), `${share(change)} ${board.block(known.block)?.interval ?? ""}`);
    set($("change"), "data-direction", directionOf(change));
    const word = board.stateOf(chosen);
    write($("series-note"), word === "stale" ? `▲ stale, ${age(board.ageOf(chosen))} old` : word === "delisted" ? "delisted" : "");
    set(main, "data-faint", board.isCurrent(chosen) ? null : "");
  }
  const attention = board.countAttention();
  write($("attention").querySelector("b"), count(attention));
  set($("attention"), "data-some", attention ? "" : null);
  const shown = board.shown().length;
  const all = board.rows.length;
  write($("count"), shown === all ? `${count(all)} series` : `${count(shown)} of ${count(all)} series`);
  $("no-series").hidden = shown > 0 || !all;
  write($("no-series"), board.onlyAttention && !board.query ? "No series needs attention" : `No series has “${board.query}” in its name`);
}

function showState() {
  state = banner.render(board, link);
  collectors.render();
  set(document.documentElement, "data-state", state);
  const bases = board.bases().filter(block => !block.not_served);
  const ready = bases.filter(block => severityOf(block) === 0).length;
  const texts = {
    connecting: "Connecting to the gateway",
    lost: "No connection to the gateway",
    ok: bases.length ? `${count(board.rows.length)} series current` : "No collector",
    loading: `Loading: ${ready} of ${bases.length} ready`,
    stale: `Attention: ${ready} of ${bases.length} ready`,
    dead: `Alarm: ${ready} of ${bases.length} ready`,
  };
  write($("summary"), `${TITLES[state]} ${texts[state]}`);
  const icon = state === "stale" || state === "dead" ? "page/icon-alarm.svg" : "page/icon.svg";
  // Without a gateway there is nobody to send another one.
  if (state !== "lost" && $("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
}

function showTitle() {
  const worst = board.troubles()[0];
  let text = "candleshm";
  if (state === "lost") text = "✕ no gateway – candleshm";
  else if (worst) text = `${TITLES[state]} ${worst.block.name} ${worst.condition} – candleshm`;
  else if (state === "loading") text = "◔ loading – candleshm";
  else if (state === "ok" && chosen) text = `● ${chosen.symbol} ${price(chosen.table.close[chosen.at], chart.newest ? chart.decimals : null)} – candleshm`;
  if (document.title !== text) document.title = text;
}

function showMarkets() {
  const {markets} = board;
  const wants = markets.length > 1 ? [[null, "All"], ...markets.map(market => [market, market])] : [];
  buttons($("markets"), wants.map(([market, text]) => ({
    key: text, text, isOn: board.market === market,
    press: () => {
      board.change({market});
      due("blocks");
      due("rows");
    },
  })));
}

function showIntervals() {
  const blocks = chosen ? board.blocksOf(chosen.market, chosen.symbol) : [];
  const twice = interval => blocks.filter(block => block.interval === interval).length > 1;
  buttons($("intervals"), blocks.map((block, at) => ({
    key: block.name,
    text: twice(block.interval) ? `${block.interval} ${block.name}` : block.interval,
    title: `${block.parent ? `derived from ${block.parent}` : block.name}, ${count(block.length)} candles${at < 9 ? `; key ${at + 1}` : ""}${block.not_served ? "; not served" : ""}`,
    sign: severityOf(block) > 1 ? "▲" : "",
    isOn: block.name === drawn?.name,
    press: () => draw(block),
  })));
}

/** Have a group of buttons that toggle; those that stay are not made anew, so that none loses the focus. */
function buttons(group, wants) {
  const have = new Map([...group.children].map(button => [button.dataset.key, button]));
  for (const [key, button] of have) if (!wants.some(want => want.key === key)) button.remove();
  wants.forEach((want, at) => {
    let button = have.get(want.key);
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.className = "chip";
      button.dataset.key = want.key;
    }
    button.onclick = want.press;
    write(button, `${want.sign ? `${want.sign} ` : ""}${want.text}`);
    set(button, "aria-pressed", want.isOn);
    set(button, "title", want.title ?? null);
    if (group.children[at] !== button) group.insertBefore(button, group.children[at] ?? null);
  });
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function view(name) {
  main.dataset.view = name;
  for (const button of $("views").children) set(button, "aria-pressed", button.dataset.view === name);
}

function fromAddress() {
  try {
    const [market, symbol, interval] = location.hash.slice(1).split("/").map(decodeURIComponent);
    return symbol ? {market, symbol, interval} : null;
  } catch {
    return null;
  }
}

// Keys and clicks.

$("search").addEventListener("input", () => {
  board.change({query: $("search").value});
  table.leaveCursor();
  $("scroll").scrollTop = 0;
  due("rows");
});
$("attention").addEventListener("click", () => {
  board.change({onlyAttention: !board.onlyAttention});
  set($("attention"), "aria-pressed", board.onlyAttention);
  $("scroll").scrollTop = 0;
  due("rows");
});
$("help-button").addEventListener("click", () => $("help").showModal());
for (const button of $("views").children) button.addEventListener("click", () => view(button.dataset.view));
addEventListener("hashchange", () => {
  wanted = fromAddress();
  const row = wanted && board.find(`${wanted.market} ${wanted.symbol}`);
  if (row) table.choose(row);
});

const MOVES = {ArrowDown: () => 1, ArrowUp: () => -1, PageDown: () => table.pageRows, PageUp: () => -table.pageRows,
  Home: () => -Infinity, End: () => Infinity};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const inSearch = event.target === $("search");
  const {key} = event;
  if (key === "Escape") escape(inSearch);
  else if (inSearch && !["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Enter"].includes(key)) return;
  else if (key in MOVES) {
    table.move(MOVES[key]());
    if (!inSearch) $("grid").focus({preventScroll: true});
  } else if (key === "Enter") {
    if (!inSearch && event.target !== $("grid") && event.target !== document.body) return;
    table.enter();
  } else if (key === "/") {
    if (narrow.matches) view("series");
    $("search").focus();
    $("search").select();
  } else if (key === "?") $("help").showModal();
  else if (/^[1-9]$/.test(key)) $("intervals").children[Number(key) - 1]?.click();
  else return;
  event.preventDefault();
});

function escape(inSearch) {
  if (inSearch && $("search").value) {
    $("search").value = "";
    $("search").dispatchEvent(new Event("input"));
    return;
  }
  if (narrow.matches) view("series");
  $("grid").focus({preventScroll: true});
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.paint());

// Ages grow although nothing comes.
function tick() {
  write($("clock"), clock(board.now(), board.now()));
  due("blocks");
  due("rows");
}

setInterval(tick, 500);
setInterval(showTitle, 1000);
tick();

// What the page knows, for tests and for the console of a browser.
globalThis.candleshm = {
  board,
  get state() { return state; },
  get chart() { return chart.model; },
  get events() { return events.texts; },
  get spentMs() { return [...spent]; },
  get frames() { return frames; },
  get link() { return {isOpen: link.isOpen, lostMs: link.lostMs, bytes: link.bytes}; },
};
