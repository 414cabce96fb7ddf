// The `openai` package from npm against a running server: node openai.cjs SCENARIO URL
// prints what it got as one JSON value.
const OpenAI = require("openai").default;
const { zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const [scenario, url] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "fake";
const messages = [{ role: "user", content: "Capital of France?" }];
const city = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

async function fault(asked) {
  try {
    await asked;
  } catch (error) {
    const { status, code, param, requestID } = error;
    return { kind: error.constructor.name, status, code, param, hasId: Boolean(requestID) };
  }
  return { kind: "none" };
}

const scenarios = {
  async plain() {
    return client.chat.completions.create({ model, messages });
  },

  async stream() {
    const options = { model, messages, stream_options: { include_usage: true } };
    const stream = client.chat.completions.stream(options);
    const pieces = [];
    stream.on("content", (piece) => pieces.push(piece));
    const final = await stream.finalChatCompletion();
    return { pieces, final, usage: await stream.totalUsage() };
  },

  async raw() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  },

  async tools() {
    const asked = [];
    const look = {
      type: "function",
      function: {
        name: "look",
        parameters: city,
        parse: JSON.parse,
        function: async (given) => (asked.push(given), `18 degrees in ${given.city}`),
      },
    };
    const runner = client.chat.completions.runTools({ model, messages, tools: [look], stream: true });
    const content = await runner.finalContent();
    return { asked, content, roles: runner.messages.map((message) => message.role) };
  },

  async structured() {
    const shape = z.object({ city: z.string() });
    const form = zodResponseFormat(shape, "capital");
    const options = { model, messages, response_format: form };
    const completion = await client.chat.completions.parse(options);
    return completion.choices[0].message.parsed;
  },

  async abort() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content) stream.controller.abort();
    }
    return { aborted: stream.controller.signal.aborted };
  },

  async errors() {
    const picture = { type: "image_url", image_url: { url: "data:image/png;base64,aGVsbG8=" } };
    return [
      await fault(client.chat.completions.create({ model: "gpt-9", messages })),
      await fault(client.chat.completions.create({ model, messages, temperature: 9 })),
      await fault(
        client.chat.completions.create({ model, messages: [{ role: "user", content: [picture] }] }),
      ),
      await fault(client.models.retrieve("acme/large")),
      await fault(client.responses.retrieve("resp_unknown")),
    ];
  },

  async fault() {
    return fault(client.chat.completions.create({ model, messages }));
  },

  async retry() {
    const patient = client.withOptions({ maxRetries: 2 });
    return patient.chat.completions.create({ model, messages });
  },

  async embeddings() {
    const input = ["a", "b"];
    const usual = await client.embeddings.create({ model: "fake-embedder", input });
    const floats = { model: "fake-embedder", input, encoding_format: "float" };
    const plain = await client.embeddings.create(floats);
    return { usual: usual.data, plain: plain.data, usage: usual.usage };
  },

  async models() {
    const models = [];
    for await (const each of client.models.list()) models.push(each.id);
    return models;
  },

  async responses() {
    const first = await client.responses.create({ model, input: "Capital of France?" });
    const stream = client.responses.stream({
      model,
      input: "Sure?",
      previous_response_id: first.id,
    });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    const second = await stream.finalResponse();
    const kept = await client.responses.retrieve(second.id);
    await client.responses.delete(first.id);
    const gone = await fault(client.responses.retrieve(first.id));
    return { first: first.output_text, second: second.output_text, kinds, kept: kept.id, gone };
  },
};

scenarios[scenario]().then(
  (told) => console.log(JSON.stringify(told)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
