// Looks at report pages in a browser and names every fault. Started by `run`, which knows where the tools are.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { accessibility, drawings } from "./contrast.mjs";
import { controls, keyboard } from "./controls.mjs";
import { html } from "./html.mjs";
import { beyond, fold } from "./layout.mjs";
import { print } from "./print.mjs";

const load = createRequire(`${process.env.PAGE_TOOLS}/package.json`);
const puppeteer = load("puppeteer-core");
const axe = load("axe-core").source;
const { HtmlValidate } = load("html-validate");

const PHONE = 390;
const DESK = 1280;

const { values: options, positionals: pages } = parseArgs({
  allowPositionals: true,
  options: { height: { type: "string", multiple: true, default: [] }, pictures: { type: "string" } },
});
const heights = options.height.map((limit) => limit.split("=").map(Number));
if (!pages.length || heights.flat().some((number) => !(number > 0))) {
  console.error("page: give pages, and heights as WIDTH=PX");
  process.exit(2);
}
for (const path of pages.filter((path) => !existsSync(path))) {
  console.error(`page: ${path}: no such file`);
  process.exit(2);
}

/** Gathers faults: each is said once, with the name of its check and the state in which it was met first. */
class Faults {
  constructor(path) {
    this.path = path;
    this.said = new Set();
  }
  add(check, words, state = "") {
    const fault = `${check}: ${words.replace(/\s+/g, " ").slice(0, 400)}`;
    if (!this.said.has(fault)) console.error(`page: ${this.path}: ${fault}${state && ` [${state}]`}`);
    this.said.add(fault);
  }
}

/** A tab with the page in it, which says what the console and the network hear. */
async function open(browser, path, faults, width, scheme = "light") {
  const url = pathToFileURL(resolve(path)).href;
  const page = await browser.newPage();
  page.setDefaultTimeout(240_000);
  page.on("console", (message) => {
    if (["error", "warn", "warning"].includes(message.type())) faults.add("console", message.text());
  });
  page.on("pageerror", (error) => faults.add("script", String(error)));
  page.on("request", (request) => {
    const asked = request.url();
    if (asked !== url && !asked.startsWith("data:")) faults.add("request", asked);
  });
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url);
  await page.evaluate(() => new Promise((done) => setTimeout(done, 200)));
  return page;
}

async function check(browser, path) {
  const faults = new Faults(path);
  const told = [];
  const tab = async (width, scheme, what) => {
    let page;
    try {
      page = await open(browser, path, faults, width, scheme);
      return await what(page);
    } catch (error) {
      faults.add("check", `could not be made: ${String(error.stack).split("\n").slice(0, 3).join(" ")}`, `${width} px`);
      return null;
    } finally {
      await page?.close();
    }
  };
  html(HtmlValidate, readFileSync(path, "utf8"), faults);
  for (const width of [DESK, PHONE]) {
    for (const scheme of ["light", "dark"]) {
      await tab(width, scheme, async (page) => {
        for (const opened of [false, true]) {
          await fold(page, opened);
          const state = `${width} px, ${scheme}, detail ${opened ? "open" : "closed"}`;
          if (scheme === "light") await beyond(page, width === PHONE, state, faults);
          await drawings(page, state, faults);
          await accessibility(page, axe, state, faults);
        }
      });
    }
  }
  for (const width of [DESK, PHONE]) {
    const height = await tab(width, "light", (page) => page.evaluate(() => document.documentElement.scrollHeight));
    if (height === null) continue;
    told.push(`${height} px high at ${width} px`);
    const limit = heights.find(([at]) => at === width)?.[1];
    if (height > limit) faults.add("height", `${height} px at ${width} px with detail closed, more than ${limit}`);
  }
  for (const width of [DESK, PHONE]) {
    const state = `${width} px`;
    told.push(await tab(width, "light", (page) => keyboard(page, state, faults)));
    told.push(await tab(width, "light", (page) => controls(page, width === PHONE, state, faults)));
  }
  for (const opened of [false, true]) {
    told.push(await tab(DESK, "dark", (page) => print(page, opened, faults)));
  }
  if (options.pictures) await pictures(tab, path);
  console.log(`page: ${path}: ${faults.said.size || "no"} fault${faults.said.size === 1 ? "" : "s"}; ${told.filter(Boolean).join("; ")}`);
  return faults.said.size;
}

/** What a person should look at too: the page on a desk, in the dark, on a phone and printed. */
async function pictures(tab, path) {
  mkdirSync(options.pictures, { recursive: true });
  const name = basename(dirname(dirname(resolve(path))));
  for (const [width, scheme] of [[DESK, "light"], [DESK, "dark"], [PHONE, "light"]]) {
    await tab(width, scheme, (page) =>
      page.screenshot({ path: `${options.pictures}/${name}-${width}-${scheme}.png`, fullPage: true }));
  }
  await tab(DESK, "light", (page) => page.pdf({ path: `${options.pictures}/${name}.pdf`, preferCSSPageSize: true, format: "A4" }));
}

const start = () => puppeteer.launch({
  executablePath: process.env.PAGE_CHROMIUM,
  // the pages are our own, and root has no sandbox; no name resolves, so that what works does so without a network
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"],
});
const browser = await start().catch((error) => {
  console.error(`page: not checked: ${process.env.PAGE_CHROMIUM} does not start: ${String(error.message).split("\n")[0]}`);
  process.exit(3);
});
let found = 0;
try {
  for (const path of pages) found += await check(browser, path);
} finally {
  await browser.close();
}
process.exitCode = found ? 1 : 0;
