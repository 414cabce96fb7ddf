// What the page remembers of the current chat, in this browser only.

const KEY = "parley.chat";
const MAX_MESSAGES = 200;

/** `{sessionId, messages: [{role, text, …}]}`; an empty chat when nothing usable is stored. */
export function recall() {
  try {
    const { sessionId, messages } = JSON.parse(localStorage.getItem(KEY)) ?? {};
    if (Array.isArray(messages)) return { sessionId: sessionId ?? null, messages };
  } catch {
    // Storage is forbidden, or holds something else: then nothing is remembered.
  }
  return { sessionId: null, messages: [] };
}

/** Returns false where the browser does not let us; the chat goes on, but not after a reload. */
export function remember({ sessionId, messages }) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ sessionId, messages: messages.slice(-MAX_MESSAGES) }));
    return true;
  } catch {
    return false;
  }
}
