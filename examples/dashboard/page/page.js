// Fetches new samples twice a second, and draws them.

import { laneChart, latencyChart, tokenChart } from './charts.js';

const FETCHES = [
  ['fetched', 'known', ({ counts }) => counts.fetched],
  ['refreshed', 'good', ({ counts }) => counts.byRefresh + counts.byAuth],
  ['retried', 'warned', ({ counts }) => counts.retried],
  ['failed', 'bad', ({ counts }) => counts.failed],
];
const REJECTIONS = [
  ['401, in budget', 'warned', ({ counts }) => counts.rejected],
  ['401, over budget', 'bad', ({ counts }) => counts.overBudget],
  ['resent', 'good', ({ counts }) => counts.resent],
  ['resend skipped', 'bad', ({ counts }) => counts.resendsSkipped],
];
const CALLERS = [
  ['a response', 'good', ({ callers }) => callers.responded],
  ['a 401', 'warned', ({ callers }) => callers.unauthorized],
  ['no token', 'bad', ({ callers }) => callers.withoutToken],
  ['timed out', 'bad', ({ callers }) => callers.timedOut],
  ['another failure', 'bad', ({ callers }) => callers.failed],
];

const byId = (id) => document.getElementById(id);
const seconds = (value) => (value === null ? '–' : `${value.toFixed(1)} s`);
const millis = (value) => (value === null ? '–' : value < 1000 ? `${Math.round(value)} ms` : seconds(value / 1000));
const total = (lanes, sample) => lanes.map(([name, , count]) => `${name} ${count(sample)}`).join(', ');

let samples = [];
let taken = 0;
let latest = null;

/** The name, value and remark of each tile. */
function tiles(now) {
  const { token, counts, latency } = now;
  const inUse = token.suspect ? 'suspect' : 'in use';
  const state = token.usable ? inUse : token.rejected ? 'rejected' : token.generation ? 'expired' : 'none yet';
  const before = samples.findLast((sample) => sample.seconds < now.seconds - 0.9) ?? now;
  const errors = ({ callers: c }) => c.unauthorized + c.withoutToken + c.timedOut + c.failed;
  const refreshed = counts.byRefresh + counts.byAuth;
  const unauthorized = counts.rejected + counts.overBudget + (counts.resendsSkippedBecause.rejected_again ?? 0);
  return [
    ['Token', seconds(token.usable ? token.age : null), `no. ${token.generation ?? 0}, ${state}`],
    ['Refresh due in', token.usable ? seconds(token.refreshIn) : '–', token.retryIn ? `next attempt in ${seconds(token.retryIn)}` : 'in the background'],
    ['Expires in', token.usable ? seconds(token.expiresIn) : '–', 'then requests wait'],
    ['Tokens', `${counts.fetched + refreshed}`, `${counts.fetched} fetched, ${refreshed} refreshed`],
    ['Fetches failed', `${counts.failed}`, `${counts.servedWhileFailing} served meanwhile`],
    ['401s', `${unauthorized}`, `${counts.resent} resent, ${counts.resendsSkipped} skipped`],
    ['Latency p50', millis(latency.p50), `p99 ${millis(latency.p99)}`],
    ['Callers’ errors', `${errors(now) - errors(before)}/s`, `${errors(now)} in all`],
  ];
}

function tile([name, value, more]) {
  const [box, term, detail] = [document.createElement('div'), document.createElement('dt'), document.createElement('dd')];
  const [big, small] = [document.createElement('div'), document.createElement('div')];
  term.textContent = name;
  [big.className, big.textContent] = ['value', value];
  [small.className, small.textContent] = ['more', more];
  detail.append(big, small);
  box.append(term, detail);
  return box;
}

function draw() {
  const now = samples.at(-1);
  if (!now) return;
  const { phases } = latest;
  const data = (label) => ({ samples, phases, lifetime: latest.tokenLifetimeSeconds, label });
  byId('tiles').replaceChildren(...tiles(now).map(tile));
  const { token, latency } = now;
  tokenChart(byId('token'), data(`Age of the token: ${seconds(token.age)}, refresh due in ${seconds(token.refreshIn)}, expires in ${seconds(token.expiresIn)}`));
  laneChart(byId('fetches'), data(`Token fetches so far: ${total(FETCHES, now)}`), FETCHES);
  laneChart(byId('rejections'), data(`401s and resends so far: ${total(REJECTIONS, now)}`), REJECTIONS);
  latencyChart(byId('latency'), data(`Latency of the last second: p50 ${millis(latency.p50)}, p99 ${millis(latency.p99)}`));
  laneChart(byId('callers'), data(`What callers got so far: ${total(CALLERS, now)}`), CALLERS);
  byId('load').textContent = `${latest.requestsPerSecond} requests per second`;
  byId('error').textContent = token.lastError ? `The last fetch failed: ${token.lastError}.` : '';
  const why = Object.entries(now.counts.resendsSkippedBecause).map(([reason, count]) => `${reason} ${count}`);
  byId('why').textContent = why.length ? `Resends skipped, by reason: ${why.join(', ')}.` : '';
  list(phases, now.phase);
  status(phases[now.phase].name, phases[now.phase].story, now.phase > 0 ? 'fails' : '');
}

function list(phases, current) {
  const items = phases.map(({ name, story }, n) => {
    const [item, strong] = [document.createElement('li'), document.createElement('strong')];
    strong.textContent = name;
    item.append(strong, ` ${story}`);
    if (n === current) {
      item.setAttribute('aria-current', 'step');
      item.append(' (now)');
    }
    return item;
  });
  byId('phases').replaceChildren(...items);
}

/** Sets a text only if it changed, since a screen reader reads every change aloud. */
function status(name, story, kind) {
  if (byId('phase-name').textContent === name) return;
  byId('phase').className = kind;
  byId('phase-name').textContent = name;
  byId('phase-story').textContent = story;
}

async function poll() {
  try {
    const response = await fetch(`/state/after/${taken}`, { signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    latest = await response.json();
    // A lower count is from another run.
    if (latest.taken < taken) [samples, taken] = [[], 0];
    else {
      samples = [...samples, ...latest.samples].slice(-244);
      taken = latest.taken;
      draw();
    }
  } catch {
    status('Not connected', 'The dashboard has ended, or cannot be reached. What is shown is the last that was known.', 'lost');
  }
  setTimeout(poll, 500);
}

new ResizeObserver(draw).observe(byId('token'));
poll();
