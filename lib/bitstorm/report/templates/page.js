// Draws the charts when they come into view, in the page's colours, and keeps those over time on
// one range.

const page = JSON.parse(element('page-data').textContent);
const series = new Series(page);
const root = document.documentElement;
const checkboxes = [...document.querySelectorAll('input[name="show"]')];
const checked = () => checkboxes.filter(box => box.checked).flatMap(box => box.value.split(' '));

const standard = {
  ...lastRange('all', series), shown: new Set(checked()), fan: 0, theme: null,
  centre: element('choose-centre')?.value,
};
const state = {...standard};

// ---------------------------------------------------------------- the charts

// The cloud button, on by default, would send the chart and its numbers to Plotly's server.
const CONFIG = {
  displayModeBar: false, doubleClick: false, showTips: false, displaylogo: false,
  showSendToCloud: false, plotlyServerURL: '',
};
const charts = [...document.querySelectorAll('.chart')].map(place => ({
  place, name: place.id, linked: 'linked' in place.dataset, stale: true, near: false,
}));
let look = null;

function readLook() {
  const styles = getComputedStyle(root);
  const read = name => styles.getPropertyValue(`--${name}`).trim();
  const names = ['ink', 'quiet', 'line', 'paper', 'forecast', 'persistence', 'warning', 'better'];
  return {
    ...Object.fromEntries(names.map(name => [name, read(name)])),
    colours: [1, 2, 3, 4, 5, 6].map(place => read(`line-${place}`)), font: read('font'),
  };
}

function draw(chart) {
  const {place, name} = chart;
  chart.stale = false;
  const {data, layout, seen, span} = FIGURES[name]({
    page, series, look, state, from: state.from, until: state.until,
    pixels: place.clientWidth, height: place.clientHeight,
  });
  const first = !place.data;
  Plotly.react(place, data, layout, CONFIG);
  if (first && chart.linked) follow(place);
  const note = element(`${name}-seen`);
  note.textContent = seen;
  const [from, until] = layout.xaxis.range || [];
  if (span && (span[0] > until || span[1] < from)) {
    note.textContent = `Nothing in this range. Values: ${span.map(moment).join(' to ')}. `;
    const button = document.createElement('button');
    button.textContent = 'Show them';
    button.addEventListener('click', () => show({from: span[0], until: span[1], range: null}));
    note.append(button);
  }
}

let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    charts.filter(chart => chart.near && chart.stale).forEach(draw);
  });
}

function redraw(which = () => true) {
  charts.filter(which).forEach(chart => { chart.stale = true; });
  drawSoon();
}

// `react` tells no listener of a range, so a chart that follows another one causes nothing.
function follow(place) {
  place.on('plotly_relayout', change => {
    const [from, until] = change['xaxis.range']
      || [change['xaxis.range[0]'], change['xaxis.range[1]']];
    if (from !== undefined) show({from: time(from), until: time(until), range: null});
  });
  place.on('plotly_doubleclick', () => show(lastRange('all', series)));
}

// Plotly's `2026-11-29 10:00:00.1234` in UTC, or milliseconds.
function time(value) {
  if (typeof value === 'number') return value;
  const [date, clock = '00:00'] = value.split(' ');
  return Date.parse(`${date}T${clock.slice(0, 12)}Z`);
}

const nearby = new IntersectionObserver(entries => {
  for (const entry of entries) {
    charts.find(chart => chart.place === entry.target).near = entry.isIntersecting;
  }
  drawSoon();
}, {rootMargin: '200px'});

// ---------------------------------------------------------------- the range

const buttons = [...document.querySelectorAll('button[data-range]')];

function show({from, until, range}) {
  const most = series.last - series.first;
  const wide = Math.min(Math.max(until - from, 10 * series.step), most);
  const middle = (from + until) / 2;
  state.from = Math.min(Math.max(middle - wide / 2, series.first), series.last - wide);
  state.until = state.from + wide;
  state.range = range;
  tellRange();
  writeAddress(state, standard);
  redraw(chart => chart.linked);
}

function tellRange() {
  for (const button of buttons) {
    button.setAttribute('aria-pressed', button.dataset.range === state.range);
  }
  element('range').textContent = `${moment(state.from)} to ${moment(state.until)}`;
}

function startRange() {
  for (const button of buttons) {
    button.addEventListener('click', () => show(lastRange(button.dataset.range, series)));
  }
  // Shares of the width by which the ends of the range move.
  const moves = {closer: [0.25, -0.25], wider: [-0.5, 0.5], earlier: [-0.5, -0.5],
                 later: [0.5, 0.5]};
  for (const [id, [left, right]] of Object.entries(moves)) {
    element(id).addEventListener('click', () => {
      const wide = state.until - state.from;
      show({from: state.from + left * wide, until: state.until + right * wide, range: null});
    });
  }
}

// ---------------------------------------------------------------- the switches

function startSwitches() {
  for (const box of checkboxes) {
    box.addEventListener('change', () => {
      state.shown = new Set(checked());
      writeAddress(state, standard);
      redraw(chart => chart.name === box.dataset.chart);
    });
  }
  for (const name of ['fan', 'centre']) {
    const choice = element(`choose-${name}`);
    if (!choice) continue;
    choice.addEventListener('change', () => {
      state[name] = name === 'fan' ? Number(choice.value) : choice.value;
      writeAddress(state, standard);
      redraw(chart => chart.name === {fan: 'fan', centre: 'coverage'}[name]);
    });
  }
  const columns = new Map(page.series.columns.map(column => [column.name, column]));
  for (const swatch of document.querySelectorAll('.swatch')) {
    const {color, dash} = columnLook(page, columns.get(swatch.dataset.column), {
      ink: 'var(--ink)', colours: [1, 2, 3, 4, 5, 6].map(place => `var(--line-${place})`),
    });
    swatch.style.borderTop = `3px ${{solid: 'solid', dash: 'dashed', dot: 'dotted'}[dash]} ${color}`;
  }
}

const systemDark = matchMedia('(prefers-color-scheme: dark)');
let printing = false;

// Paper is white, and charts are as wide as it.
function applyTheme() {
  const dark = state.theme ? state.theme === 'dark' : systemDark.matches;
  root.dataset.theme = dark && !printing ? 'dark' : 'light';
  root.classList.toggle('printing', printing);
  element('theme').setAttribute('aria-pressed', dark);
  look = readLook();
  redraw();
}

function startTheme() {
  element('theme').addEventListener('click', () => {
    state.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
    writeAddress(state, standard);
    applyTheme();
  });
  systemDark.addEventListener('change', applyTheme);
  const print = yes => {
    if (printing === yes) return;
    printing = yes;
    applyTheme();
    if (yes) charts.forEach(draw);
  };
  addEventListener('beforeprint', () => print(true));
  addEventListener('afterprint', () => print(false));
  matchMedia('print').addEventListener('change', event => print(event.matches));
}

// The range and the switches that the address keeps.
function restore() {
  const kept = readAddress();
  const [from, until] = ['from', 'until'].map(name => Number(kept.get(name)));
  if (buttons.some(button => button.dataset.range === kept.get('range'))) {
    Object.assign(state, lastRange(kept.get('range'), series));
  } else if (from < until && until > series.first && from < series.last) {
    Object.assign(state, {from, until, range: null});
  }
  if (kept.has('show')) {
    const shown = kept.get('show').split(' ');
    for (const box of checkboxes) box.checked = box.value.split(' ').some(name => shown.includes(name));
    state.shown = new Set(checked());
  }
  if (['light', 'dark'].includes(kept.get('theme'))) state.theme = kept.get('theme');
  for (const [name, read] of [['fan', Number], ['centre', String]]) {
    const choice = element(`choose-${name}`);
    if (!choice || !kept.has(name)) continue;
    choice.value = kept.get(name);
    if (choice.selectedIndex < 0) choice.selectedIndex = 0;
    state[name] = read(choice.value);
  }
}

restore();
applyTheme();
tellRange();
startRange();
startSwitches();
startTheme();
startTable(page.table);
startFolds();
startAge(page.now.time_ms);
if (page.served) startRefresh(page.made, () => location.reload());
charts.forEach(chart => nearby.observe(chart.place));
const banner = document.querySelector('.banner');
if (banner) {
  new ResizeObserver(() => root.style.setProperty('--banner', `${banner.offsetHeight}px`))
    .observe(banner);
}
let resized = null;
addEventListener('resize', () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (!printing) redraw(); }, 100);
});
root.dataset.ready = '';
