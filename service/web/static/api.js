// Every call to the service. Nothing else in the page touches the network.

const MAX_TOKENS = 2048; // of one answer; a longer one can be continued

const here = (path) => new URL(path, document.baseURI);

/** A refusal or a broken connection, with a sentence for the person and, maybe, when to try again. */
export class ApiError extends Error {
  constructor(message, { status = 0, retryAfterSeconds = null, cause } = {}) {
    super(message, { cause });
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * The state of the service, as `/health` tells it. No answer, one that comes too late for `signal`,
 * or one that is not ours means that the service is away; that is a state too, so nothing is thrown.
 */
export async function fetchHealth(signal) {
  try {
    const response = await fetch(here("health"), { signal, headers: { Accept: "application/json" } });
    const facts = await response.json();
    return { reachable: true, ...facts };
  } catch {
    return { reachable: false, status: "unreachable", model_loaded: false };
  }
}

/** Whether an access token has to be shown, and whether this browser has one: `{required, granted}`. */
export async function fetchLogin() {
  try {
    const response = await fetch(here("login"), { headers: { Accept: "application/json" } });
    if (response.ok) return await response.json();
  } catch {
    // Then the first message will tell, and until then nobody is asked for anything.
  }
  return { required: false, granted: false };
}

/** Hand over an access token; the service keeps it in a cookie. Throws ApiError for a wrong one. */
export async function login(accessToken) {
  const response = await post("login", { access_token: accessToken });
  if (!response.ok) throw await toError(response);
}

/**
 * Ask, and yield what comes back: `{session_id}`, `{token}`…, then `{done: true, …}`.
 * Aborting `signal` only ends the listening; `stopAnswers` ends the answer.
 * Throws ApiError when the service refuses, when it reports an error, or when the stream breaks.
 */
export async function* streamChat({ message, sessionId, signal }) {
  // What is asked here is answered to its end, also when this page is closed meanwhile, and with all
  // that was said before, as far as it fits.
  const body = { message, history: "all", max_tokens: MAX_TOKENS, background: true };
  if (sessionId) body.session_id = sessionId;
  const response = await post("chat/stream", body, signal);
  if (!response.ok) throw await toError(response);
  const dropped = Number(response.headers.get("X-Context-Dropped-Messages"));
  if (dropped > 0) yield { dropped_messages: dropped };
  for await (const frame of frames(response.body)) {
    if (frame.error) throw new ApiError(sentence(frame.error));
    yield frame;
    if (frame.done) return;
  }
  throw new ApiError("The connection ended before the answer did.");
}

/** Go on with a conversation's last answer; yields as `streamChat` does. */
export async function* streamMore({ sessionId, signal }) {
  const response = await post(`${conversation(sessionId)}/continue`, { max_tokens: MAX_TOKENS, background: true }, signal);
  if (!response.ok) throw await toError(response);
  for await (const frame of frames(response.body)) {
    if (frame.error) throw new ApiError(sentence(frame.error));
    yield frame;
    if (frame.done) return;
  }
}

/** End the answers that are being written to a conversation, whoever asked for them. */
export async function stopAnswers(sessionId) {
  const response = await post(`${conversation(sessionId)}/stop`, {});
  if (!response.ok) throw await toError(response);
}

/** What is being written to a conversation: `{turn, text, status}`, `text` being what is new. */
export async function* watchAnswer(sessionId, signal) {
  yield* frames((await get(`${conversation(sessionId)}/events`, signal)).body);
}

/** The latest conversations, or those before one that was used at `before`. */
export async function fetchConversations(before) {
  const page = before ? `&before=${before}` : "";
  return (await get(`v1/conversations?limit=30${page}`)).json();
}

/** Conversations in which all words were said, each once, with where. */
export async function searchConversations(words) {
  const reply = await get(`v1/conversations/search?limit=50&q=${encodeURIComponent(words)}`);
  const found = new Map();
  for (const hit of (await reply.json()).data) {
    if (!found.has(hit.conversation_id)) {
      found.set(hit.conversation_id, { id: hit.conversation_id, title: hit.title, snippet: hit.snippet });
    }
  }
  return [...found.values()];
}

/** All messages of a conversation, oldest first: `{role, text, status, turn}`. */
export async function fetchMessages(sessionId) {
  const messages = [];
  // Items that came as items have no number of their turn: a person's after the model's begins one.
  let counted = 0;
  let byModel = true;
  for (let after = ""; ; ) {
    const query = after ? `&after=${after}` : "";
    const page = await (await get(`${conversation(sessionId)}/items?order=asc&limit=100${query}`)).json();
    for (const { type, role, content, status, turn } of page.data) {
      const isModels = type === "message" ? role === "assistant" : ["function_call", "custom_tool_call", "reasoning"].includes(type);
      if (turn) counted = turn;
      else if (byModel && !isModels) counted += 1;
      byModel = isModels;
      if (type !== "message") continue; // calls of tools are nothing to read
      messages.push({ role, status, turn: counted, text: content.map((part) => part.text ?? "").join("") });
    }
    if (!page.has_more) return messages;
    after = page.last_id;
  }
}

/** A copy up to and with turn `lastTurn`, as `{id, title, …}`. */
export async function forkConversation(sessionId, lastTurn) {
  const response = await post(`${conversation(sessionId)}/fork`, { last_turn: lastTurn });
  if (!response.ok) throw await toError(response);
  return response.json();
}

export async function renameConversation(sessionId, title) {
  const response = await post(conversation(sessionId), { title });
  if (!response.ok) throw await toError(response);
  return response.json();
}

export async function eraseConversation(sessionId) {
  await get(conversation(sessionId), undefined, "DELETE");
}

export async function fetchModels() {
  return (await get("api/v1/chat/models")).json();
}

/** Have another model answer: everybody, or only us where our token opens no more. */
export async function switchModel(name) {
  const response = await post("v1/models/switch", { model: name });
  if (!response.ok) throw await toError(response);
}

/** The state of the models, now and after each change. */
export async function* watchModels(signal) {
  yield* frames((await get("v1/models/events", signal)).body);
}

const conversation = (id) => `v1/conversations/${encodeURIComponent(id)}`;

async function get(path, signal, method = "GET") {
  let response;
  try {
    response = await fetch(here(path), { method, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached.", { cause: error });
  }
  if (!response.ok) throw await toError(response);
  return response;
}

async function post(path, body, signal) {
  try {
    return await fetch(here(path), {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached.", { cause: error });
  }
}

/** The JSON objects of a stream of server-sent events, one per `data:` frame. */
async function* frames(stream) {
  for await (const line of lines(stream)) {
    if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const complete = (held + value).split("\n");
      held = complete.pop();
      yield* complete;
    }
  } finally {
    reader.releaseLock();
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection was lost in the middle of the answer.", { cause: error });
  }
}

async function toError(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After"));
  const retryAfterSeconds = Number.isFinite(retryAfter) ? Math.max(0, retryAfter) : null;
  return new ApiError(await explain(response), { status: response.status, retryAfterSeconds });
}

async function explain(response) {
  const fallback = `The service answered ${response.status} ${response.statusText}`.trim() + ".";
  try {
    const { detail, reason, error } = await response.json();
    if (error?.message) return sentence(error.message);
    if (reason) return sentence(reason); // says more than the short `detail` of older clients
    if (Array.isArray(detail)) return sentence(detail.map((fault) => fault.msg).join("; "));
    return detail ? sentence(detail) : fallback;
  } catch {
    return fallback; // not JSON: a proxy's page, say, which would mean nothing to the reader
  }
}

function sentence(fault) {
  const text = String(fault?.message ?? fault).trim();
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
