// node node.mjs MODULES PACKAGE TEXTS.json OUT.json: transformers.js in Node.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { withTransformers } from './ways.mjs';

const [modules, folder, textsFile, out] = process.argv.slice(2).map((word) => path.resolve(word));
const file = path.join(modules, '@huggingface/transformers/dist/transformers.node.mjs');
const transformers = await import(pathToFileURL(file).href);
transformers.env.allowRemoteModels = false;
transformers.env.localModelPath = path.dirname(folder);
const texts = JSON.parse(fs.readFileSync(textsFile, 'utf8'));
fs.writeFileSync(out, JSON.stringify(await withTransformers(transformers, path.basename(folder), texts)));
