// WCAG AA: by axe, and for drawings, whose colours axe does not look at.

const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
// colours that mean something; where they are shown, axe must have come to a verdict on each
const MARKS = ["a", ".verdict", "td.a", "td.b", "td.h0", "td.h1", "td.h2", "td.h3", "td.h4", "summary", "th button", ".caption", "code"];

export async function accessibility(page, axe, state, faults) {
  await page.evaluate(axe);
  const { broken, unseen } = await page.evaluate(async (tags, marks) => {
    const result = await window.axe.run(document, { runOnly: tags, elementRef: true, resultTypes: ["violations", "incomplete", "passes"] });
    const broken = result.violations.flatMap((rule) => rule.nodes.slice(0, 5).map((node) =>
      `${rule.id}: ${node.target.join(" ")}: ${[...node.any, ...node.all, ...node.none].map((check) => check.message).join("; ")}`));
    const judged = new Set();
    for (const rule of [...result.violations, ...result.passes]) {
      if (rule.id === "color-contrast") for (const node of rule.nodes) judged.add(node.element);
    }
    const why = new Map();
    for (const rule of result.incomplete) {
      if (rule.id === "color-contrast") for (const node of rule.nodes) why.set(node.element, node.any.map((check) => check.message).join("; "));
    }
    const unseen = [];
    for (const mark of marks) {
      const shown = [...document.querySelectorAll(mark)].filter((element) => element.checkVisibility()
        && element.getClientRects().length && !element.closest(".skip")
        && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
        // heads of a table that is cards are one clipped pixel
        && !(element.closest("thead") && getComputedStyle(element.closest("thead")).clipPath !== "none"));
      // what is scrolled out of sight has no verdict of its own: another of its colours stands for it
      const colours = (element) => {
        const { color, backgroundColor } = getComputedStyle(element);
        return `${color} on ${backgroundColor}`;
      };
      const known = new Set(shown.filter((element) => judged.has(element)).map(colours));
      const missed = shown.filter((element) => !judged.has(element) && !known.has(colours(element)));
      if (missed.length) unseen.push(`${missed.length} of ${shown.length} ${mark}, as "${missed[0].textContent.trim().slice(0, 40)}": ${why.get(missed[0]) ?? "not looked at"}`);
    }
    return { broken, unseen };
  }, TAGS, MARKS);
  broken.forEach((words) => faults.add("axe", words, state));
  unseen.forEach((words) => faults.add("axe", `no verdict on the contrast of ${words}`, state));
}

/** Text in a drawing needs 4.5 to 1, a line or a dot that means something 3 to 1. */
export async function drawings(page, state, faults) {
  const found = await page.evaluate(() => {
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (rgb) => {
      const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const [r, g, b, a = 1] = parts(getComputedStyle(at).backgroundColor);
        if (a === 1) return [r, g, b];
      }
      return [255, 255, 255];
    };
    const grounds = new Map();
    const found = new Set();
    for (const element of document.querySelectorAll(".plot text, .plot .line, .plot .dot, .plot .front, .plot .level, .plot .spikes")) {
      if (!element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const drawn = element.tagName === "text" || style.stroke === "none" ? style.fill : style.stroke;
      if (drawn === "none") continue;
      const drawing = element.ownerSVGElement;
      if (!grounds.has(drawing)) grounds.set(drawing, ground(drawing));
      const under = grounds.get(drawing);
      const [r, g, b, a = 1] = parts(drawn);
      const alpha = a * Number(style.opacity);
      const over = [r, g, b].map((c, i) => alpha * c + (1 - alpha) * under[i]);
      const [low, high] = [light(over), light(under)].sort((x, y) => x - y);
      const ratio = (high + 0.05) / (low + 0.05);
      const least = element.tagName === "text" ? 4.5 : 3;
      if (ratio < least) found.add(`${element.tagName} .${element.getAttribute("class") ?? ""} ${drawn} on rgb(${under}): ${ratio.toFixed(2)} to 1, not ${least}`);
    }
    return [...found];
  });
  found.forEach((words) => faults.add("contrast", words, state));
}
