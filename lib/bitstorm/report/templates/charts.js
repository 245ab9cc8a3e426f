// The figures: numbers in, Plotly's traces and layout out. A figure is a function of `scene`:
// {page, series, look, from, until, pixels, height, state}. It returns {data, layout, seen, span}:
// `seen` says in words what the reader sees, `span` is where a chart over time has values.
//
// Times are Unix milliseconds on date axes, which Plotly shows in UTC. Plotly reads texts as
// markup, so texts from outside are escaped.

const STAYS = 'the price stays as it is';
const MONEY = ',.8~r';
const SHARE = '.3~%';
// Cents under the pointer, and more digits below 1.
const exact = high => high >= 1 ? ',.2f' : ',.6~r';

const escaped = text => String(text)
  .replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const worded = name => String(name).replace(/_/g, ' ');
const moment = ms => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
const TWO = new Intl.NumberFormat('en-US', {minimumFractionDigits: 2, maximumFractionDigits: 2});
const ANY = new Intl.NumberFormat('en-US', {maximumSignificantDigits: 6});
// A text of a number that can be missing: JavaScript would show null as 0.
const NONE = 'n/a';
const known = form => (value, ...more) => value == null ? NONE : form(value, ...more);
const amount = known(value => (value && Math.abs(value) < 1 ? ANY : TWO).format(value));
const percent = known((share, digits = 2) => `${(100 * share).toFixed(digits)} %`);
const isShare = unit => unit.startsWith('fraction');
// `0 to 100` is the scale of a number without a unit.
const inUnit = unit => known(value => isShare(unit) ? percent(value)
  : /\d/.test(unit) ? amount(value) : `${amount(value)} ${unit}`);

function line(name, x, y, look = {}, more = {}) {
  return {type: 'scatter', mode: 'lines', name: escaped(name), x, y,
          line: {width: 1.6, ...look}, ...more};
}
const guide = {hoverinfo: 'skip'};

// The newest values in sight, and the y axis that fits them: [lowest, highest] with some air.
function fit(traces, {from, until}, {floor, air = 0.06} = {}) {
  let low = Infinity, high = -Infinity;
  for (const {x, y} of traces) {
    for (let at = 0; at < x.length; at++) {
      if (y[at] === null || x[at] < from || x[at] > until) continue;
      low = Math.min(low, y[at]);
      high = Math.max(high, y[at]);
    }
  }
  if (low > high) return {low: null, high: null, range: [0, 1]};
  const wide = high - low || Math.abs(high) || 1;
  const start = floor === undefined ? low - air * wide : floor;
  return {low, high, range: [start, high + air * wide]};
}

// The times with the columns, and a row of nulls in each hole, so that no line bridges it.
function broken(times, ...columns) {
  const steps = times.slice(1).map((time, at) => time - times[at]).sort((a, b) => a - b);
  const step = steps[Math.floor(steps.length / 2)];
  const rows = [times, ...columns].map(() => []);
  times.forEach((time, at) => {
    if (at && time - times[at - 1] > 1.5 * step) {
      rows.forEach((row, place) => row.push(place ? null : times[at - 1] + step));
    }
    rows.forEach((row, place) => row.push(place ? columns[place - 1][at] : time));
  });
  return rows;
}

// The band between two lines as closed outlines, one for each stretch without a hole: an area
// between two lines would bridge the holes.
function band(name, x, lower, upper, colour, opacity) {
  const xs = [], ys = [];
  let start = null;
  for (let at = 0; at <= x.length; at++) {
    const there = at < x.length && lower[at] !== null && upper[at] !== null;
    if (there && start === null) start = at;
    if (there || start === null) continue;
    const back = [...Array(at - start).keys()].map(one => at - 1 - one);
    xs.push(...x.slice(start, at), ...back.map(one => x[one]), null);
    ys.push(...upper.slice(start, at), ...back.map(one => lower[one]), null);
    start = null;
  }
  return line(name, xs.slice(0, -1), ys.slice(0, -1), {width: 0},
              {fill: 'toself', fillcolor: colour + opacity, ...guide});
}

function layout({look, page, pixels, height}, more) {
  const axis = {
    gridcolor: look.line, linecolor: look.line, zerolinecolor: look.line, tickcolor: look.line,
    automargin: true, title: {standoff: 8}, fixedrange: true,
  };
  const axes = {};
  for (const name of ['xaxis', 'yaxis', ...Object.keys(more).filter(key => /^yaxis\d/.test(key))]) {
    axes[name] = {...axis, ...more[name]};
  }
  const paper = {xref: 'paper', yref: 'paper', showarrow: false};
  const marks = [];
  if (page.simulated) {
    marks.push({text: 'SIMULATED', x: 0.5, y: 0.5, textangle: -15, opacity: 0.13, ...paper,
                font: {size: Math.min(52, pixels / 8), color: look.warning}});
  }
  if (page.attribution) {
    marks.push({text: escaped(page.attribution), x: 1, y: 1, xanchor: 'right', yanchor: 'bottom',
                font: {size: 10, color: look.quiet}, ...paper});
  }
  return {
    width: pixels, height, margin: {l: 56, r: 10, t: 16, b: 36},
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', colorway: [look.ink],
    font: {color: look.ink, family: look.font, size: 12},
    hovermode: 'x unified', dragmode: false,
    hoverlabel: {bgcolor: look.paper, bordercolor: look.line, font: {color: look.ink}},
    showlegend: true,
    legend: {orientation: 'h', x: 0, y: page.attribution ? 1.09 : 1.02, yanchor: 'bottom', bgcolor: 'rgba(0,0,0,0)',
             itemclick: false, itemdoubleclick: false},
    ...more, ...axes, annotations: [...marks, ...(more.annotations || [])],
  };
}

// Drag selects a range. On a touch screen a finger scrolls the page instead: there are buttons.
const DRAG = matchMedia('(pointer: coarse)').matches ? false : 'zoom';
const overTime = ({from, until}, more = {}) => ({
  dragmode: DRAG,
  xaxis: {type: 'date', range: [from, until], fixedrange: false,
          hoverformat: '%Y-%m-%d %H:%M UTC'},
  ...more,
});

// The panels of the charts that draw the series: their columns, one panel for each unit.
function panels(page, chart) {
  const groups = {price: ['price', 'average', 'band']}[chart] || [chart];
  const columns = page.series.columns.filter(column => groups.includes(column.group));
  return [...new Set(columns.map(column => column.unit))]
    .map(unit => ({unit, columns: columns.filter(column => column.unit === unit)}));
}

// The look of a column's line: a colour for each window, a dash for each kind of line.
function columnLook(page, column, look) {
  if (column.group === 'price') return {color: look.ink, width: 1.2, dash: 'solid'};
  const peers = page.series.columns.filter(one => one.group === column.group);
  const window = page.windows.indexOf(Number(column.name.split('_').pop()));
  const place = window >= 0 && column.group !== 'band' ? window : peers.indexOf(column);
  const dash = {average: column.name.startsWith('ema') ? 'dash' : 'solid', band: 'dot'};
  const shift = column.group === 'band' ? 3 : column.group === 'drawdown' ? 1 : 0;
  return {color: look.colours[(place + shift) % look.colours.length], width: 1.6,
          dash: dash[column.group] || 'solid'};
}

const ALWAYS = ['price', 'drawdown'];

function marketFigure(chart) {
  return scene => {
    const {page, series, look, from, until, pixels, state} = scene;
    const choice = series.choose(from, until, pixels);
    // Half a screen on either side, so that dragging shows what comes.
    const side = (until - from) / 2;
    const data = [], axes = {}, words = [];
    const all = panels(page, chart);
    all.forEach(({unit, columns}, place) => {
      // The price comes last: it lies above its averages.
      const traces = [...columns].sort((a, b) => (a.name === 'price') - (b.name === 'price'))
        .filter(({name, group}) => ALWAYS.includes(group) || state.shown.has(name))
        .map(column => {
          const {x, y, ends} = series.line(column.name, choice, from - side, until + side);
          return line(column.label, x, y, columnLook(page, column, look), {
            yaxis: place ? `y${place + 1}` : 'y', customdata: ends, meta: column.name,
            fill: column.group === 'drawdown' ? 'tozeroy' : 'none',
          });
        });
      const floor = chart === 'volatility' ? 0 : undefined;
      const {low, high, range} = fit(traces, scene, {floor});
      const form = isShare(unit) ? SHARE : exact(high);
      const one = series.levels[choice.number].width * choice.merge === 1;
      for (const trace of traces) {
        trace.hovertemplate = one ? `%{y:${form}}`
          : `%{customdata[0]:${form}} to %{customdata[1]:${form}}`;
      }
      const rsi = unit === '0 to 100';
      if (chart === 'drawdown') range[1] = Math.min(range[1], 0);
      axes[place ? `yaxis${place + 1}` : 'yaxis'] = {
        range: rsi ? [0, 100] : range,
        tickvals: rsi ? [0, 30, 50, 70, 100] : undefined,
        domain: [1 - (place + 1) / all.length + (place < all.length - 1 ? 0.06 : 0),
                 1 - place / all.length],
        tickformat: isShare(unit) ? SHARE : MONEY,
        title: {text: isShare(unit) ? '' : escaped(unit), standoff: 8},
      };
      const text = inUnit(unit);
      const what = all.length > 1 ? `${columns[0].label} ` : '';
      if (low !== null) words.push(`${what}lowest ${text(low)}, highest ${text(high)}`);
      data.push(...traces);
    });
    const seen = !words.length ? 'No values in this range.'
      : `${moment(from)} to ${moment(until)}: ${words.join('; ')}. ${series.words(choice)}.`;
    return {
      data, span: [series.first, series.last], seen,
      layout: layout(scene, overTime(scene, {
        ...axes, showlegend: false,
        xaxis: {...overTime(scene).xaxis, anchor: all.length > 1 ? `y${all.length}` : 'y'},
      })),
    };
  };
}

// Realised volatility beside its forecast of the time, and the forecast of the steps ahead.
function sigmaFigure(scene) {
  const {page: {volatility: {past, ahead}}, look} = scene;
  const data = [];
  if (past) {
    const [x, realised, forecast] = broken(past.timestamp, past.realised, past.forecast);
    data.push(line('realised', x, realised, {color: look.ink}));
    data.push(line('its forecast, made before', x, forecast, {color: look.forecast, dash: 'dash'}));
  }
  if (ahead.length) {
    const [x, y] = [ahead.map(one => one.time_ms), ahead.map(one => one.sigma)];
    data.push(line('forecast of the steps ahead', x, y, {color: look.warning, width: 2.4}));
  }
  const {span, view} = framed(scene, ...data.map(({x}) => x));
  const {low, high, range} = fit(data, view, {floor: 0});
  return {
    data, span,
    seen: low === null ? '' : `Volatility a step from ${percent(low)} to ${percent(high)}.`,
    layout: layout(scene, overTime(view, {yaxis: {range, tickformat: SHARE}})),
  };
}

// All of a chart are its own values, not those of the longest chart; and a range that ends with
// the newest point shows the forecasts behind it.
function framed(scene, ...times) {
  const span = [Math.min(...times.map(x => x[0])), Math.max(...times.map(x => x[x.length - 1]))];
  const all = scene.state.range === 'all';
  const newest = scene.until >= scene.series.last;
  const until = all ? span[1] : newest ? Math.max(scene.until, span[1]) : scene.until;
  return {span, view: {...scene, from: all ? span[0] : scene.from, until}};
}

// The newest forecast of all steps, or an earlier one of the log, with what came.
function fanFigure(scene) {
  const {page, look, state} = scene;
  const {fan, unit} = page;
  const earlier = state.fan ? fan.earlier[state.fan - 1] : null;
  const origin = earlier ? earlier.origin_ms : fan.origin_ms;
  const {timestamp, price} = fan.past;
  const at = timestamp.indexOf(origin);
  const start = earlier ? (at < 0 ? null : price[at]) : fan.from_price;
  const steps = earlier ? earlier.steps : fan.steps;
  const x = [origin, ...steps.map(step => step.time_ms)];
  const end = x[x.length - 1];
  const data = [];
  const levels = earlier ? [page.logged_level] : [...fan.levels].sort((a, b) => b - a);
  const ends = (step, level) => earlier ? [step.lower, step.upper]
    : step.intervals[level] || [null, null];
  levels.forEach((level, place) => {
    const [lower, upper] = [0, 1].map(side =>
      [start, ...steps.map(step => ends(step, level)[side])]);
    data.push(band(`${level} % interval`, x, lower, upper, look.forecast,
                   ['1f', '2b', '3d', '52'][place % 4]));
  });
  const [times, prices] = broken(timestamp, price);
  const until = times.findIndex(time => time > origin);
  const cut = until < 0 ? times.length : until;
  data.push(line('price', times.slice(0, cut), prices.slice(0, cut), {color: look.ink}));
  let came = [times.slice(cut), prices.slice(cut)];
  if (earlier) {
    const known = steps.filter(step => step.actual !== null);
    came = [known.map(step => step.time_ms), known.map(step => step.actual)];
  }
  if (start !== null) {
    data.push(line(STAYS, [origin, end], [start, start],
                   {color: look.persistence, dash: 'dot', width: 2}));
  }
  const level = levels.includes(80) ? 80 : levels[0];
  const form = exact(start ?? steps[0].forecast);
  const ofLevel = ([lower, upper]) => lower === null ? NONE : `${amount(lower)} to ${amount(upper)}`;
  data.push(line('forecast', x, [start, ...steps.map(step => step.forecast)],
                 {color: look.forecast, dash: 'dash', width: 2.2}, {
    customdata: [[start, start], ...steps.map(step => ends(step, level))].map(ofLevel),
    hovertemplate: `%{y:${form}}; ${level} %: %{customdata}`,
  }));
  if (came[0].length) {
    data.push(line('what came', ...came, {color: look.better, width: 2.4},
                   {mode: came[0].length > 1 ? 'lines' : 'markers'}));
  }
  const last = steps[steps.length - 1];
  const whole = {from: -Infinity, until: Infinity};
  return {
    data,
    seen: `Forecast made at ${moment(origin)}. After ${steps.length} steps, `
      + `at ${moment(end)}: ${inUnit(unit)(last.forecast)}. `
      + (came[0].length ? `Prices that came since: ${came[0].length}.` : 'No price has come since.'),
    layout: layout(scene, {
      xaxis: {type: 'date', hoverformat: '%Y-%m-%d %H:%M UTC'},
      yaxis: {range: fit(data, whole).range, tickformat: MONEY,
              title: {text: escaped(unit), standoff: 8}},
    }),
  };
}

function testFigure(scene) {
  const {page: {test, unit}, look} = scene;
  const names = ['actual', 'forecast', 'persistence', 'lower', 'upper'];
  const [x, actual, forecast, stays, lower, upper] =
    broken(test.timestamp, ...names.map(name => test[name]));
  const data = [
    band(`${percent(test.level, 0)} interval`, x, lower, upper, look.forecast, '33'),
    line(STAYS, x, stays, {color: look.persistence}),
    line('actual', x, actual, {color: look.ink}),
    line('forecast', x, forecast, {color: look.forecast, dash: 'dash'}),
  ];
  const {span, view} = framed(scene, x);
  const {low, high, range} = fit(data, view);
  return {
    data, span,
    seen: low === null ? '' : `From ${amount(low)} to ${amount(high)} ${unit}.`,
    layout: layout(scene, overTime(view, {
      yaxis: {range, tickformat: MONEY, title: {text: escaped(unit), standoff: 8}},
    })),
  };
}

function savedFigure(scene) {
  const {page: {test}, look} = scene;
  const [x, saved] = broken(test.timestamp, test.saved);
  const data = [
    line(STAYS, [x[0], x[x.length - 1]], [0, 0], {color: look.persistence, width: 2}, guide),
    line('model', x, saved, {color: look.forecast}),
  ];
  const {span, view} = framed(scene, x);
  const {low, range} = fit(data, view);
  const end = saved[saved.length - 1];
  return {
    data, span,
    seen: low === null ? '' : 'At the end of the test part the model has '
      + `${end < 0 ? 'lost' : 'saved'} ${amount(Math.abs(end))} squared log return.`,
    layout: layout(scene, overTime(view, {yaxis: {range, exponentformat: 'e'}})),
  };
}
