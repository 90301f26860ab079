// The page on paper: nothing beyond its edge, no figure and no row on two sheets. What is folded is printed where it is open, but for
// how a table is read, which is printed always.
import { fold } from "./layout.mjs";

// A4 less the margins of page.css, in CSS pixels
const PAPER = Math.floor(((210 - 28) / 25.4) * 96);

/** Marks the beginning and the end of what must stay whole, each with a link to it: a PDF then says on which sheet it is. */
function mark() {
  const whole = [...document.querySelectorAll("figure, .drawing:not(:has(.panels)), tbody tr")].filter((element) => element.checkVisibility());
  const links = document.createElement("p");
  links.hidden = true;
  const put = (id, place) => {
    const spot = document.createElement("span");
    spot.id = id;
    place(spot);
    const link = document.createElement("a");
    link.href = `#${id}`;
    links.append(link);
  };
  return whole.map((element, i) => {
    const inside = element.tagName === "TR" ? [...element.cells].find((cell) => cell.checkVisibility()) : element;
    put(`whole-${i}-a`, (spot) => inside.prepend(spot));
    put(`whole-${i}-z`, (spot) => inside.append(spot));
    document.body.append(links);
    const near = element.closest("[id]");
    return `${element.tagName.toLowerCase()}${near ? ` in #${near.id}` : ""} "${element.textContent.trim().slice(0, 40)}"`;
  });
}

export async function print(page, opened, faults) {
  const state = `detail ${opened ? "open" : "closed"}`;
  await fold(page, opened);
  await page.emulateMediaType("print");
  await page.setViewport({ width: PAPER, height: 1000 });
  const found = await page.evaluate((paper) => {
    const found = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > paper) {
      const out = [...document.querySelectorAll("main *, header *")].filter((element) => element.checkVisibility()
        && element.getBoundingClientRect().right > paper + 1 && element.matches("table, svg, pre, p, dl, h1, h2, h3, ul, summary"));
      const names = [...new Set(out.map((element) => `${element.tagName.toLowerCase()} in #${element.closest("[id]")?.id}`))];
      found.push(`${wide} px wide on paper of ${paper}: ${names.slice(0, 6).join(", ")}${names.length > 6 ? ` and ${names.length - 6} more` : ""}`);
    }
    for (const element of document.querySelectorAll("figure, tr, .drawing:not(:has(.panels))")) {
      if (element.checkVisibility() && getComputedStyle(element).breakInside !== "avoid") found.push(`${element.tagName} may be broken over two sheets`);
    }
    const ground = getComputedStyle(document.body).backgroundColor;
    if (ground !== "rgb(255, 255, 255)") found.push(`the ground is ${ground} when a dark page is printed`);
    for (const element of document.querySelectorAll(".tools, nav, .skip")) {
      if (element.checkVisibility()) found.push(`${element.className || element.tagName} is of no use on paper`);
    }
    for (const element of document.querySelectorAll(".how")) {
      if (element.checkVisibility() && !element.lastElementChild.checkVisibility()) found.push("what says how a table is read stays folded");
    }
    return found;
  }, PAPER);
  [...new Set(found)].forEach((words) => faults.add("print", words, state));
  const names = await page.evaluate(mark);
  const pdf = Buffer.from(await page.pdf({ preferCSSPageSize: true, format: "A4" })).toString("latin1");
  // destinations stand in plain text: /whole-3-a [12 0 R /XYZ 40 800 0]
  const sheets = new Map();
  for (const [, id, sheet] of pdf.matchAll(/[/(](whole-\d+-[az])\)?\s*\[\s*(\d+) 0 R/g)) sheets.set(id, sheet);
  if (names.length && !sheets.size) faults.add("print", "the PDF does not say where things are");
  names.forEach((name, i) => {
    const [a, z] = [sheets.get(`whole-${i}-a`), sheets.get(`whole-${i}-z`)];
    if (a !== z) faults.add("print", `${name} is split over two sheets`, state);
  });
  const count = pdf.match(/\/Type\s*\/Page\b/g)?.length ?? 0;
  return `${count} sheets with ${state}`;
}
