// What all boxes to write in have in common.

/** Make it as high as its text. */
export function grow(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

/** Whether an input method composes; keys are its own then, and Enter chooses a word. */
export function composes(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Whether this key sends what was written. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !composes(event);
}
