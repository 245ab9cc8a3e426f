// The figures of what judges the model: skill, coverage, evidence, training; and the list of all.

// The skill of each model by step. Models far below persistence are named, not drawn.
function skillFigure(scene) {
  const {page: {backtest: {models}}, look} = scene;
  const names = Object.keys(models).filter(name => name !== 'persistence')
    .sort((a, b) => (b === 'network') - (a === 'network'));
  const of = name => models[name].skill.filter(value => value !== null);
  const floor = -Math.max(0.05, 4 * Math.max(...of(names[0]).map(Math.abs)));
  const drawn = names.filter(name => Math.min(...of(name)) >= floor);
  const off = names.filter(name => !drawn.includes(name));
  const steps = models[names[0]].skill.map((_, at) => at + 1);
  const dashes = ['solid', 'dash', 'dot'];
  const many = look.colours.length;
  const data = drawn.map((name, place) => line(worded(name), steps, models[name].skill,
    place ? {color: look.colours[(place - 1) % many],
             dash: dashes[Math.floor((place - 1) / many) % 3]}
      : {color: look.ink, width: 2.8},
    {mode: steps.length > 1 ? 'lines' : 'markers', hovertemplate: '%{y:+.4f}'}));
  data.push(line(STAYS, [steps[0], steps[steps.length - 1]], [0, 0],
                 {color: look.persistence, width: 2, dash: 'dot'}, guide));
  const worst = off.map(name => `${worded(name)} (${Math.min(...of(name)).toFixed(2)})`);
  return {
    data,
    seen: 'Skill is 1 − MSE / MSE of persistence: above 0 is better than “the price stays as it '
      + 'is”.' + (off.length ? ` Off the scale, with the worst skill: ${worst.join(', ')}.` : ''),
    layout: layout(scene, {
      xaxis: {title: {text: 'steps ahead', standoff: 8}, tickformat: 'd',
              dtick: steps.length > 30 ? undefined : steps.length > 8 ? 3 : 1},
      yaxis: {tickformat: '.3~f', title: {text: 'skill', standoff: 8}},
    }),
  };
}

const REGIMES = [['calm', 'circle'], ['middle', 'square'], ['wild', 'triangle-up']];

// How far the intervals' coverage is from their nominal level, by regime of the volatility.
function coverageFigure(scene) {
  const {page: {backtest: {coverage}}, look, state} = scene;
  const centre = coverage.around[state.centre];
  const x = coverage.levels.map(level => `${+(100 * level).toPrecision(6)} %`);
  const points = shares => shares.map((share, at) =>
    share === null ? null : 100 * (share - coverage.levels[at]));
  const misses = coverage.oracle.terciles['95'];
  const [less, chance] = [-100, 100].map(factor =>
    misses.map(miss => miss === null ? null : factor * miss));
  const data = [band('chance, 95 % of the time', x, less, chance, look.quiet, '33')];
  centre.terciles.slice(0, REGIMES.length).forEach((shares, place) => {
    const [name, symbol] = REGIMES[place];
    data.push(line(name, x, points(shares), {color: look.colours[place]},
                   {mode: 'lines+markers', marker: {symbol, size: 8}}));
  });
  data.push(line('all', x, points(centre.overall), {color: look.ink, width: 2.4},
                 {mode: 'lines+markers', marker: {symbol: 'diamond', size: 8}}));
  const held = centre.overall.map((share, at) => `${x[at]} held ${percent(share, 1)}`);
  return {
    data,
    seen: centre.overall.every(share => share === null)
      ? 'No shares: the series is too short for intervals.'
      : `Intervals of ${held.join(', ')} of the outcomes.`,
    layout: layout(scene, {
      xaxis: {type: 'category', title: {text: 'nominal level', standoff: 8}},
      yaxis: {title: {text: 'observed less nominal, points', standoff: 8}, tickformat: '.2~f',
              zeroline: true, zerolinewidth: 2},
    }),
  };
}

const decade = known(value => Math.abs(value) <= 4 ? String(+(10 ** value).toPrecision(3))
  : `1e${Math.round(value)}`);

// The e-values of the network's forecasts of step 1 over time, in decades: an e-value can be too
// small for a number.
function evidenceFigure(scene) {
  const {page: {backtest: {evidence, needed}}, look} = scene;
  const looks = {information: look.forecast, accuracy: look.warning};
  const data = Object.entries(looks).map(([name, color]) => {
    const [x, y] = broken(evidence.timestamp, evidence[name]);
    return line(`e-${name}`, x, y, {color},
                {text: y.map(value => value === null ? '' : decade(value)),
                 hovertemplate: '%{text}'});
  });
  const {span, view} = framed(scene, evidence.timestamp);
  const goal = Math.log10(needed);
  data.push(line(`${needed}: proven, with an error rate of 5 %`, span, [goal, goal],
                 {color: look.ink, dash: 'dash'}, guide));
  const bounds = fit(data.slice(0, 2), view);
  const low = Math.min(bounds.low ?? 0, 0), high = Math.max(bounds.high ?? 0, goal);
  const ticks = [];
  const every = Math.max(1, Math.ceil((high - low) / 6));
  for (let at = Math.ceil(low / every) * every; at <= high; at += every) ticks.push(at);
  const ends = Object.keys(looks).map(name => {
    const values = evidence[name].filter(value => value !== null);
    return `e-${name} is ${decade(values[values.length - 1])} at the end`;
  });
  return {
    data, span, seen: `${ends.join('; ')}; ${needed} is needed.`,
    layout: layout(scene, overTime(view, {
      yaxis: {range: [low - 0.06 * (high - low), high + 0.12 * (high - low)], tickvals: ticks,
              ticktext: ticks.map(decade), title: {text: 'e-value, log scale', standoff: 8}},
    })),
  };
}

function trainingFigure(scene) {
  const {page: {training}, look} = scene;
  const {epoch, loss, val_loss: validation, best} = training;
  const dots = {mode: 'lines+markers'};
  const data = [
    line('training', epoch, loss, {color: look.ink}, dots),
    line('validation', epoch, validation, {color: look.forecast, dash: 'dash'}, dots),
  ];
  const at = epoch.indexOf(best);
  if (at >= 0) {
    data.push(line(`best epoch (${best})`, [best], [validation[at]], {}, {
      mode: 'markers', ...guide,
      marker: {color: look.better, size: 14, symbol: 'circle-open', line: {width: 3}},
    }));
  }
  return {
    data,
    seen: `${epoch.length} epochs`
      + (at < 0 ? '.' : `; the best validation loss is ${amount(validation[at])}, epoch ${best}.`),
    layout: layout(scene, {
      xaxis: {title: {text: 'epoch', standoff: 8}, tickformat: 'd',
              dtick: epoch.length > 12 ? undefined : 1},
      yaxis: {title: {text: 'loss (MSE, scaled target)', standoff: 8}},
    }),
  };
}

const FIGURES = {
  price: marketFigure('price'), volatility: marketFigure('volatility'), sigma: sigmaFigure,
  momentum: marketFigure('momentum'), drawdown: marketFigure('drawdown'), fan: fanFigure,
  test: testFigure, saved: savedFigure, skill: skillFigure, coverage: coverageFigure,
  evidence: evidenceFigure, training: trainingFigure,
};
