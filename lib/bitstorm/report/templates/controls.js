// The controls that draw nothing themselves: the table with its CSV file, folds to open, the
// range, what the address keeps, the age of the newest price, the look for a newer page.

const element = id => document.getElementById(id);

// RFC 4180. Numbers keep every digit. A text that a spreadsheet would run as a formula gets an
// apostrophe.
function csv(rows) {
  const cell = value => {
    const text = value === null ? '' : String(value);
    const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return rows.map(row => `${row.map(cell).join(',')}\r\n`).join('');
}

function save(text, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv'}));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

// Pages through the rows; the newest ones come first.
function startTable({columns, rows}) {
  const body = element('table').tBodies[0];
  const size = body.rows.length;
  const text = value => value === null ? ''
    : typeof value === 'number' ? amount(value) : String(value);
  let first = 0;
  function fill(start) {
    first = Math.max(0, Math.min(start, rows.length - 1));
    const shown = rows.slice(first, first + size);
    body.replaceChildren(...shown.map(row => {
      const line = document.createElement('tr');
      line.append(...row.map((value, at) => {
        const one = document.createElement(at ? 'td' : 'th');
        if (!at) one.scope = 'row';
        one.textContent = text(value);
        return one;
      }));
      return line;
    }));
    element('table-place').textContent =
      `Rows ${first + 1} to ${first + shown.length} of ${rows.length}, the newest first`;
    element('newer').disabled = first === 0;
    element('older').disabled = first + size >= rows.length;
  }
  element('newer').addEventListener('click', () => fill(first - size));
  element('older').addEventListener('click', () => fill(first + size));
  element('csv').addEventListener('click', () => save(csv([columns, ...rows]), 'bitstorm.csv'));
  fill(0);
}

// Without JavaScript all details are open.
function startFolds() {
  for (const button of document.querySelectorAll('button[aria-controls^="fold-"]')) {
    const detail = element(button.getAttribute('aria-controls'));
    const open = yes => {
      detail.hidden = !yes;
      button.setAttribute('aria-expanded', yes);
    };
    open(false);
    button.addEventListener('click', () => open(detail.hidden));
  }
}

// From and until of a range that ends with the newest value.
function lastRange(name, series) {
  const [, count, unit] = /^(\d+)([dM])$/.exec(name) || [];
  const start = new Date(series.last);
  if (unit === 'd') start.setUTCDate(start.getUTCDate() - count);
  if (unit === 'M') start.setUTCMonth(start.getUTCMonth() - count);
  return {from: unit ? Math.max(series.first, +start) : series.first, until: series.last, range: name};
}

// The address keeps the range and the switches, so that they outlive a reload. A file's page has
// no other memory that all browsers give it.
function readAddress() {
  return new URLSearchParams(location.hash.includes('=') ? location.hash.slice(1) : '');
}

function writeAddress(state, standard) {
  const kept = new URLSearchParams();
  if (!state.range) {
    kept.set('from', Math.round(state.from));
    kept.set('until', Math.round(state.until));
  } else if (state.range !== standard.range) {
    kept.set('range', state.range);
  }
  const shown = [...state.shown].sort().join(' ');
  if (shown !== [...standard.shown].sort().join(' ')) kept.set('show', shown);
  for (const name of ['fan', 'centre', 'theme']) {
    if (state[name] !== standard[name]) kept.set(name, state[name]);
  }
  history.replaceState(null, '', kept.size ? `#${kept}` : location.pathname + location.search);
}

function ageInWords(milliseconds) {
  const minutes = Math.max(0, Math.round(milliseconds / 60000));
  const [count, unit] = minutes < 120 ? [minutes, 'minute']
    : minutes < 2880 ? [Math.round(minutes / 60), 'hour'] : [Math.round(minutes / 1440), 'day'];
  return `${count.toLocaleString('en-US')} ${unit}${count === 1 ? '' : 's'}`;
}

// A page that stays open says how old its newest price is now.
function startAge(time) {
  const tell = () => {
    element('age').textContent = `${ageInWords(Date.now() - time)} old`;
  };
  tell();
  setInterval(tell, 60000);
}

// The server answers 304 as long as it has nothing newer than this page.
function startRefresh(made, reload) {
  const status = element('refresh');
  setInterval(async () => {
    try {
      const answer = await fetch(location.pathname, {
        cache: 'no-store', headers: {'If-None-Match': `"${made}"`},
      });
      if (answer.status === 200) reload();
      status.textContent = '';
    } catch {
      status.textContent = `The server does not answer (${moment(Date.now())}).`;
    }
  }, 30000);
}
