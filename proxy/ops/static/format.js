// Numbers as people read them.

const nothing = "–";
const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 1234567 as "1,234,567". */
export const count = (value) => counts.format(value);

const tenths = (value) => value.toFixed(1).replace(/\.0$/, "");

/** A number per second: "0", "0.4", "12.3", "1.2K". */
export function rate(value) {
  if (!value) return "0";
  if (value < 0.05) return "<0.1";
  return value < 100 ? tenths(value) : compact.format(value);
}

/** A share of 0 to 1 in percent: "0 %", "<0.1 %", "2.5 %", "100 %". */
export function share(part, whole) {
  if (!whole) return nothing;
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  return `${percent < 10 ? tenths(percent) : Math.round(percent)} %`;
}

/** Seconds of latency: "0.8 ms", "12 ms", "1.2 s", "4 min". */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return nothing;
  const ms = seconds * 1000;
  if (ms < 10) return `${tenths(ms)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (seconds < 10) return `${tenths(seconds)} s`;
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

/** A stretch of time in its two largest units: "42 s", "12 min 5 s", "3 h 4 min", "2 d 3 h". */
export function stretch(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0 s";
  const [unit, size] = units[first];
  const text = `${Math.floor(whole / size)} ${unit}`;
  if (first === units.length - 1) return text;
  const [nextUnit, nextSize] = units[first + 1];
  const rest = Math.floor((whole % size) / nextSize);
  return rest ? `${text} ${rest} ${nextUnit}` : text;
}

/** A countdown: "54:07", "1:02:03". */
export function countdown(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** Bytes: "0 B", "12 KiB", "3.4 MiB". */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** A wall-clock time of day, in the reader's zone. */
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

/** The next round number that is not below the value: the top of an axis. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= value * (1 - 1e-9));
  return step * power;
}
