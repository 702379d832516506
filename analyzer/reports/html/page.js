"use strict";
/* Draws the cells of the memory map from the data in the page, and links findings to them.
   Captured text enters the page as text nodes and attributes only, never as markup. */
(() => {
  const byId = (id) => document.getElementById(id);
  const node = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role") made.setAttribute(key, value);
      else made[key] = value;
    }
    made.append(...children);
    return made;
  };
  const shape = (name, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const hex = (value) => "0x" + value.toString(16);
  const count = (value) => value.toLocaleString("en-US");
  const say = (text) => {
    byId("said").textContent = text;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { byId("said").textContent = ""; }, 2500);
  };

  /* Copying: the clipboard where the browser has one, else a selection. */
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = node("textarea", { value: text, "aria-hidden": "true" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      byId("copy").focus();
    }
    say("Copied");
  };
  byId("copy")?.addEventListener("click", () => copy(byId("block").textContent));

  for (const box of document.querySelectorAll(".tall")) {
    const harm = box.querySelector(".harm");
    if (harm) box.scrollTop = harm.offsetTop - box.clientHeight / 2;
  }

  /* On paper nothing can be opened: everything short is printed open. */
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((one) => one.querySelectorAll("tr").length < 200);
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

  const unfold = () => {
    const target = byId(location.hash.slice(1));
    if (target?.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();

  if (!byId("data")) return;
  const data = JSON.parse(byId("data").textContent);
  const word = (index) => data.words[index];
  const windows = data.windows.map(([valid, structs, structsText, linear, linearText]) => ({
    valid, structs: word(structs), structsText: word(structsText), linear: word(linear), linearText: word(linearText),
  }));
  const per = data.section / data.subsection;
  const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
  const patterns = data.patterns.map(([whole, valid, ...runs]) => ({ whole: windows[whole], valid, runs: pairs(runs) }));
  const alike = data.alike.map(([group, state, origin, memory, zones, pattern]) => ({
    group, state: word(state), origin: word(origin), memory: word(memory), zones: word(zones), pattern: patterns[pattern],
  }));
  const runs = [];
  for (let i = 0, at = 0; i < data.runs.length; i += 3) {
    const first = at + data.runs[i];
    at = first + data.runs[i + 1];
    runs.push({ first, end: at, kind: alike[data.runs[i + 2]] });
  }
  const marks = data.marks.map(([severity, exact, gaps]) => {
    const ranges = [];
    for (let i = 0, at = 0; i < gaps.length; i += 2) {
      const first = at + gaps[i];
      at = first + gaps[i + 1];
      ranges.push([first, at]);
    }
    return { severity, exact, ranges };
  });
  const LEVELS = ["info", "low", "medium", "high", "critical"];
  const LETTERS = { critical: "C", high: "H", medium: "M", low: "L", info: "i" };

  /* First element of a sorted list for which the test holds. */
  const find = (list, test) => {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (test(list[middle])) high = middle; else low = middle + 1;
    }
    return low;
  };
  const touches = (mark, first, end) => {
    const at = find(mark.ranges, (range) => range[1] > first);
    return at < mark.ranges.length && mark.ranges[at][0] < end;
  };
  /* Findings, by number of their mark, on a span of subsections. */
  const found = (first, end) => marks.flatMap((mark, number) => (touches(mark, first, end) ? [number] : []));
  const worst = (numbers) => LEVELS[Math.max(-1, ...numbers.map((number) => LEVELS.indexOf(marks[number].severity)))];
  const finders = new Map([...document.querySelectorAll("#finders button")].map((one) => [Number(one.dataset.mark), one]));
  const runAt = (section) => runs[find(runs, (run) => run.end > section)];

  /* Address arithmetic: bytes and virtual addresses need more than 53 bits. */
  const linearVa = (pfn) => data.linear && data.startPfn !== null
    ? BigInt.asUintN(64, BigInt(data.linear) + BigInt(pfn - data.startPfn) * BigInt(data.page)) : null;
  const structVa = (pfn) => data.vmemmap && data.structPage && data.startPfn !== null
    ? BigInt.asUintN(64, BigInt(data.vmemmap) + BigInt(pfn - data.startPfn) * BigInt(data.structPage)) : null;
  const span = (place, first, end) => {
    const low = place(first), high = place(end);
    return low === null ? "not known" : `${hex(low)}–${hex(high)}`;
  };
  const bytes = (pfn) => BigInt(pfn) * BigInt(data.page);

  const describe = (section) => {
    const kind = runAt(section).kind, look = kind.pattern.whole;
    const here = found(section * per, (section + 1) * per);
    const codes = [...new Set(here.map((number) => finders.get(number)?.querySelector("b").textContent))].join(", ");
    return `section ${section}: ${kind.memory}, ${kind.state}, struct pages ${look.structsText}, ` +
      `linear map ${look.linearText}${codes ? `, findings ${codes}` : ""}`;
  };

  /* Cells. */
  const WIDTH = 72;
  const miniature = (pattern) => {
    const picture = shape("svg", { width: WIDTH, height: 28, "aria-hidden": "true" });
    const pieces = pattern.runs.length ? pattern.runs : null;
    let at = 0;
    for (const [size, index] of pieces ?? [[per, -1]]) {
      const look = index < 0 ? pattern.whole : windows[index];
      const x = at * WIDTH / per, width = size * WIDTH / per;
      picture.append(
        shape("rect", { class: `f-${look.structs}`, x, y: 0, width, height: 14 }),
        shape("rect", { class: `f-${look.linear}`, x, y: 14, width, height: 14 }));
      at += size;
    }
    return picture;
  };
  const cell = (section, big) => {
    const { pattern } = runAt(section).kind, look = pattern.whole;
    const here = found(section * per, (section + 1) * per);
    const made = node("button", {
      type: "button", className: `cell s-${look.structs} l-${look.linear}`, tabIndex: -1,
      "aria-expanded": "false", "aria-label": describe(section),
    });
    made.dataset.section = section;
    if (big) made.append(node("b", { textContent: section }), miniature(pattern));
    if (here.length) made.append(node("i", { className: `i-${worst(here)}`, textContent: LETTERS[worst(here)] }));
    if (lit !== null && touches(marks[lit], section * per, (section + 1) * per)) made.classList.add("lit");
    return made;
  };
  const grid = (sections, big, name) => {
    const made = node("div", { className: `grid ${big ? "big" : "small"}`, role: "group", "aria-label": name });
    made.append(...sections.map((section) => cell(section, big)));
    if (made.firstChild) made.firstChild.tabIndex = 0;
    made.addEventListener("click", (event) => {
      const chosen = event.target.closest(".cell");
      if (chosen) toggle(chosen);
    });
    made.addEventListener("keydown", (event) => {
      if (event.target.classList.contains("cell")) arrows(event, [...made.children].filter((one) => one.classList.contains("cell")));
    });
    return made;
  };

  /* Arrow keys, Home and End in a grid of buttons, of which one is in the tab order. */
  const arrows = (event, all) => {
    const at = all.indexOf(event.target);
    const vertical = (step) => {
      const box = event.target.getBoundingClientRect(), x = box.left + box.width / 2;
      const row = step * (box.top + 1);
      let best = -1, distance = Infinity;
      all.forEach((one, index) => {
        const other = one.getBoundingClientRect(), below = step * other.top - row;
        const away = below * 1000 + Math.abs(other.left + other.width / 2 - x);
        if (step * (other.top - box.top) > 2 && away < distance) { best = index; distance = away; }
      });
      return best < 0 ? at : best;
    };
    const moves = {
      ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => all.length - 1,
      ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    focusOn(all[Math.min(Math.max(move(), 0), all.length - 1)], all);
  };
  const focusOn = (chosen, all) => {
    for (const one of all) one.tabIndex = -1;
    chosen.tabIndex = 0;
    chosen.focus();
  };

  /* The panel of an open section. */
  let panel = null;
  const close = (back) => {
    if (!panel) return;
    panel.owner.setAttribute("aria-expanded", "false");
    panel.element.remove();
    if (back) panel.owner.focus();
    panel = null;
  };
  const toggle = (button) => {
    const again = panel?.owner === button;
    close(false);
    if (again) return;
    const element = details(Number(button.dataset.section));
    button.after(element);
    button.setAttribute("aria-expanded", "true");
    panel = { owner: button, element };
    for (const one of button.parentElement.querySelectorAll(".cell")) one.tabIndex = one === button ? 0 : -1;
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && panel) { event.preventDefault(); close(true); }
  });
  const links = (numbers) => {
    const made = node("span");
    for (const number of numbers) {
      const code = finders.get(number)?.querySelector("b").textContent ?? "finding";
      const target = document.querySelector(`#findings [data-mark="${number}"]`)?.closest(".hit");
      made.append(target ? node("a", { href: `#${target.id}`, textContent: code }) : code, " ");
    }
    return numbers.length ? made : "none";
  };
  const list = (rows) => node("dl", {}, ...rows.flatMap(([name, value]) =>
    [node("dt", { textContent: name }), node("dd", { className: "mono" }, value)]));
  const owners = (first, end) => data.owners.filter((one) => one[0] < end && one[1] > first).map((one) => one[2]).join(", ");

  const units = [...document.querySelectorAll("#whatif tr[data-first]")];
  const whatif = (first, end) => {
    const mine = units.filter((one) => Number(one.dataset.first) < end && Number(one.dataset.end) > first);
    const made = node("span");
    for (const one of mine.slice(0, 8)) made.append(node("a", { href: `#${one.id}`, textContent: one.dataset.says }), " ");
    return mine.length ? made : "nothing of it can leave, or its origin is not known";
  };

  const details = (section) => {
    const { kind } = runAt(section), { pattern } = kind;
    const first = section * data.section, end = first + data.section;
    const block = data.block ? `memory${bytes(first) / BigInt(data.block)}` : null;
    const closing = node("button", { type: "button", textContent: "Close" });
    closing.addEventListener("click", () => close(true));
    const title = node("h4", {}, `Section ${section}`, node("span", { className: "dim", textContent: `${pattern.valid} of ${per} subsections valid` }), closing);
    const facts = list([
      ["PFNs", `${hex(first)}–${hex(end)}`],
      ["physical", `${hex(bytes(first))}–${hex(bytes(end))}`],
      ["linear map", span(linearVa, first, end)],
      ["struct pages", span(structVa, first, end)],
      ["block", kind.state === "no memory block" ? kind.state : `${block ?? "not known"}, ${kind.state}${kind.zones ? `, ${kind.zones}` : ""}`],
      ["group", word(kind.group)],
      ["memory", kind.memory + (owners(first, end) ? `: ${owners(first, end)}` : "")],
      ["origin", kind.origin],
      ["what if it goes", whatif(first, end)],
      ["findings", links(found(section * per, (section + 1) * per))],
    ]);
    const right = node("div", {}, ...(pattern.runs.length ? subsections(section, pattern) : [node("p", {
      textContent: "The page had no room for this section's subsections: ptaudit sections lists them." })]));
    return node("div", { className: "panel", role: "group", "aria-label": `Section ${section}` }, title, facts, right);
  };
  const subsections = (section, pattern) => {
    const one = node("div", { className: "one mono", role: "status", "aria-live": "polite" },
      node("span", { className: "dim", textContent: "Choose a subsection for its addresses." }));
    const board = node("div", { className: "subs", role: "group", "aria-label": `Subsections of section ${section}` });
    const rows = [];
    let at = 0;
    for (const [size, index] of pattern.runs) {
      const look = windows[index];
      rows.push([at, at + size, look]);
      for (let i = at; i < at + size; i += 1) board.append(subcell(section, i, look, one, board));
      at += size;
    }
    board.firstChild.tabIndex = 0;
    board.addEventListener("keydown", (event) => {
      if (event.target.classList.contains("sub")) arrows(event, [...board.children]);
    });
    const head = node("tr", {}, ...["Subsections", "PFNs", "Valid", "Struct pages", "Linear map"].map((text) => node("th", { textContent: text })));
    const table = node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows.slice(0, 64).map(([low, high, look]) => {
      const start = section * data.section;
      const texts = [`${hex(start + low * data.subsection)}–${hex(start + high * data.subsection)}`,
        ["no", "in part", "yes"][look.valid], look.structsText, look.linearText];
      return node("tr", {}, node("th", { scope: "row", textContent: high - low > 1 ? `${low}–${high - 1}` : low }),
        ...texts.map((text, column) => node("td", { textContent: text, className: column ? "" : "mono" })));
    })));
    return [board, one, table];
  };
  const subcell = (section, index, look, one, board) => {
    const start = section * data.section + index * data.subsection, end = start + data.subsection;
    const here = found(section * per + index, section * per + index + 1);
    const made = node("button", {
      type: "button", tabIndex: -1, "aria-pressed": "false",
      className: `sub s-${look.structs} l-${look.linear}${look.valid ? "" : " off"}`,
      title: `subsection ${index}`,
      "aria-label": `subsection ${index}: ${look.valid ? "valid" : "not valid"}, struct pages ${look.structsText}, linear map ${look.linearText}`,
    });
    made.dataset.subsection = section * per + index;
    if (lit !== null && touches(marks[lit], section * per + index, section * per + index + 1)) made.classList.add("lit");
    made.addEventListener("click", () => {
      for (const other of board.children) other.setAttribute("aria-pressed", String(other === made));
      focusOn(made, board.children);
      one.replaceChildren(
        node("b", { textContent: `Subsection ${index}` }),
        ` PFN ${hex(start)}–${hex(end)}, ${["not valid", "valid in part", "valid"][look.valid]}` +
        `${owners(start, end) ? `, ${owners(start, end)}` : ""}. Linear map ${span(linearVa, start, end)}: ${look.linearText}. ` +
        `Struct pages ${span(structVa, start, end)}: ${look.structsText}. Findings: `, links(here));
    });
    return made;
  };

  /* Rows that fold many sections. */
  const inRow = (row) => {
    const pieces = [];
    for (let i = find(runs, (run) => run.end > row.first); i < runs.length && runs[i].first <= row.last; i += 1) {
      if (runs[i].kind.group === row.group) {
        pieces.push([Math.max(runs[i].first, row.first), Math.min(runs[i].end, row.last + 1), runs[i].kind]);
      }
    }
    return pieces;
  };
  const strip = (row, pieces) => {
    const scale = 1000 / (row.last + 1 - row.first);
    const picture = shape("svg", { viewBox: "0 0 1000 22", preserveAspectRatio: "none", "aria-hidden": "true" });
    const paths = new Map();
    const add = (look, first, end, y, height) => {
      const width = Math.max((end - first) * scale, 0.5).toFixed(2);
      paths.set(look, `${paths.get(look) ?? ""}M${((first - row.first) * scale).toFixed(2)} ${y}h${width}v${height}h-${width}z`);
    };
    for (const [first, end, kind] of pieces) {
      add(`f-${kind.pattern.whole.structs}`, first, end, 4, 9);
      add(`f-${kind.pattern.whole.linear}`, first, end, 13, 9);
    }
    for (const level of LEVELS) {
      for (const mark of marks.filter((one) => one.severity === level)) {
        for (let i = find(mark.ranges, (range) => range[1] > row.first * per); i < mark.ranges.length && mark.ranges[i][0] < (row.last + 1) * per; i += 1) {
          add(`v-${level}`, Math.max(mark.ranges[i][0] / per, row.first), Math.min(mark.ranges[i][1] / per, row.last + 1), 0, 4);
        }
      }
    }
    for (const [look, d] of paths) picture.append(shape("path", { class: look, d }));
    return picture;
  };
  const CELLS = 2048;
  const draw = (row, inner, from) => {
    const sections = [];
    let left = from;
    for (const [first, end] of inRow(row)) {
      for (let section = first + left; section < end && sections.length < CELLS; section += 1) sections.push(section);
      left = Math.max(0, left - (end - first));
      if (sections.length === CELLS) break;
    }
    inner.append(grid(sections, row.count <= 256, `Sections ${sections[0]} to ${sections.at(-1)}`));
    const rest = row.count - from - sections.length;
    if (rest > 0) {
      const more = node("button", { type: "button", className: "more", textContent: `Draw the next of ${count(rest)} sections` });
      more.addEventListener("click", () => {
        more.remove();
        draw(row, inner, from + sections.length);
        inner.lastElementChild.querySelector?.(".cell")?.focus();
      });
      inner.append(more);
    }
  };
  const open = (row, wanted) => {
    if (wanted === (row.inner !== null)) return;
    row.button.setAttribute("aria-expanded", String(wanted));
    if (!wanted) {
      if (row.inner.contains(panel?.owner)) close(false);
      row.inner.remove();
      row.inner = null;
      return;
    }
    row.inner = node("div", { className: "inner" });
    row.button.after(row.inner);
    draw(row, row.inner, 0);
  };
  const foldedRow = (row) => {
    const numbers = row.first === row.last ? `${row.first}` : `${row.first}–${row.last}`;
    const here = found(row.first * per, (row.last + 1) * per), level = worst(here);
    const same = row.kind ? `, alike: ${row.kind.memory}, ${row.kind.state}` : "";
    row.button = node("button", { type: "button", className: "fold", "aria-expanded": "false" },
      node("span", {}, level ? node("i", { className: `badge is-${level}`, textContent: LETTERS[level] }) : "",
        node("code", { textContent: hex(bytes(row.first * data.section)) }),
        ` ${numbers} (${count(row.count)})${same}`), strip(row, inRow(row)));
    row.button.addEventListener("click", () => open(row, row.inner === null));
    return row.button;
  };
  const rows = data.rows.map(([group, first, last, size, kind]) => ({ group, first, last, count: size, kind: alike[kind], inner: null, button: null }));

  /* A finding lit up. */
  let lit = null;
  const place = (section) => {
    const piece = data.axis.find((one) => section <= one[1]) ?? data.axis.at(-1);
    return piece[2] + Math.max(0, section - piece[0]) * (piece[3] - piece[2]) / (piece[1] - piece[0]);
  };
  const outline = () => {
    const layer = byId("strips-light");
    layer.replaceChildren();
    if (lit === null) return;
    const path = marks[lit].ranges.slice(0, 2000).map(([low, high]) => {
      const x = place(low / per), width = Math.max(place(high / per) - x, 1.5);
      return `M${x} 11h${width}v59h-${width}z`;
    }).join("");
    layer.append(shape("path", { class: "a-light", d: path }), shape("path", { class: "a-lightedge", d: path }));
  };
  const light = (number) => {
    lit = number;
    for (const [mark, button] of finders) button.setAttribute("aria-pressed", String(mark === number));
    for (const one of document.querySelectorAll(".cell, .sub")) {
      const low = one.dataset.section ? one.dataset.section * per : Number(one.dataset.subsection);
      one.classList.toggle("lit", number !== null && touches(marks[number], low, low + (one.dataset.section ? per : 1)));
    }
    for (const row of rows.filter((one) => one.button)) {
      row.button.classList.toggle("lit", number !== null && touches(marks[number], row.first * per, (row.last + 1) * per));
    }
    outline();
  };
  const firstCell = (number) => {
    const section = Math.floor(marks[number].ranges[0][0] / per);
    const row = rows.find((one) => one.first <= section && section <= one.last && runAt(section).kind.group === one.group);
    if (row?.button) open(row, true);
    return document.querySelector(`.cell[data-section="${section}"]`);
  };
  const show = (number) => {
    light(number);
    const first = firstCell(number);
    byId("map").scrollIntoView();
    if (!first) return;
    if (panel?.owner !== first) toggle(first);
    focusOn(first, first.parentElement.querySelectorAll(".cell"));
  };
  for (const [number, button] of finders) {
    button.addEventListener("click", () => {
      light(lit === number ? null : number);
      if (lit !== null) firstCell(number)?.scrollIntoView({ block: "nearest" });
    });
  }
  for (const button of document.querySelectorAll("button.show")) {
    button.addEventListener("click", () => show(Number(button.dataset.mark)));
  }

  /* The page as it opens: every row, and the worst finding's first section. */
  const groups = new Map();
  for (const row of rows) groups.set(row.group, [...(groups.get(row.group) ?? []), row]);
  for (const [group, mine] of groups) {
    const total = mine.reduce((sum, row) => sum + row.count, 0);
    const home = node("div", { className: "group" },
      node("h3", {}, word(group), node("span", { className: "dim", textContent: `, ${count(total)} section${total === 1 ? "" : "s"}` })));
    if (data.open) {
      draw(mine[0], home, 0);
    } else {
      home.append(node("div", { className: "rows" }, ...mine.map(foldedRow)));
    }
    byId("cells").append(home);
  }
  if (data.open && marks.length && ["critical", "high"].includes(marks[0].severity)) {
    light(0);
    const first = firstCell(0);
    if (first) toggle(first);
  }
})();
