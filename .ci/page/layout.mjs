// What lies beyond the window, and what a drawing cuts off.

/** Opens or closes every fold of the page but the lists of columns over tables, which cover what is under them. */
export async function fold(page, opened) {
  await page.evaluate((open) => {
    for (const details of document.querySelectorAll("details")) if (!details.closest(".tools")) details.open = open;
  }, opened);
}

export async function beyond(page, phone, state, faults) {
  const found = await page.evaluate((phone) => {
    const width = document.documentElement.clientWidth;
    const found = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > width) found.push(`the document is ${wide} px wide`);
    const name = (element) => {
      const near = element.closest("[id]");
      return `${element.tagName.toLowerCase()}${near ? ` in #${near.id}` : ""} "${element.textContent.trim().slice(0, 40)}"`;
    };
    // what only a screen reader reads is one clipped pixel
    const unseen = (element) => {
      for (let at = element; at; at = at.parentElement) if (getComputedStyle(at).clipPath !== "none") return true;
      return false;
    };
    const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const scrolled = (element) => {
      for (let at = element; at; at = at.parentElement) if (scrolls(at)) return true;
      return false;
    };
    for (const element of document.body.querySelectorAll("*")) {
      if (!element.checkVisibility() || unseen(element)) continue;
      const box = element.getBoundingClientRect();
      if (!box.width || !box.height) continue;
      if ((box.left < -1 || box.right > width + 1) && (phone || !scrolled(element))) {
        found.push(`${name(element)} reaches from ${Math.round(box.left)} to ${Math.round(box.right)} px`);
      }
      const hidden = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
      const kind = getComputedStyle(element).overflowX;
      if (hidden && !(element instanceof SVGElement) && !element.matches("input, select")
        && (["hidden", "clip"].includes(kind) || (phone && scrolls(element)))) {
        found.push(`${name(element)} holds ${element.scrollWidth} px in ${element.clientWidth}`);
      }
      if (element instanceof SVGTextElement) {
        const frame = element.ownerSVGElement.getBoundingClientRect();
        if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2) {
          found.push(`${name(element)} is cut off by its drawing`);
        }
      }
    }
    return found;
  }, phone);
  found.slice(0, 8).forEach((words) => faults.add("width", words, state));
  if (found.length > 8) faults.add("width", `${found.length - 8} more`, state);
}
