// Draws every figure in the page's colours, and again when the reader turns light or dark. The
// cloud button, on by default, would send the chart and its numbers to Plotly's server.
const dark = matchMedia('(prefers-color-scheme: dark)');
function template() {
  const style = getComputedStyle(document.documentElement);
  const read = name => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: read('--line'), linecolor: read('--line'), zerolinecolor: read('--line'),
    tickcolor: read('--line'), automargin: true, title: {standoff: 10},
    rangeselector: {
      bgcolor: read('--ground'), activecolor: read('--line'), bordercolor: read('--line'),
      borderwidth: 1, font: {size: 12},
    },
  };
  return {layout: {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', colorway: [read('--ink')],
    font: {color: read('--ink'), family: 'system-ui, DejaVu Sans, sans-serif', size: 12},
    hoverlabel: {bgcolor: read('--paper'), bordercolor: read('--line'),
                 font: {color: read('--ink')}},
    modebar: {bgcolor: 'rgba(0,0,0,0)', color: read('--quiet'), activecolor: read('--ink')},
    legend: {bgcolor: 'rgba(0,0,0,0)'}, xaxis: axis, yaxis: axis,
  }};
}
function draw() {
  const look = template();
  for (const chart of document.querySelectorAll('.chart')) {
    const figure = JSON.parse(document.getElementById(chart.id + '-data').textContent);
    figure.layout.template = look;
    Plotly.react(chart, figure.data, figure.layout,
                 {responsive: true, displaylogo: false, showTips: false,
                  showSendToCloud: false, plotlyServerURL: '',
                  modeBarButtonsToRemove: ['select2d', 'lasso2d']});
  }
}
dark.addEventListener('change', draw);
draw();
