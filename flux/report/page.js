'use strict';
// flux/report/page.js: asks for the state once a second, and draws it. SPDX-License-Identifier: LGPL-2.1-or-later
const el = id => document.getElementById(id);
const curve = { stride: 0, step: [], loss: [], rate: [] };
let last = null, run = '', shown = '', sure = 0, told = 0, over = null, stopped = false;

const number = (v, digits = 4) => v == null ? '–' : v.toFixed(digits);
const size = v => v == null ? '–' : v >= 2 ** 30 ? (v / 2 ** 30).toFixed(1) + ' GiB' : Math.round(v / 2 ** 20) + ' MiB';
const exponent = v => v == null ? '–' : v === 0 ? '0' : v.toExponential(2).replace(/\.?0+e/, 'e').replace('e-', 'e−');

function time (s) {
  if (s == null) return '–';
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, pad = v => String(Math.floor(v)).padStart(2, '0');
  return h > 0 ? h + ':' + pad(m) + ':' + pad(s % 60) : m + ':' + pad(s % 60);
}

function running (values) { // a centred mean over a twentieth
  const half = Math.max(1, Math.floor(values.length / 40)), means = [];
  for (let i = 0; i < values.length; i++) {
    const part = values.slice(Math.max(0, i - half), i + half + 1).filter(v => v != null);
    means.push(part.length ? part.reduce((a, b) => a + b) / part.length : null);
  }
  return means;
}

// ---- charts ----

function ticks (low, high, n) {
  const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
  const unit = [1, 2, 5, 10].find(u => u * power >= raw) * power, out = [];
  for (let v = Math.ceil(low / unit) * unit; v <= high + unit / 1e6; v += unit) out.push(v);
  return { at: out, digits: Math.max(0, -Math.floor(Math.log10(unit) + 1e-9)) };
}

// lines: [{x, y, colour, width}]; dots: [[x, y]]; write: how a value of y is written.
function chart (canvas, lines, dots, write) {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
  const c = canvas.getContext('2d'), all = lines.flatMap(l => l.y).concat(dots.map(d => d[1])).filter(v => v != null);
  canvas.width = w * ratio;
  canvas.height = h * ratio;
  c.scale(ratio, ratio);
  c.font = '12px system-ui, "DejaVu Sans", sans-serif';
  c.fillStyle = colour('--faint');
  if (all.length === 0) {
    c.textAlign = 'center';
    c.fillText('nothing yet', w / 2, h / 2);
    return;
  }
  let low = Math.min(...all), high = Math.max(...all);
  const spread = high - low || Math.abs(high) || 1;
  low = low >= 0 ? Math.max(0, low - spread * .08) : low - spread * .08;
  high += spread * .08;
  const xs = lines[0].x.concat(dots.map(d => d[0])), left = Math.min(...xs), right = Math.max(...xs, left + 1);
  const m = { l: 58, r: 14, t: 8, b: 24 };
  const X = v => m.l + (v - left) / (right - left) * (w - m.l - m.r), Y = v => h - m.b - (v - low) / (high - low) * (h - m.t - m.b);
  const y = ticks(low, high, h > 200 ? 5 : 3), x = ticks(left, right, Math.max(2, Math.floor(w / 90)));
  c.strokeStyle = colour('--line');
  c.textAlign = 'right';
  for (const v of y.at) {
    c.beginPath(); c.moveTo(m.l, Y(v)); c.lineTo(w - m.r, Y(v)); c.stroke();
    c.fillText(write(v, y.digits), m.l - 8, Y(v) + 4);
  }
  c.textAlign = 'center';
  for (const v of x.at) if (v === Math.round(v)) c.fillText(v, X(v), h - 6);
  for (const l of lines) {
    c.strokeStyle = colour(l.colour);
    c.lineWidth = l.width;
    c.lineJoin = 'round';
    c.beginPath();
    let pen = false;
    l.y.forEach((v, i) => {
      if (v == null) { pen = false; return; }
      pen ? c.lineTo(X(l.x[i]), Y(v)) : c.moveTo(X(l.x[i]), Y(v));
      pen = true;
    });
    c.stroke();
  }
  c.fillStyle = c.strokeStyle = colour('--dot');
  c.setLineDash([4, 4]);
  c.lineWidth = 1.5;
  c.beginPath();
  for (const d of dots) c.lineTo(X(d[0]), Y(d[1]));
  c.stroke();
  c.setLineDash([]);
  for (const d of dots) { c.beginPath(); c.arc(X(d[0]), Y(d[1]), 4.5, 0, 7); c.fill(); }
  if (over != null && over.canvas === canvas) point(c, lines, X, Y, write, colour, w, m, h);
}

function point (c, lines, X, Y, write, colour, w, m, h) { // what the pointer is at
  const xs = lines[0].x, i = xs.reduce((best, v, k) => Math.abs(X(v) - over.x) < Math.abs(X(xs[best]) - over.x) ? k : best, 0);
  const text = 'step ' + xs[i] + '   ' + lines.map(l => l.y[i] == null ? '–' : write(l.y[i], 4)).join('   '), wide = c.measureText(text).width + 16;
  const at = Math.min(Math.max(X(xs[i]) - wide / 2, m.l), w - m.r - wide);
  c.strokeStyle = colour('--faint');
  c.lineWidth = 1;
  c.beginPath(); c.moveTo(X(xs[i]), m.t); c.lineTo(X(xs[i]), h - m.b); c.stroke();
  c.fillStyle = colour('--text');
  c.fillRect(at, m.t, wide, 22);
  c.fillStyle = colour('--card');
  c.textAlign = 'left';
  c.fillText(text, at + 8, m.t + 15);
}

function draw () {
  const paired = last ? last.paired.filter(p => p[1] != null) : [];
  const means = running(curve.loss);
  chart(el('curve'), [{ x: curve.step, y: curve.loss, colour: '--raw', width: 1.5 },
    { x: curve.step, y: means, colour: '--mean', width: 2.5 }], paired, (v, digits) => v.toFixed(digits));
  chart(el('rates'), [{ x: curve.step, y: curve.rate, colour: '--mean', width: 2 }], [], exponent);
  el('mean').textContent = means.length > 1 ? 'running mean ' + number(means[means.length - 1]) : '';
}

for (const canvas of [el('curve'), el('rates')]) {
  canvas.onpointermove = canvas.onpointerdown = e => { over = { canvas, x: e.offsetX }; draw(); };
  canvas.onpointerleave = () => { over = null; draw(); };
}

// ---- the state ----

function take (c) {
  if (c.stride !== curve.stride) curve.step = [], curve.loss = [], curve.rate = [];
  curve.stride = c.stride;
  curve.step.splice(c.from, Infinity, ...c.step);
  curve.loss.splice(c.from, Infinity, ...c.loss);
  curve.rate.splice(c.from, Infinity, ...c.learning_rate);
}

function gallery (pictures) {
  const key = run + pictures.map(p => p.id).join();
  if (key === shown) return;
  shown = key;
  el('empty').hidden = pictures.length > 0;
  el('gallery').replaceChildren(...pictures.slice().reverse().map(p => {
    const figure = document.createElement('figure'), img = new Image(p.width, p.height);
    const caption = document.createElement('figcaption'), step = document.createElement('b');
    img.loading = 'lazy';
    img.style.height = 'auto';
    img.src = '/picture/' + run + '/' + p.id + '.png';
    img.alt = p.prompt;
    step.textContent = 'step ' + p.step + ' ';
    caption.append(step, p.prompt);
    img.onclick = () => {
      el('big').src = img.src;
      el('caption').textContent = 'step ' + p.step + ': ' + p.prompt;
      el('shown').showModal();
    };
    figure.append(img, caption);
    return figure;
  }));
}

el('shown').onclick = () => el('shown').close();

function state (word, name) {
  el('state').textContent = word;
  el('state').className = 'pill ' + name;
}

function show (s) {
  const finished = s.state === 'finished' || s.state === 'failed', paused = s.state === 'paused';
  const done = s.step || 0, p = s.paired, now = p.length ? p[p.length - 1][1] : null;
  last = s;
  take(s.curve);
  state(stopped && !finished ? 'stopping' : s.state, s.state);
  el('bar').style.width = s.max_steps ? Math.min(100, 100 * done / s.max_steps) + '%' : 0;
  el('steps').textContent = done ? 'step ' + done + ' of ' + s.max_steps + ', epoch ' + (s.epoch + 1) : 'No step is done yet';
  if (Date.now() > told) el('note').textContent = s.saved_step ? 'saved at step ' + s.saved_step : 'nothing saved yet';
  el('loss').textContent = number(s.loss);
  el('paired').textContent = number(now);
  if (p.length) el('change').textContent = p.length > 1 && p[0][1] > 0 ? (100 * (now / p[0][1] - 1)).toFixed(1).replace('-', '−') + ' % since step ' + p[0][0] : 'at step ' + p[0][0];
  el('rate').textContent = exponent(s.learning_rate);
  el('norm').textContent = s.grad_norm == null ? '' : 'gradient norm ' + s.grad_norm.toPrecision(3);
  el('speed').textContent = s.seconds == null ? '–' : s.seconds >= 1 ? s.seconds.toFixed(1) + ' s/step' : (1 / s.seconds).toFixed(1) + ' steps/s';
  el('images').textContent = s.images_per_second == null ? '' : s.images_per_second.toPrecision(3) + ' images/s';
  el('memory').textContent = size(s.memory_bytes);
  el('left').textContent = time(s.seconds_left);
  el('end').textContent = s.seconds_left > 0 && !paused && !finished ? 'until ' + new Date(Date.now() + 1000 * s.seconds_left).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : '';
  el('pause').textContent = paused ? 'Resume' : 'Pause';
  for (const id of ['pause', 'save', 'stop']) el(id).disabled = finished || stopped;
  gallery(s.pictures);
  draw();
}

function lost () {
  const ended = stopped || (last && last.step >= last.max_steps) || (last && last.state === 'finished');
  state(ended ? 'ended' : 'no answer', ended ? 'finished' : 'lost');
  el('note').textContent = ended ? 'The training has ended; this is what was seen last.' : 'Nobody answers: it has ended, or the network is gone.';
  for (const id of ['pause', 'save', 'stop']) el(id).disabled = true;
}

async function poll () {
  try {
    const known = Math.max(0, curve.step.length - 1);
    const answer = await fetch('/state?stride=' + curve.stride + '&from=' + known, { signal: AbortSignal.timeout(10000) });
    if (answer.status === 401) { location.reload(); return; }
    const name = answer.headers.get('X-Flux-Run');
    if (name !== run) { // another training has taken the port
      const first = run === '';
      run = name;
      if (!first) { location.reload(); return; }
      settings();
    }
    show(await answer.json());
  } catch (e) {
    lost();
  }
  setTimeout(poll, document.hidden ? 5000 : 1000);
}

async function settings () {
  const all = await (await fetch('/settings')).json();
  const file = all.location || all.output || '';
  el('name').textContent = file.split('/').pop() || 'gst-flux';
  document.title = el('name').textContent + ' – gst-flux';
  el('settings').replaceChildren(...Object.entries(all).map(([name, value]) => {
    const row = document.createElement('tr');
    const shown = typeof value === 'number' ? Number(value.toPrecision(6)) : value; // 1e-8, not 9.9999999999999986e-9
    for (const text of [name, shown]) row.append(Object.assign(document.createElement('td'), { textContent: text }));
    return row;
  }));
}

// ---- buttons ----

function note (text) {
  el('note').textContent = text;
  told = Date.now() + 3000;
}

async function press (what, text) {
  try {
    const answer = await fetch('/' + what, { method: 'POST', headers: { 'X-Flux-Page': '1' } });
    note(answer.ok ? text : 'refused: ' + await answer.text());
  } catch (e) {
    note('nobody answers');
  }
}

el('pause').onclick = () => last.state === 'paused' ? press('resume', 'goes on') : press('pause', 'pauses after this step');
el('save').onclick = () => press('save', 'saves after this step');
el('stop').onclick = () => { // twice: the first one asks
  const button = el('stop');
  if (Date.now() < sure) {
    stopped = true;
    for (const id of ['pause', 'save', 'stop']) el(id).disabled = true;
    press('stop', 'saves and ends after this step');
    return;
  }
  sure = Date.now() + 4000;
  button.textContent = 'Save & end?';
  button.classList.add('sure');
  setTimeout(() => { button.textContent = 'Stop'; button.classList.remove('sure'); }, 4000);
};

window.onresize = draw;
poll();
