// The ways to run a package in JavaScript. Each returns {version, first, probabilities, ms}: the time of the
// first answer in seconds, and for each text its probabilities in the order of the labels and the milliseconds it took.

const now = () => performance.now();

export async function timed(texts, score) {
  await score(texts[0]);
  const first = Date.now() / 1000;
  const usage = globalThis.process?.resourceUsage; // of Node
  const peak_mib = usage ? usage().maxRSS / 1024 : null;
  const probabilities = [], ms = [];
  for (const text of texts) {
    const start = now();
    probabilities.push(await score(text));
    ms.push(now() - start);
  }
  return { first, probabilities, ms, peak_mib };
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const values = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = values.reduce((a, b) => a + b, 0);
  return values.map((value) => value / total);
}

// transformers.js knows no network of the type "ngram"; any encoder type makes it run the graph as it is.
async function configOf(transformers, name) {
  const config = await transformers.AutoConfig.from_pretrained(name);
  if (config.model_type === 'ngram') config.model_type = 'bert';
  return config;
}

export async function withTransformers(transformers, name, texts) {
  const config = await configOf(transformers, name);
  const classify = await transformers.pipeline('text-classification', name, { config, session_options: { intraOpNumThreads: 1 } });
  const labels = Object.values(config.id2label);
  const found = await timed(texts, async (text) => {
    const scores = Object.fromEntries((await classify(text, { top_k: null })).map((each) => [each.label, each.score]));
    return labels.map((label) => scores[label]);
  });
  return { version: `transformers.js ${transformers.env.version}`, ...found };
}

export async function withOnnxRuntime(ort, transformers, name, url, texts) {
  const tokenizer = await transformers.AutoTokenizer.from_pretrained(name);
  const session = await ort.InferenceSession.create(url, { executionProviders: ['wasm'] });
  const found = await timed(texts, async (text) => {
    const ids = BigInt64Array.from(tokenizer(text, { truncation: true }).input_ids.data, BigInt);
    const feed = { input_ids: new ort.Tensor('int64', ids, [1, ids.length]) };
    if (session.inputNames.includes('attention_mask'))
      feed.attention_mask = new ort.Tensor('int64', new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
    return softmax((await session.run(feed)).logits.data);
  });
  return { version: `onnxruntime-web ${ort.env.versions.web}`, ...found };
}
