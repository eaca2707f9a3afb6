// node program.mjs PACKAGE TEXTS.json OUT.json: model.mjs of a js package in Node.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { timed } from './ways.mjs';

const [folder, textsFile, out] = process.argv.slice(2).map((word) => path.resolve(word));
const { load } = await import(pathToFileURL(path.join(folder, 'model.mjs')).href);
const model = await load();
const texts = JSON.parse(fs.readFileSync(textsFile, 'utf8'));
const found = await timed(texts, (text) => Array.from(model.classify(text).probabilities));
fs.writeFileSync(out, JSON.stringify({ version: `Node ${process.version}`, ...found }));
