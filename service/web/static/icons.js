// Icons, drawn as strokes so that they take the colour of the text around them.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
  rename: ["M4 20h4L19 9l-4-4L4 16z", "M13 7l4 4"],
  forget: ["M5 7h14", "M10 7V4h4v3", "M7 7l1 13h8l1-13"],
  fork: ["M7 4v7a4 4 0 0 0 4 4h8", "M15 11l4 4-4 4", "M7 11v9"],
  retry: ["M4 12a8 8 0 1 0 2.5-5.8", "M4 4v4.5h4.5"],
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  for (const d of PATHS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}
