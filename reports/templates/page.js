"use strict";
(() => {
  const narrow = matchMedia("(max-width: 46rem)");
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const units = { pJ: 1e-12, nJ: 1e-9, "µJ": 1e-6, mJ: 1e-3, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  // what a cell is sorted by: the number that comes with it, else the first of its text, else the text
  const key = (cell) => {
    if (cell.dataset.v) return Number(cell.dataset.v);
    const text = cell.textContent.replace(/[,≥<]/g, "").trim();
    const found = /^([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(\S*)/.exec(text);
    return found ? Number(found[1]) * (units[found[2]] || 1) : text.toLowerCase();
  };
  // what has no number stands at the end, whatever the direction
  const compare = (a, b, direction) => {
    const numbers = (typeof b === "number") - (typeof a === "number");
    return numbers || direction * (a < b ? -1 : a > b ? 1 : 0);
  };
  const say = (table, column, direction) => {
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
    rows.sort((a, b) => compare(a[0], b[0], direction));
    body.append(...rows.map((row) => row[1]));
    say(table, column, direction);
  };
  for (const place of document.querySelectorAll(".rows")) {
    const table = place.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      button.onclick = () => sort(table, column, head.getAttribute("aria-sort") === "ascending" ? -1 : 1);
      head.replaceChildren(button);
    });
    if (rows.length < 5) continue;
    const shown = make("span", {});
    shown.setAttribute("role", "status");
    const filter = make("input", { type: "search" });
    filter.oninput = () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        count += !row.hidden;
      }
      shown.textContent = filter.value ? `${count} of ${rows.length} rows` : "";
    };
    const choices = heads.map((head, column) => {
      const box = make("input", { type: "checkbox", checked: true });
      box.onchange = () => {
        head.hidden = !box.checked;
        for (const row of rows) row.cells[column].hidden = !box.checked;
      };
      return make("label", {}, box, ` ${head.textContent}`);
    });
    const order = make("select", {}, make("option", { textContent: "as listed", value: "" }));
    heads.forEach((head, column) => {
      order.append(
        make("option", { textContent: `${head.textContent}, up`, value: `${column} 1` }),
        make("option", { textContent: `${head.textContent}, down`, value: `${column} -1` }),
      );
    });
    order.onchange = () => {
      const [column, direction] = order.value.split(" ");
      if (direction) sort(table, Number(column), Number(direction));
      else {
        table.tBodies[0].append(...rows);
        say(table);
      }
    };
    const columns = make("details", {}, make("summary", { textContent: "Columns" }),
      make("fieldset", {}, make("legend", { textContent: "Shown" }), ...choices));
    columns.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      columns.open = false;
      columns.firstChild.focus();
    };
    place.before(make("div", { className: "tools" },
      make("label", { className: "filter" }, "Filter ", filter),
      make("label", { className: "order" }, "Sort ", order), columns, shown));
  }
  // cards are no table by themselves any more: say that they are one, whose heads nobody sees and no key goes to
  const roles = () => {
    for (const button of document.querySelectorAll(".rows th button")) button.tabIndex = narrow.matches ? -1 : 0;
    const set = (selector, role) => {
      for (const element of document.querySelectorAll(`.rows ${selector}`)) {
        if (narrow.matches) element.setAttribute("role", role);
        else element.removeAttribute("role");
      }
    };
    set("table", "table");
    set("thead, .rows tbody", "rowgroup");
    set("tr", "row");
    set("th", "columnheader");
    set("td", "cell");
  };
  narrow.onchange = roles;
  if (narrow.matches) roles();
  // a link to what is folded opens it
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
