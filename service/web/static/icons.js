// Icons, drawn as strokes so that they take the colour of the text around them.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
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
