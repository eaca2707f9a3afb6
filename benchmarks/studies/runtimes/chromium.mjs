// node chromium.mjs MODULES PACKAGE TEXTS.json OUT.json WAY CHROMIUM: a way (transformers or onnxruntime) in headless
// Chromium. A server on the loopback interface gives it the package and the modules; nothing else can be reached.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [modules, folder, textsFile, out] = process.argv.slice(2, 6).map((word) => path.resolve(word));
const [way, chromium] = process.argv.slice(6);
const here = path.dirname(fileURLToPath(import.meta.url));
const { default: puppeteer } = await import(
  pathToFileURL(path.join(modules, 'puppeteer-core/lib/esm/puppeteer/puppeteer-core.js')).href
);

const roots = { '/modules/': modules, '/models/': path.dirname(folder), '/code/': here };
const types = { '.mjs': 'text/javascript', '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm' };
const imports = {
  'onnxruntime-common': '/modules/onnxruntime-common/dist/esm/index.js',
  'onnxruntime-web/webgpu': '/modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs',
};
const server = http.createServer((request, response) => {
  const asked = decodeURIComponent(new URL(request.url, 'http://x').pathname);
  const prefix = Object.keys(roots).find((each) => asked.startsWith(each));
  const file = prefix && path.join(roots[prefix], asked.slice(prefix.length));
  if (asked === '/') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(`<!doctype html><title>hbt</title><script type="importmap">${JSON.stringify({ imports })}</script>`);
  } else if (file && file.startsWith(roots[prefix]) && fs.statSync(file, { throwIfNoEntry: false })?.isFile()) {
    response.setHeader('Content-Type', types[path.extname(file)] ?? 'application/octet-stream');
    response.setHeader('Content-Length', fs.statSync(file).size);
    fs.createReadStream(file).pipe(response);
  } else {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const base = `http://127.0.0.1:${server.address().port}`;
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'],
  protocolTimeout: 600_000,
});
try {
  const page = await browser.newPage();
  await page.goto(base);
  const texts = JSON.parse(fs.readFileSync(textsFile, 'utf8'));
  const found = await page.evaluate(
    async (texts, way, name) => {
      const ways = await import('/code/ways.mjs');
      const transformers = await import('/modules/@huggingface/transformers/dist/transformers.web.js');
      transformers.env.allowLocalModels = true;
      transformers.env.allowRemoteModels = false;
      transformers.env.localModelPath = '/models/';
      transformers.env.useBrowserCache = false;
      transformers.env.backends.onnx.wasm.numThreads = 1;
      transformers.env.backends.onnx.wasm.wasmPaths = '/modules/onnxruntime-web/dist/';
      if (way === 'transformers') return ways.withTransformers(transformers, name, texts);
      const ort = await import('/modules/onnxruntime-web/dist/ort.wasm.min.mjs');
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = '/modules/onnxruntime-web/dist/';
      return ways.withOnnxRuntime(ort, transformers, name, `/models/${name}/onnx/model.onnx`, texts);
    },
    texts,
    way,
    path.basename(folder),
  );
  fs.writeFileSync(out, JSON.stringify({ ...found, version: `${found.version}, ${await browser.version()}` }));
} finally {
  await browser.close();
  server.close();
}
