// Numbers as people read them: prices, changes, ages and times of day.

const NONE = "–";
const LIMITS = [[1000, 2], [10, 3], [1, 4], [0.1, 5]];
const DECIMALS_MAX = 8;
const formats = new Map();

function fixed(value, decimals) {
  if (!formats.has(decimals)) {
    formats.set(decimals, new Intl.NumberFormat("en-US", {minimumFractionDigits: decimals, maximumFractionDigits: decimals}));
  }
  return formats.get(decimals).format(value);
}

/** A price with decimals by its size, or with as many as are given. */
export function price(value, decimals = null) {
  if (value === null || !Number.isFinite(value)) return NONE;
  return fixed(value, decimals ?? LIMITS.find(([least]) => value >= least)?.[1] ?? DECIMALS_MAX);
}

/** Whether a fraction is too small for a sign. */
function isFlat(value) {
  return value === null || !Number.isFinite(value) || Math.abs(value) < 0.000_05;
}

/** The direction of a change: up, down, or null. */
export function directionOf(value) {
  return isFlat(value) ? null : value > 0 ? "up" : "down";
}

/** A fraction as signed per cent. */
export function share(value) {
  if (value === null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value) * 100;
  const text = fixed(size, size < 100 ? 2 : size < 1000 ? 1 : 0);
  return `${isFlat(value) ? "" : value < 0 ? "−" : "+"}${text}%`;
}

/** A duration in seconds, the coarser the longer it is. */
export function age(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return NONE;
  if (seconds < 100) return `${Math.max(0, seconds).toFixed(1)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** A number of things. */
export function count(value) {
  return fixed(value, 0);
}

/** A volume, short. */
export function volume(value) {
  if (value === null || !Number.isFinite(value)) return NONE;
  for (const [least, unit] of [[1e9, "B"], [1e6, "M"], [1e4, "K"]]) {
    if (value >= least) return `${fixed(value / (least === 1e4 ? 1e3 : least), 2)} ${unit}`;
  }
  return fixed(value, value >= 100 ? 0 : value >= 1 ? 2 : 4);
}

/** The UTC time of day, with the date before it when that is not today's. */
export function clock(epochMs, nowMs = Date.now()) {
  const text = new Date(epochMs).toISOString();
  const day = text.slice(0, 10);
  return day === new Date(nowMs).toISOString().slice(0, 10) ? text.slice(11, 19) : `${day} ${text.slice(11, 19)}`;
}

/** The UTC time at which a candle of an interval opens. */
export function openTime(epochMs, intervalMs) {
  const text = new Date(epochMs).toISOString();
  if (intervalMs >= 86_400_000) return text.slice(0, 10);
  return `${text.slice(0, 10)} ${text.slice(11, intervalMs < 60_000 ? 19 : 16)}`;
}

/** How many decimals the longest of these prices has. */
export function decimalsOf(values) {
  let most = 0;
  for (const value of values) {
    if (value === null) continue;
    const text = String(value);
    const exponent = text.indexOf("e-");
    const digits = exponent < 0
      ? text.length - 1 - (text.indexOf(".") < 0 ? text.length - 1 : text.indexOf("."))
      : Number(text.slice(exponent + 2)) + Math.max(0, exponent - 2);
    most = Math.max(most, Math.min(digits, DECIMALS_MAX));
  }
  return most;
}
