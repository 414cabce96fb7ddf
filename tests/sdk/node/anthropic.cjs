// The `@anthropic-ai/sdk` package from npm against a running server: node anthropic.cjs SCENARIO
// URL prints what it got as one JSON value.
const Anthropic = require("@anthropic-ai/sdk").default;

const [scenario, url] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const question = { role: "user", content: "Capital of France?" };
const asked = { model: "fake", max_tokens: 64, messages: [question] };
const look = {
  name: "look",
  input_schema: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
  },
};

async function fault(promise) {
  try {
    await promise;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, type: error.error?.error?.type };
  }
  return { kind: "none" };
}

const scenarios = {
  async plain() {
    return client.messages.create(asked);
  },

  async stream() {
    const stream = client.messages.stream(asked);
    const pieces = [];
    stream.on("text", (piece) => pieces.push(piece));
    return { pieces, final: await stream.finalMessage() };
  },

  async raw() {
    const stream = await client.messages.create({ ...asked, stream: true });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    return kinds;
  },

  async tools() {
    const stream = client.messages.stream({ ...asked, tools: [look] });
    const first = await stream.finalMessage();
    const call = first.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "18 degrees" };
    const messages = [
      question,
      { role: "assistant", content: first.content },
      { role: "user", content: [result] },
    ];
    const second = await client.messages.create({ ...asked, messages, tools: [look] });
    return { first, second };
  },

  async thinking() {
    const thinking = { type: "enabled", budget_tokens: 1024 };
    const stream = client.messages.stream({ ...asked, max_tokens: 2048, thinking });
    return stream.finalMessage();
  },

  async structured() {
    const schema = look.input_schema;
    const format = { type: "json_schema", schema: { ...schema, additionalProperties: false } };
    const message = await client.messages.create({ ...asked, output_config: { format } });
    return JSON.parse(message.content[0].text);
  },

  async prefill() {
    const messages = [question, { role: "assistant", content: "It is" }];
    return client.messages.create({ ...asked, messages });
  },

  async abort() {
    const stream = client.messages.stream(asked);
    stream.on("text", () => stream.abort());
    return fault(stream.finalMessage());
  },

  async errors() {
    const source = { type: "base64", media_type: "image/png", data: "aGVsbG8=" };
    const picture = { role: "user", content: [{ type: "image", source }] };
    return [
      await fault(client.messages.create({ ...asked, model: "claude-9" })),
      await fault(client.messages.create({ ...asked, temperature: 9 })),
      await fault(client.messages.create({ ...asked, messages: [picture] })),
      await fault(client.models.retrieve("acme/large")),
    ];
  },

  async fault() {
    return fault(client.messages.create(asked));
  },

  async count() {
    const { input_tokens } = await client.messages.countTokens({
      model: "fake",
      messages: [question],
    });
    const { usage } = await client.messages.create(asked);
    return { counted: input_tokens, usage };
  },

  async models() {
    const models = [];
    for await (const each of client.models.list()) models.push(each.id);
    return models;
  },
};

scenarios[scenario]().then(
  (told) => console.log(JSON.stringify(told)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
