// Where a conversation branches off: the turn that a message on the page is, and a copy up to there.

import { fetchMessages, forkConversation, renameConversation } from "./api.js";

/**
 * The turn of a question as the service keeps it: `{turn, isLast}`, or null where it keeps none.
 * `back` is how many questions of the page come after it. The page may show some that were refused
 * and so never kept, so that the text decides, and the distance only among equal texts.
 */
export async function findTurn(sessionId, text, back) {
  const kept = (await keptMessages(sessionId)).filter(({ role }) => role === "user").reverse();
  let best = null;
  kept.forEach((message, distance) => {
    const off = Math.abs(distance - back);
    if (message.text.trim() === text.trim() && (!best || off < best.off)) best = { off, distance, turn: message.turn };
  });
  return best && { turn: best.turn, isLast: best.distance === 0 };
}

async function keptMessages(sessionId) {
  try {
    return await fetchMessages(sessionId);
  } catch (error) {
    if (error.status === 404) return []; // nothing was kept yet
    throw error;
  }
}

/** A copy up to and with `lastTurn`; returns its id. `beside`: the original stays, so the copy is
 * called something else. */
export async function branchOff(sessionId, lastTurn, beside) {
  const copy = await forkConversation(sessionId, lastTurn);
  if (beside && copy.title) await renameConversation(copy.id, nameCopy(copy.title));
  return copy.id;
}

/** "Bread", "Copy of Bread", "Copy 2 of Bread", …; lists cut the ends of long titles off. */
export function nameCopy(title) {
  const [, copied, number, name] = title.match(/^(Copy (?:(\d+) )?of )?(.*)$/s);
  return `Copy ${copied ? `${Number(number ?? 1) + 1} ` : ""}of ${name.slice(0, 180)}`;
}
