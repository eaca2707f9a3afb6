/* Classify texts with the n-gram model in model.bin, in Node and in browsers, without dependencies.

     import { load } from "./model.mjs";
     const model = await load();            // reads model.bin next to this file
     model.classify("text");                // { label, probability, probabilities, logits }
     model.explain("text");                 // the same, and the n-grams with what each adds to the logits   */

const MAGIC = "hbtngrm1";
const WORDS_MAGIC = "hbtngrm2"; // the table has rows for words, too
const COUNTS = 15;
const MULTIPLIER = 1000003;
const MODULUS = 2147483647;
const SPACE_ID = 2;
const WHITE = 1;
const NONE = 0xffff; // no symbol, or a character that is removed
const CODE_POINTS = 0x110000;
const MAX_PARTS = 3;
const THRESHOLD = 1;
const OFFSETS = 2;

/** Return the model in a model.bin, by default the one next to this file. */
export async function load(url = new URL("./model.bin", import.meta.url)) {
  if (new URL(url, import.meta.url).protocol === "file:" && globalThis.process?.versions?.node) {
    const { readFile } = await import("node:fs/promises");
    return new Model(await readFile(new URL(url, import.meta.url)));
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Model(new Uint8Array(await response.arrayBuffer()));
}

export class Model {
  /** bytes: the content of a model.bin, as a Uint8Array. */
  constructor(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const magic = String.fromCharCode(...bytes.subarray(0, 8));
    if (bytes.length < 12 + 4 * COUNTS || ![MAGIC, WORDS_MAGIC].includes(magic)) {
      throw new Error("model.bin is of another format");
    }
    let place = 8;
    const take = (count, size, read) => {
      if (place + count * size > bytes.length) throw new Error("model.bin ends too early");
      const found = Array.from({ length: count }, (_, i) => read(place + i * size));
      place += count * size;
      return found;
    };
    const real = (at) => view.getFloat64(at, true);
    const long = (at) => view.getUint32(at, true);
    const short = (at) => view.getUint16(at, true);
    const [rows, outputs, labels, rule, runs, symbols, compositesStart, composites, expansions, marks, , double,
      firstId, secondId, labelBytes] = take(COUNTS, 4, long);
    [this.wordRows] = magic === WORDS_MAGIC ? take(1, 4, long) : [0];
    this.last = rows - this.wordRows - 1;
    this.outputs = outputs;
    this.scales = take(1 + outputs, 8, real);
    this.intercept = take(outputs, 8, real);
    const [threshold, ...offsets] = take(1 + labels, 8, real);
    this.threshold = rule === THRESHOLD ? threshold : null;
    this.offsets = rule === OFFSETS ? offsets : null;
    this.symbols = symbolsOf(take(runs, 4, long), take(runs, 2, short));
    this.ids = take(symbols, 2, short);
    this.compositesStart = compositesStart;
    this.expansions = compositesStart + composites;
    this.marks = marks;
    this.first = take(composites, 2, short);
    this.second = take(composites, 2, short);
    take(composites, 2, short); // their order, for binary search
    this.pairs = new Map(this.first.map((first, i) => [first * 65536 + this.second[i], compositesStart + i]));
    this.parts = take(MAX_PARTS * expansions, 2, short);
    this.classes = take(symbols - marks, 1, (at) => bytes[at]);
    this.double = double;
    this.doubleIds = [firstId, secondId];
    this.labels = new TextDecoder().decode(Uint8Array.from(take(labelBytes, 1, (at) => bytes[at]))).split("\0");
    this.labels.pop();
    this.table = new Int8Array(bytes.buffer, bytes.byteOffset + place, bytes.length - place);
    if (this.table.length !== rows * (1 + outputs) || this.labels.length !== labels || this.last < 1) {
      throw new Error("model.bin has another number of rows or labels than it states");
    }
  }

  /** Return the label of a text, its probability, and the probabilities and logits of all labels. */
  classify(text) {
    return this.#decide(this.#scores(this.#plainIds(text) ?? this.tokens(text).ids).logits);
  }

  /** Return what `classify` returns, and `ngrams`: each n-gram with its place in the text (`from` to `to`, in UTF-16
      units) and its share of each logit. */
  explain(text) {
    const { ids, from, to } = this.tokens(text);
    const found = [];
    const { logits, norm } = this.#scores(ids, (start, end, row) => found.push({ start, end, row }));
    const ngrams = found.map(({ start, end, row }) => {
      const shares = [];
      for (let i = 1; i <= this.outputs; i++) shares.push((squared(this.table[row + i]) * this.scales[i]) / norm);
      return {
        from: from[start],
        to: to[end],
        ids: ids.slice(start, end + 1),
        shares: this.outputs === 1 ? [-shares[0] / 2, shares[0] / 2] : shares,
      };
    });
    return { ...this.#decide(logits), ngrams };
  }

  /** Return the token ids of a text, a space at both ends included, and the place of each in the text. */
  tokens(text) {
    let pieces = this.#characters(text);
    if (pieces.some((piece) => piece.symbol >= this.expansions)) pieces = this.#composed(pieces);
    const ids = [SPACE_ID];
    const from = [0];
    const to = [0];
    const add = (id, piece) => {
      ids.push(id);
      from.push(piece.from);
      to.push(piece.to);
    };
    let space = null;
    for (const piece of pieces) {
      if (piece.symbol === WHITE) {
        if (ids.length > 1) space = space === null ? piece : { from: space.from, to: piece.to };
        continue;
      }
      if (space !== null) add(SPACE_ID, space);
      space = null;
      if (piece.symbol === this.double) this.doubleIds.forEach((id) => add(id, piece));
      else add(this.ids[piece.symbol], piece);
    }
    add(SPACE_ID, { from: text.length, to: text.length });
    return { ids, from, to };
  }

  /* The ids of `tokens`, faster, for a text in which nothing joins and no marks change places; null for another. */
  #plainIds(text) {
    const { symbols, marks, expansions, compositesStart } = this;
    const ids = [SPACE_ID];
    let pending = false;
    let before = WHITE;
    for (let place = 0; place < text.length; place++) {
      let code = text.charCodeAt(place);
      if (code >= 0xd800 && code < 0xe000) {
        code = text.codePointAt(place);
        if (code > 0xffff) place++;
        else code = 0xfffd; // half of a surrogate pair
      }
      const symbol = symbols[code];
      if (symbol === NONE) continue;
      if (symbol >= expansions) {
        if (symbol < marks || (code >= 0x1161 && code <= 0x11c2)) return null;
        if (before >= compositesStart && (before < marks || this.#class(before) > 0)) return null;
        if (this.pairs.has(before * 65536 + symbol)) return null;
      }
      before = symbol;
      if (symbol === WHITE) {
        pending = ids.length > 1;
        continue;
      }
      if (pending) ids.push(SPACE_ID);
      pending = false;
      if (symbol === this.double) ids.push(...this.doubleIds);
      else ids.push(this.ids[symbol]);
    }
    ids.push(SPACE_ID);
    return ids;
  }

  #characters(text) {
    const found = [];
    for (let from = 0, to; from < text.length; from = to) {
      let code = text.codePointAt(from);
      to = from + (code > 0xffff ? 2 : 1);
      if (code >= 0xd800 && code < 0xe000) code = 0xfffd; // half of a surrogate pair
      const symbol = this.symbols[code];
      if (symbol !== NONE) found.push({ symbol, code, from, to });
    }
    return found;
  }

  /* Unicode normalization form NFC. */
  #composed(characters) {
    const pieces = [];
    let run = []; // marks whose order is open
    const close = () => {
      run.sort((one, other) => this.#class(one.symbol) - this.#class(other.symbol)); // stable
      pieces.push(...run);
      run = [];
    };
    for (const character of characters) {
      for (const symbol of this.#decomposed(character.symbol)) {
        const piece = { ...character, symbol, code: symbol === character.symbol ? character.code : 0 };
        if (this.#class(symbol) === 0) {
          close();
          pieces.push(piece);
        } else {
          run.push(piece);
        }
      }
    }
    close();
    const found = [];
    let starter = null;
    let last = 0; // class of the last mark that was kept after the starter
    for (const piece of pieces) {
      const rank = this.#class(piece.symbol);
      if (starter !== null && (rank === 0 ? last === 0 : last < rank)) {
        const syllable = hangul(starter.code, piece.code);
        const joined = syllable ? this.symbols[syllable] : this.pairs.get(starter.symbol * 65536 + piece.symbol);
        if (joined !== undefined) {
          starter.symbol = joined;
          starter.code = syllable;
          starter.to = Math.max(starter.to, piece.to);
          continue;
        }
      }
      if (rank === 0) starter = piece;
      last = rank;
      found.push(piece);
    }
    return found;
  }

  /* The symbols that NFD makes of one, except that starters stay joined with starters. */
  #decomposed(symbol) {
    if (symbol >= this.expansions && symbol < this.marks) {
      const place = MAX_PARTS * (symbol - this.expansions);
      const parts = this.parts.slice(place, place + MAX_PARTS).filter((part) => part !== NONE);
      return parts.flatMap((part) => this.#decomposed(part));
    }
    if (symbol < this.compositesStart || symbol >= this.expansions) return [symbol];
    const second = this.second[symbol - this.compositesStart];
    if (this.#class(second) === 0) return [symbol];
    return [...this.#decomposed(this.first[symbol - this.compositesStart]), second];
  }

  #class(symbol) {
    return symbol < this.marks ? 0 : this.classes[symbol - this.marks];
  }

  #scores(ids, watch = null) {
    const { table, last, wordRows, outputs } = this;
    const width = 1 + outputs;
    const sums = new Array(width).fill(0);
    let [before] = ids;
    let length = 1;
    let second = 0; // hashes of the last two, three and four characters
    let third = 0;
    let fourth = 0;
    let word = 0; // sum of the squared hashes of three characters since the last space
    let wordStart = 0;
    let previous = -1; // hash of the word before
    let previousStart = 0;
    const addRow = (place, start, end) => {
      const row = place * width;
      for (let i = 0; i < width; i++) sums[i] += squared(table[row + i]);
      if (watch !== null) watch(start, end, row);
    };
    const add = (hash, place, size) => addRow((hash % last) + 1, place - size + 1, place);
    const endWord = (place) => {
      if (word > 0) {
        word %= MODULUS;
        addRow(last + 1 + (word % wordRows), wordStart, place);
        if (previous >= 0) addRow(last + 1 + (extended(previous, word) % wordRows), previousStart, place);
      }
      previous = word > 0 ? word : -1;
      previousStart = wordStart;
      word = 0;
      wordStart = place;
    };
    for (let place = 1; place < ids.length; place++) {
      const id = ids[place];
      if (length >= 4) add(extended(fourth, id), place, 5);
      if (length >= 3) add((fourth = extended(third, id)), place, 4);
      if (length >= 2) {
        add((third = extended(second, id)), place, 3);
        if (wordRows > 0) word += squaredHash(third);
      }
      add((second = extended(before, id)), place, 2);
      if (id === SPACE_ID && wordRows > 0) endWord(place);
      before = id;
      length = id === SPACE_ID ? 1 : length + 1; // an n-gram has no space inside
    }
    const norm = Math.sqrt(Math.max(sums[0] * this.scales[0], 1));
    const scores = this.intercept.map((bias, i) => (sums[1 + i] * this.scales[1 + i]) / norm + bias);
    return { norm, logits: outputs === 1 ? [-scores[0] / 2, scores[0] / 2] : scores };
  }

  /* The decision rule; probabilities are rounded to single precision. */
  #decide(logits) {
    const largest = Math.max(...logits);
    const exponentials = logits.map((logit) => Math.exp(logit - largest));
    const total = exponentials.reduce((sum, value) => sum + value, 0);
    const probabilities = exponentials.map((value) => Math.fround(value / total));
    let scores = probabilities;
    if (this.offsets !== null) scores = probabilities.map((p, i) => Math.log(Math.max(p, 1e-12)) + this.offsets[i]);
    let chosen = scores.indexOf(Math.max(...scores));
    if (this.threshold !== null) chosen = Number(probabilities[1] >= Math.fround(this.threshold));
    return { label: this.labels[chosen], chosen, probability: probabilities[chosen], probabilities, logits };
  }
}

function symbolsOf(starts, firsts) {
  const symbols = new Uint16Array(CODE_POINTS);
  starts.forEach((start, run) => {
    const increasing = start >= 0x80000000;
    const from = increasing ? start - 0x80000000 : start;
    const end = run + 1 < starts.length ? starts[run + 1] % 0x80000000 : CODE_POINTS;
    if (!increasing) symbols.fill(firsts[run], from, end);
    else for (let code = from; code < end && code < CODE_POINTS; code++) symbols[code] = firsts[run] + code - from;
  });
  return symbols;
}

function squared(code) {
  return code * Math.abs(code);
}

/* (hash * MULTIPLIER + id) modulo 2^31 - 1; every value is an exact integer below 2^53. */
function extended(hash, id) {
  const wide = hash * MULTIPLIER + id;
  const high = Math.floor(wide / 2147483648);
  const folded = wide - high * 2147483648 + high;
  return folded >= MODULUS ? folded - MODULUS : folded;
}

/* hash² modulo 2^31 - 1, in halves of 16 bits, since 2^32 is 2 there; every value is an exact integer below 2^53. */
function squaredHash(hash) {
  const high = Math.floor(hash / 65536);
  const low = hash % 65536;
  return (2 * high * high + 131072 * high * low + low * low) % MODULUS;
}

function hangul(first, second) {
  if (first >= 0x1100 && first <= 0x1112 && second >= 0x1161 && second <= 0x1175) {
    return 0xac00 + ((first - 0x1100) * 21 + second - 0x1161) * 28;
  }
  const isOpen = first >= 0xac00 && first <= 0xd7a3 && (first - 0xac00) % 28 === 0;
  return isOpen && second >= 0x11a8 && second <= 0x11c2 ? first + second - 0x11a7 : 0;
}
