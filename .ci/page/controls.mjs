// Sorting, filtering and hiding columns by mouse and by keys, and whether keys reach everything.
import { fold } from "./layout.mjs";

// a walk by Tab over every place of a page of a thousand tables would take an hour
const MOST_STOPS = 250;

/** Tab goes to everything that can be used, in order, and shows where it is. */
export async function keyboard(page, state, faults) {
  let walked = 0;
  for (const opened of [false, true]) {
    await fold(page, opened);
    const most = await page.evaluate((most) => {
      // from the top, wherever the last walk ended
      document.body.tabIndex = -1;
      document.body.focus();
      document.body.removeAttribute("tabindex");
      const can = "a[href], button, input, select, textarea, summary, [tabindex]";
      window.places = [...document.querySelectorAll(can)].filter((place) => place.tabIndex >= 0 && place.checkVisibility({ visibilityProperty: true }));
      return Math.min(window.places.length, most);
    }, MOST_STOPS);
    for (let i = 0; i < most; i += 1) {
      await page.keyboard.press("Tab");
      const wrong = await page.evaluate((i) => {
        const name = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""} "${element.textContent.trim().slice(0, 30)}"`;
        const at = document.activeElement;
        if (at !== window.places[i]) return `Tab came to ${name(at)}, not to ${name(window.places[i])}`;
        const style = getComputedStyle(at);
        if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 1) return `${name(at)} does not show that it has the focus`;
        for (let up = at; up; up = up.parentElement) {
          if (getComputedStyle(up).clipPath !== "none") return `${name(at)} has the focus and cannot be seen`;
        }
        const box = at.getBoundingClientRect();
        const seen = box.width > 1 && box.height > 1 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
        return seen ? "" : `${name(at)} has the focus outside the window`;
      }, i);
      if (wrong) {
        faults.add("keyboard", wrong, `${state}, detail ${opened ? "open" : "closed"}`);
        if (wrong.startsWith("Tab")) break;
      }
      walked += 1;
    }
  }
  return `${walked} stops of Tab at ${state}`;
}

/** Functions that the page gets, to look at a table with. */
function eyes() {
  const absent = Symbol("no number");
  window.eyes = {
    table: (id) => document.getElementById(id).querySelector("table"),
    shown: (id) => [...window.eyes.table(id).tBodies[0].rows].filter((row) => row.checkVisibility()).length,
    texts: (id) => [...window.eyes.table(id).tBodies[0].rows].map((row) => row.textContent),
    said: (id, column) => window.eyes.table(id).tHead.rows[0].cells[column].getAttribute("aria-sort"),
    /** What is wrong with the order of a column, read from the numbers that its cells carry, else from plain words. */
    disorder: (id, column, direction) => {
      const { said } = window.eyes;
      if (said(id, column) !== (direction > 0 ? "ascending" : "descending")) return `aria-sort is ${said(id, column)}`;
      const sorted = [...window.eyes.table(id).tHead.rows[0].cells].filter((head) => head.hasAttribute("aria-sort")).length;
      if (sorted !== 1) return `${sorted} columns say that they are sorted`;
      const cells = [...window.eyes.table(id).tBodies[0].rows].map((row) => row.cells[column]);
      const numbers = cells.some((cell) => cell.dataset.v);
      // a number that is only written is the page's to read
      if (cells.some((cell) => !cell.dataset.v && /\d/.test(cell.textContent))) return "";
      const keys = cells.map((cell) => {
        if (!numbers) return cell.textContent.trim().toLowerCase();
        return cell.dataset.v ? Number(cell.dataset.v) : absent;
      });
      for (let i = 1; i < keys.length; i += 1) {
        const [a, b] = [keys[i - 1], keys[i]];
        if (a === absent && b !== absent) return `a cell without a number stands before ${b}`;
        if (a !== absent && b !== absent && (direction > 0 ? a > b : a < b)) return `${a} stands before ${b}`;
      }
      return "";
    },
  };
}

export async function controls(page, phone, state, faults) {
  await page.setOfflineMode(true);
  await page.evaluate(eyes);
  await fold(page, true);
  const tables = await page.evaluate(() => [...document.querySelectorAll(".rows")].map((place) => ({
    id: place.id,
    rows: place.querySelector("table").tBodies[0].rows.length,
    columns: place.querySelector("table").tHead.rows[0].cells.length,
    tools: Boolean(place.previousElementSibling?.matches(".tools")),
    sorts: Boolean(place.querySelector("th button")),
    // columns whose order there is to change: rows that say why they have no number stay at the end
    differing: [...place.querySelector("table").tHead.rows[0].cells].map((_, column) => column).filter((column) =>
      new Set([...place.querySelector("table").tBodies[0].rows].map((row) => row.cells[column])
        .filter((cell) => !cell.classList.contains("a")).map((cell) => cell.dataset.v ?? cell.textContent)).size > 1),
  })));
  const fault = (check, id, words) => words && faults.add(check, `#${id}: ${words}`, state);
  for (const { id, rows, tools, sorts } of tables) {
    if (rows > 1 && !sorts) fault("sort", id, "the heads are no buttons");
    if (rows > 4 && !tools) fault("filter", id, "there is no filter");
  }
  // every column of every table by its button's own click
  if (!phone) {
    const wrong = await page.evaluate((tables) => tables.flatMap(({ id, columns, sorts, differing }) => {
      if (!sorts) return [];
      const buttons = window.eyes.table(id).tHead.querySelectorAll("th button");
      return [...Array(columns).keys()].flatMap((column) => {
        buttons[column].click();
        const up = window.eyes.texts(id).join("\n");
        const first = window.eyes.disorder(id, column, 1);
        buttons[column].click();
        const same = differing.includes(column) && window.eyes.texts(id).join("\n") === up;
        const words = first || window.eyes.disorder(id, column, -1) || (same ? "up and down are the same order" : "");
        return words ? [[id, `column ${column + 1}: ${words}`]] : [];
      });
    }), tables);
    for (const [id, words] of wrong.slice(0, 5)) fault("sort", id, words);
  }
  const tried = tables.find((table) => table.tools) ?? tables.find((table) => table.sorts);
  if (!tried) return `no table to sort at ${state}`;
  const { id, rows, columns, tools, sorts, differing } = tried;
  if (!phone && sorts) await sortByHand(page, id, differing, fault);
  if (tools) {
    if (phone) await sortByList(page, id, differing, fault);
    await filter(page, id, rows, fault);
    await hide(page, id, rows, columns, fault);
  }
  return `${tables.filter((table) => table.sorts).length} tables sorted, filtered and cut at ${state}`;
}

const disorder = (page, id, column, direction) => page.evaluate((...given) => window.eyes.disorder(...given), id, column, direction);

/** By the mouse, then by Tab to the next head, Enter and Space. */
async function sortByHand(page, id, differing, fault) {
  const button = (column) => `[id="${id}"] th:nth-child(${column + 1}) button`;
  const first = differing.find((column) => differing.includes(column + 1)) ?? differing[0];
  if (first === undefined) return;
  for (const direction of [1, -1]) {
    // the middle of a head that takes two lines may be beside its words
    const spot = await page.evaluate((selector) => {
      const element = document.querySelector(selector);
      element.scrollIntoView({ block: "center" });
      const { left, top, width, height } = element.getClientRects()[0];
      return [left + width / 2, top + height / 2];
    }, button(first));
    await page.mouse.click(...spot);
    fault("sort", id, await disorder(page, id, first, direction));
  }
  const next = differing.includes(first + 1) ? first + 1 : first;
  await page.focus(button(first));
  if (next !== first) await page.keyboard.press("Tab");
  if (!await page.evaluate((selector) => document.activeElement === document.querySelector(selector), button(next))) {
    fault("sort", id, "Tab does not go from a head to the next");
    return;
  }
  for (const [key, direction] of [["Enter", 1], ["Space", -1]]) {
    const before = await page.evaluate((id) => window.eyes.texts(id).join("\n"), id);
    await page.keyboard.press(key);
    const words = await disorder(page, id, next, direction);
    fault("sort", id, words && `by ${key}: ${words}`);
    const after = await page.evaluate((id) => window.eyes.texts(id).join("\n"), id);
    if (direction < 0 && after === before) fault("sort", id, `${key} leaves the rows as they are`);
  }
}

/** On a phone, where a table is cards, by the list over it. */
async function sortByList(page, id, differing, fault) {
  const before = await page.evaluate((id) => window.eyes.texts(id), id);
  const list = await page.evaluateHandle((id) => document.getElementById(id).previousElementSibling.querySelector("select"), id);
  if (!await list.asElement()?.isVisible()) return fault("sort", id, "there is no list to sort by");
  const choices = await list.evaluate((select) => [...select.options].map((option) => option.value));
  const column = differing[0];
  for (const direction of [1, -1]) {
    await list.focus();
    await page.keyboard.press("Home");
    for (let i = choices.indexOf(`${column} ${direction}`); i > 0; i -= 1) await page.keyboard.press("ArrowDown");
    fault("sort", id, await disorder(page, id, column, direction));
  }
  await list.focus();
  await page.keyboard.press("Home");
  const after = await page.evaluate((id) => window.eyes.texts(id), id);
  if (after.join("\n") !== before.join("\n")) fault("sort", id, '"as listed" does not bring the first order back');
  const said = await page.evaluate((id) => window.eyes.table(id).querySelectorAll("[aria-sort]").length, id);
  if (said) fault("sort", id, 'a column says that it is sorted after "as listed"');
}

async function filter(page, id, rows, fault) {
  const box = await page.evaluateHandle((id) => document.getElementById(id).previousElementSibling.querySelector("input[type=search]"), id);
  const [word, expected] = await page.evaluate((id) => {
    const texts = window.eyes.texts(id).map((text) => text.toLowerCase());
    const words = texts.flatMap((text) => text.split(/[^a-z]+/)).filter((word) => word.length > 2);
    const count = (word) => texts.filter((text) => text.includes(word)).length;
    const word = words.find((word) => count(word) < texts.length) ?? words[0];
    return [word, count(word)];
  }, id);
  await box.focus();
  await page.keyboard.type(word.toUpperCase());
  const shown = await page.evaluate((id) => window.eyes.shown(id), id);
  if (shown !== expected) fault("filter", id, `"${word}" leaves ${shown} rows, not ${expected}`);
  const said = await page.evaluate((id) => document.getElementById(id).previousElementSibling.querySelector("[role=status]")?.textContent, id);
  if (said !== `${expected} of ${rows} rows`) fault("filter", id, `says "${said}" of ${expected} rows of ${rows}`);
  for (let i = 0; i < word.length; i += 1) await page.keyboard.press("Backspace");
  if (await page.evaluate((id) => window.eyes.shown(id), id) !== rows) fault("filter", id, "an empty filter does not show all rows");
}

/** All by keys: the list opens, each box takes its column away and brings it back, Escape closes the list. */
async function hide(page, id, rows, columns, fault) {
  const seen = (column) => page.evaluate((id, column) =>
    [...window.eyes.table(id).rows].filter((row) => row.cells[column].checkVisibility()).length, id, column);
  const all = await seen(0);
  const list = await page.evaluateHandle((id) => document.getElementById(id).previousElementSibling.querySelector("details"), id);
  const summary = await list.$("summary");
  await summary.focus();
  await page.keyboard.press("Enter");
  if (!await list.evaluate((details) => details.open)) return fault("hide", id, "Enter does not open the list of columns");
  for (let column = 0; column < columns; column += 1) {
    await page.keyboard.press("Tab");
    // a list that scrolls may be a stop by itself
    if (await page.evaluate(() => !document.activeElement.matches("input[type=checkbox]"))) await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
    const gone = await seen(column);
    const rest = await seen(column ? 0 : 1);
    if (gone || rest !== all) fault("hide", id, `without column ${column + 1}, ${gone} of its cells are seen and ${rest} of ${all} beside it`);
    await page.keyboard.press("Space");
    if (await seen(column) !== all) fault("hide", id, `column ${column + 1} does not come back`);
  }
  await page.keyboard.press("Escape");
  const [open, back] = await list.evaluate((details) => [details.open, document.activeElement === details.querySelector("summary")]);
  if (open || !back) fault("hide", id, "Escape does not close the list of columns and go back to its name");
}
