// Charts in SVG: lines over time, and lanes, which are rows of bars with a scale each.

const SPAN = 120; // seconds
const LEFT = 46, RIGHT = 10, TOP = 18, BOTTOM = 18;

/** An SVG element, with attributes and, for text, its content. */
function element(name, attributes, content) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  return made;
}

const round = (number) => Math.round(number * 10) / 10;

/** An empty chart with its time axis and the phases behind it. */
function frame(svg, { samples, phases, label, left = LEFT, names = false }) {
  const { width, height } = svg.getBoundingClientRect();
  const now = samples.at(-1).seconds;
  const x = (seconds) => round(left + (1 - (now - seconds) / SPAN) * (width - left - RIGHT));
  const area = { left, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('aria-label', label);
  const parts = [];
  for (const { phase, from, to } of spansOf(samples)) {
    const [start, end] = [Math.max(x(from), area.left), x(to)];
    if (end <= start) continue;
    if (phase > 0) {
      parts.push(element('rect', { class: 'band', x: start, y: 0, width: end - start, height: area.bottom }));
    }
    if (x(from) > area.left) parts.push(element('path', { class: 'edge', d: `M${start} 0V${area.bottom}` }));
    // The name if it fits (6 px per letter), else its number in the list below the charts.
    const name = `${phase + 1} ${phases[phase].name}`;
    const text = names && end - start > 6 * name.length + 6 ? name : `${phase + 1}`;
    if (end - start > 14) parts.push(element('text', { class: 'phase', x: start + 4, y: 11 }, text));
  }
  const step = width < 420 ? 60 : 30;
  for (let ago = SPAN; ago >= 0; ago -= step) {
    const anchor = ago === SPAN ? 'start' : ago === 0 ? 'end' : 'middle';
    const text = ago === 0 ? 'now' : `−${ago} s`;
    parts.push(element('text', { x: x(now - ago), y: height - 4, 'text-anchor': anchor }, text));
  }
  svg.replaceChildren(...parts);
  return { svg, x, area, now };
}

/** The phases in these samples, with start and end. */
function spansOf(samples) {
  const spans = [];
  for (const { phase, seconds } of samples) {
    const last = spans.at(-1);
    if (last) last.to = seconds;
    if (last?.phase !== phase) spans.push({ phase, from: seconds, to: seconds });
  }
  return spans;
}

/** A horizontal line at each tick, with its label. */
function scale({ svg, area }, y, ticks, text) {
  for (const tick of ticks) {
    svg.append(
      element('path', { class: 'grid', d: `M${area.left} ${y(tick)}H${area.right}` }),
      element('text', { x: area.left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, text(tick)),
    );
  }
}

/** A line through the samples' values, with a gap at null. `join` draws the step to the next. */
function line({ svg, x, area }, y, samples, kind, value, join = () => '') {
  let path = '', before = null;
  for (const sample of samples) {
    const [at, here] = [x(sample.seconds), value(sample)];
    const drawn = here !== null && at >= area.left;
    if (drawn && before) path += join(before, sample, at);
    if (drawn) path += `${before ? 'L' : 'M'}${at} ${y(here)}`;
    before = drawn ? sample : null;
  }
  svg.append(element('path', { class: `line ${kind}`, d: path }));
}

/** The age of the token, with the ages of its refresh and its expiry. */
export function tokenChart(svg, data) {
  const { samples, lifetime, label } = data;
  const chart = frame(svg, { ...data, label, names: true });
  const { top, bottom } = chart.area;
  const y = (age) => round(bottom - (Math.min(age, lifetime) / lifetime) * (bottom - top));
  const apart = Math.ceil(lifetime / 5);
  const ticks = Array.from({ length: Math.floor(lifetime / apart) + 1 }, (_, n) => n * apart);
  scale(chart, y, ticks, (tick) => `${tick} s`);
  // Once the refresh is due, a snapshot has no age for it. The last known one stays.
  const due = dueAges(samples);
  const isOther = (before, sample) => before.token.generation !== sample.token.generation;
  // A new token is a vertical step.
  const step = (before, sample, at) => (isOther(before, sample) ? `H${at}` : '');
  const drop = (before, sample, at) =>
    isOther(before, sample) ? `L${at} ${y(before.token.age + sample.seconds - before.seconds)}` : '';
  line(chart, y, samples, 'refresh', (sample) => due.get(sample)?.refresh ?? null, step);
  line(chart, y, samples, 'expiry', (sample) => due.get(sample)?.expiry ?? null, step);
  line(chart, y, samples, 'age', ({ token }) => (token.usable ? token.age : null), drop);
}

/** The ages at which each sample's token is due for a refresh, and expires. */
function dueAges(samples) {
  const ages = new Map();
  let known = { generation: null };
  for (const sample of samples) {
    const { generation, age, refreshIn, expiresIn } = sample.token;
    if (generation === null) continue;
    if (known.generation !== generation) known = { generation, refresh: null, expiry: null };
    if (refreshIn > 0) known.refresh ??= age + refreshIn;
    if (expiresIn > 0) known.expiry ??= age + expiresIn;
    ages.set(sample, known);
  }
  return ages;
}

/** Latencies, on a logarithmic scale from 1 ms to 10 s. */
export function latencyChart(svg, data) {
  const chart = frame(svg, data);
  const { top, bottom } = chart.area;
  const place = (ms) => Math.log10(Math.min(Math.max(ms, 1), 10_000)) / 4;
  const y = (ms) => round(bottom - place(ms) * (bottom - top));
  scale(chart, y, [1, 10, 100, 1000, 10_000], (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`));
  line(chart, y, data.samples, 'p99', ({ latency }) => latency.p99);
  line(chart, y, data.samples, 'p50', ({ latency }) => latency.p50);
}

/** A row for each of `lanes`, `[name, kind, count of a sample]`: the growth in each second. */
export function laneChart(svg, data, lanes) {
  const chart = frame(svg, { ...data, left: 158 });
  const { left, right, top, bottom } = chart.area;
  const height = (bottom - top) / lanes.length;
  lanes.forEach(([name, kind, count], n) => {
    const base = round(top + (n + 1) * height) - 1;
    const bars = perSecond(data.samples, count).filter(([second]) => chart.x(second) >= left);
    const peak = Math.max(0, ...bars.map(([, value]) => value));
    const wide = Math.max(1, round(chart.x(1) - chart.x(0)) - 0.6);
    let path = '';
    for (const [second, value] of bars) {
      const tall = round((value / peak) * (height - 6));
      const at = chart.x(second);
      if (value > 0) path += `M${at} ${base}v${-Math.max(tall, 1.5)}h${Math.min(wide, right - at)}V${base}z`;
    }
    const text = round(base - height / 2) + 4;
    chart.svg.append(
      element('path', { class: 'grid', d: `M${left} ${base}H${right}` }),
      element('path', { class: kind, d: path }),
      element('text', { class: 'lane', x: 0, y: text }, name),
      element('text', { x: left - 6, y: text, 'text-anchor': 'end' }, peak ? `max ${peak}` : 'none'),
    );
  });
}

/** `[second, growth]` for each whole second. */
function perSecond(samples, count) {
  const seconds = new Map();
  for (let n = 1; n < samples.length; n += 1) {
    const second = Math.floor(samples[n].seconds - 0.001);
    const grown = count(samples[n]) - count(samples[n - 1]);
    seconds.set(second, (seconds.get(second) ?? 0) + grown);
  }
  return [...seconds];
}
