/* See model.h. The format of model.bin is in docs/package.md of hbt. A text is decoded, normalized and hashed in one
   pass, without a buffer: marks whose order is open are read again for each canonical combining class. */

#include "model.h"

#include <math.h>
#include <string.h>

#define COUNTS 15
#define HEADER (8 + 4 * COUNTS)
#define MULTIPLIER 1000003u
#define MODULUS 0x7fffffffu
#define SPACE_ID 2u
#define WHITE 1u
#define NONE 0xffffu /* no symbol, or a character that is removed */
#define CODE_POINTS 0x110000u
#define INCREASING 0x80000000u
#define MAX_PARTS 3u
#define MAX_QUEUE 8
enum { HIGHEST, THRESHOLD, OFFSETS };

typedef struct {
    const unsigned char *at, *end;
} reader;

typedef struct {
    uint32_t symbol, code;
} character;

/* Marks after a starter: first those of the queue, then those that the reader finds. */
typedef struct {
    reader text;
    uint32_t queue[MAX_QUEUE];
    int next, queued;
} marks;

typedef struct {
    const ngram_model *model;
    uint32_t last;                    /* rows of windows of characters, without row 0 */
    uint32_t is_word, previous;       /* whether a word was before; its hash */
    uint64_t word;                    /* sum of the squared hashes of three ids since the last space */
    uint32_t before, second, third, fourth; /* the last token id; hashes of the last two, three and four */
    uint32_t length;                  /* token ids since the last space */
    int pending, started;             /* white space not yet written; whether a character was */
    int64_t sums[1 + NGRAM_MAX_LABELS];
} sink;

/* Little-endian numbers at any address */

static uint32_t u16_at(const unsigned char *section, uint32_t place) {
    const unsigned char *p = section + 2 * (size_t)place;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const unsigned char *section, uint32_t place) {
    const unsigned char *p = section + 4 * (size_t)place;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static double real_at(const unsigned char *section, uint32_t place) {
    uint64_t bits = u32_at(section, 2 * place) | (uint64_t)u32_at(section, 2 * place + 1) << 32;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The model */

static uint32_t class_of(const ngram_model *m, uint32_t symbol) {
    return symbol < m->marks ? 0 : m->classes[symbol - m->marks];
}

static uint32_t run_start(const ngram_model *m, uint32_t run) { return u32_at(m->starts, run) & ~INCREASING; }

static uint32_t symbol_of(const ngram_model *m, uint32_t code) {
    uint32_t page, low, high;
    if (code < 128) return m->ascii[code];
    page = code < 0x20000 ? code >> 8 : 512;
    low = m->pages[page];
    high = m->pages[page + 1] + 1; /* the run is in low ... high - 1 */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (run_start(m, middle) <= code)
            low = middle;
        else
            high = middle;
    }
    page = u16_at(m->symbols, low);
    return u32_at(m->starts, low) & INCREASING ? page + (code - run_start(m, low)) : page;
}

static int valid_runs(const ngram_model *m, uint32_t symbols) {
    uint32_t run;
    if (run_start(m, 0) != 0) return 0;
    for (run = 0; run < m->runs; run++) {
        uint32_t start = run_start(m, run), symbol = u16_at(m->symbols, run);
        uint32_t end = run + 1 < m->runs ? run_start(m, run + 1) : CODE_POINTS;
        if (start >= end || end > CODE_POINTS) return 0;
        if (u32_at(m->starts, run) & INCREASING) symbol += end - start - 1;
        if (symbol >= symbols && (symbol != NONE || u32_at(m->starts, run) & INCREASING)) return 0;
    }
    return 1;
}

static int valid_symbols(const ngram_model *m, uint32_t symbols) {
    uint32_t i, before = 0;
    for (i = 0; i < m->composites; i++) {
        uint32_t second = u16_at(m->second, i), place = u16_at(m->order, i), key;
        if (u16_at(m->first, i) >= m->expansions || second < m->marks || second - m->marks >= m->joining) return 0;
        if (place >= m->composites) return 0;
        key = u16_at(m->second, place) << 16 | u16_at(m->first, place);
        if (i > 0 && key <= before) return 0;
        before = key;
    }
    for (i = 0; i < MAX_PARTS * (m->marks - m->expansions); i++) {
        uint32_t part = u16_at(m->parts, i);
        uint32_t composites_start = m->expansions - m->composites;
        if (part == NONE && i % MAX_PARTS > 0) continue;
        if (part >= symbols || (part >= composites_start && part < m->marks)) return 0;
    }
    return m->double_symbol < symbols && m->double_ids[0] < 0x10000 && m->double_ids[1] < 0x10000;
}

static void find_places(ngram_model *m) {
    uint32_t page, run = 0, place = 0, second;
    for (page = 0; page <= 512; page++) {
        while (run + 1 < m->runs && run_start(m, run + 1) <= page << 8) run++;
        m->pages[page] = (uint16_t)run;
    }
    m->pages[513] = (uint16_t)(m->runs - 1);
    for (second = 0; second <= m->joining; second++) {
        while (place < m->composites && u16_at(m->second, u16_at(m->order, place)) - m->marks < second) place++;
        m->groups[second] = (uint16_t)place;
    }
    for (run = 0; run < 128; run++) m->ascii[run] = 0;
    for (page = 0, run = 0; page < 128; page++) {
        while (run + 1 < m->runs && run_start(m, run + 1) <= page) run++;
        m->ascii[page] = (uint16_t)(u16_at(m->symbols, run)
                                    + (u32_at(m->starts, run) & INCREASING ? page - run_start(m, run) : 0));
    }
}

int ngram_open(ngram_model *m, const void *bytes, size_t size) {
    const unsigned char *data = bytes, *place;
    uint32_t count[COUNTS], symbols, composites_start, label_bytes, header, i, names = 0;
    uint64_t needed;
    if (size < HEADER + 4 || memcmp(data, "hbtngrm", 7) != 0 || (data[7] != '1' && data[7] != '2')) return -1;
    header = data[7] == '2' ? HEADER + 4 : HEADER; /* the second format has rows for words, too */
    for (i = 0; i < COUNTS; i++) count[i] = u32_at(data + 8, i);
    m->word_rows = data[7] == '2' ? u32_at(data + 8, COUNTS) : 0;
    m->rows = count[0];
    m->outputs = count[1];
    m->labels = count[2];
    m->rule = count[3];
    m->runs = count[4];
    symbols = count[5];
    composites_start = count[6];
    m->composites = count[7];
    m->marks = count[9];
    m->joining = count[10];
    m->double_symbol = count[11];
    m->double_ids[0] = count[12];
    m->double_ids[1] = count[13];
    label_bytes = count[14];
    if (m->rows < 2 || m->rows > 1u << 28 || m->outputs < 1 || m->outputs > NGRAM_MAX_LABELS) return -1;
    if (m->word_rows > m->rows - 2) return -1;
    if (m->labels != (m->outputs == 1 ? 2 : m->outputs) || m->rule > OFFSETS) return -1;
    if (m->rule == THRESHOLD && m->labels != 2) return -1;
    if (symbols >= NONE || m->marks > symbols || m->runs < 1 || m->runs >= NONE || label_bytes > 1u << 20) return -1;
    if (composites_start > m->marks || m->composites > m->marks - composites_start) return -1;
    m->expansions = composites_start + m->composites;
    if (count[8] != m->marks - m->expansions) return -1;
    if (m->joining > symbols - m->marks || m->joining > NGRAM_MAX_JOINING) return -1;
    needed = header + 8 * (uint64_t)(2 + 2 * m->outputs + m->labels) + 6 * (uint64_t)m->runs + 2 * (uint64_t)symbols
             + 6 * (uint64_t)m->composites + 2 * MAX_PARTS * (uint64_t)count[8] + (symbols - m->marks) + label_bytes
             + m->rows * (uint64_t)(1 + m->outputs);
    if (needed != size) return -1;
    place = data + header;
    m->reals = place, place += 8 * (size_t)(2 + 2 * m->outputs + m->labels);
    m->starts = place, place += 4 * (size_t)m->runs;
    m->symbols = place, place += 2 * (size_t)m->runs;
    m->ids = place, place += 2 * (size_t)symbols;
    m->first = place, place += 2 * (size_t)m->composites;
    m->second = place, place += 2 * (size_t)m->composites;
    m->order = place, place += 2 * (size_t)m->composites;
    m->parts = place, place += 2 * MAX_PARTS * (size_t)count[8];
    m->classes = place, place += symbols - m->marks;
    m->names = (const char *)place, place += label_bytes;
    m->table = place;
    for (i = 0; i < label_bytes; i++) names += m->names[i] == '\0';
    if (names != m->labels || m->names[label_bytes - 1] != '\0') return -1;
    if (!valid_runs(m, symbols) || !valid_symbols(m, symbols)) return -1;
    find_places(m);
    return 0;
}

int ngram_labels(const ngram_model *m) { return (int)m->labels; }

const char *ngram_label(const ngram_model *m, int label) {
    const char *name = m->names;
    while (label-- > 0) name += strlen(name) + 1;
    return name;
}

/* N-grams */

static int32_t value(unsigned char byte) {
    int32_t code = byte < 128 ? byte : (int32_t)byte - 256;
    return code * (code < 0 ? -code : code);
}

static void add_row(sink *out, uint32_t place) {
    const uint32_t outputs = out->model->outputs;
    const unsigned char *row = out->model->table + (size_t)place * (1 + outputs);
    uint32_t i;
    out->sums[0] += value(row[0]);
    out->sums[1] += value(row[1]);
    for (i = 2; i <= outputs; i++) out->sums[i] += value(row[i]);
}

static uint32_t extended(uint32_t hash, uint32_t id) {
    uint64_t wide = (uint64_t)hash * MULTIPLIER + id;
    uint32_t folded = (uint32_t)(wide & MODULUS) + (uint32_t)(wide >> 31); /* modulo 2^31 - 1 */
    return folded >= MODULUS ? folded - MODULUS : folded;
}

static void add_window(sink *out, uint32_t hash) { add_row(out, hash % out->last + 1); }

/* Add the word that ends here, and its pair with the word before. */
static void end_word(sink *out) {
    const uint32_t first = out->last + 1, rows = out->model->word_rows, word = (uint32_t)(out->word % MODULUS);
    const int is_pair = out->is_word != 0;
    out->is_word = out->word != 0;
    if (!out->is_word) return;
    add_row(out, first + word % rows);
    if (is_pair) add_row(out, first + extended(out->previous, word) % rows);
    out->previous = word;
    out->word = 0;
}

static void write_id(sink *out, uint32_t id) {
    if (out->length >= 4) add_window(out, extended(out->fourth, id));
    if (out->length >= 3) add_window(out, out->fourth = extended(out->third, id));
    if (out->length >= 2) {
        add_window(out, out->third = extended(out->second, id));
        if (out->model->word_rows) out->word += (uint64_t)out->third * out->third % MODULUS;
    }
    if (out->length >= 1) add_window(out, out->second = extended(out->before, id));
    if (id == SPACE_ID && out->model->word_rows) end_word(out);
    out->before = id;
    out->length = id == SPACE_ID ? 1 : out->length + (out->length < 4); /* an n-gram has no space inside */
}

static void write_symbol(sink *out, uint32_t symbol) {
    const ngram_model *m = out->model;
    if (symbol == WHITE) {
        out->pending = out->started;
        return;
    }
    if (out->pending) write_id(out, SPACE_ID);
    out->pending = 0;
    out->started = 1;
    if (symbol == m->double_symbol) {
        write_id(out, m->double_ids[0]);
        write_id(out, m->double_ids[1]);
    } else {
        write_id(out, u16_at(m->ids, symbol));
    }
}

/* Text */

/* Return the next code point; U+FFFD for each longest malformed part, as Unicode recommends. */
static uint32_t decode(reader *text) {
    uint32_t code = *text->at++, more, low = 0x80, high = 0xbf;
    if (code < 0x80) return code;
    if (code < 0xc2 || code > 0xf4) return 0xfffd;
    more = code < 0xe0 ? 1 : code < 0xf0 ? 2 : 3;
    if (code == 0xe0) low = 0xa0;
    if (code == 0xed) high = 0x9f;
    if (code == 0xf0) low = 0x90;
    if (code == 0xf4) high = 0x8f;
    code &= 0x3fu >> more;
    while (more-- > 0) {
        if (text->at == text->end || *text->at < low || *text->at > high) return 0xfffd;
        code = code << 6 | (*text->at++ & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    return code;
}

/* Read the next character that is not removed; return 0 at the end, where its symbol is 0. */
static int read_character(const ngram_model *m, reader *text, character *found) {
    while (text->at < text->end) {
        found->code = decode(text);
        found->symbol = symbol_of(m, found->code);
        if (found->symbol != NONE) return 1;
    }
    found->symbol = found->code = 0;
    return 0;
}

/* Return the class of the next mark, or 0 if there is no further one; the reader then stays before what follows. */
static uint32_t next_mark(const ngram_model *m, marks *run, uint32_t *mark) {
    reader before = run->text;
    character found;
    uint32_t i;
    if (run->next < run->queued) {
        *mark = run->queue[run->next++];
        return class_of(m, *mark);
    }
    if (read_character(m, &run->text, &found) && found.symbol >= m->expansions) {
        if (found.symbol < m->marks) {
            const unsigned char *parts = m->parts + 2 * MAX_PARTS * (size_t)(found.symbol - m->expansions);
            run->next = run->queued = 0;
            for (i = 0; i < MAX_PARTS && class_of(m, u16_at(parts, i)) > 0; i++) {
                run->queue[run->queued++] = u16_at(parts, i);
                if (i + 1 < MAX_PARTS && u16_at(parts, i + 1) == NONE) break;
            }
            if (run->queued > 0) return next_mark(m, run, mark);
        } else if (class_of(m, found.symbol) > 0) {
            *mark = found.symbol;
            return class_of(m, *mark);
        }
    }
    run->text = before;
    return 0;
}

/* Return the symbol that NFC joins two into, NONE if it does not. */
static uint32_t joined(const ngram_model *m, character *first, character second) {
    uint32_t low, high;
    if (second.code >= 0x1161 && second.code <= 0x11c2) { /* Hangul */
        uint32_t code = 0;
        if (first->code >= 0x1100 && first->code <= 0x1112 && second.code <= 0x1175)
            code = 0xac00 + ((first->code - 0x1100) * 21 + second.code - 0x1161) * 28;
        if (first->code >= 0xac00 && first->code <= 0xd7a3 && (first->code - 0xac00) % 28 == 0 && second.code >= 0x11a8)
            code = first->code + second.code - 0x11a7;
        if (code == 0) return NONE;
        first->code = code;
        return symbol_of(m, code);
    }
    if (second.symbol < m->marks || second.symbol - m->marks >= m->joining) return NONE;
    low = m->groups[second.symbol - m->marks];
    high = m->groups[second.symbol - m->marks + 1];
    while (low < high) {
        uint32_t middle = low + (high - low) / 2, pair = u16_at(m->order, middle);
        uint32_t symbol = u16_at(m->first, pair);
        if (symbol == first->symbol) {
            first->code = 0;
            return m->expansions - m->composites + pair;
        }
        if (symbol < first->symbol)
            low = middle + 1;
        else
            high = middle;
    }
    return NONE;
}

/* Join the marks of `run` with `base` in canonical order; write those that are kept, if `out` is not null.
   Return whether there are any; move the reader to what follows. */
static int join_marks(const ngram_model *m, const marks *run, character *base, reader *text, sink *out) {
    uint32_t done = 0, class, lowest, joint;
    character mark = {0, 0};
    int kept = 0;
    for (;;) {
        marks scan = *run;
        int blocked = base->symbol == NONE;
        for (lowest = 256; (class = next_mark(m, &scan, &mark.symbol)) > 0;)
            if (class > done && class < lowest) lowest = class;
        *text = scan.text;
        if (lowest == 256) return kept;
        for (scan = *run; (class = next_mark(m, &scan, &mark.symbol)) > 0;) {
            if (class != lowest) continue;
            joint = blocked ? NONE : joined(m, base, mark);
            if (joint != NONE) {
                base->symbol = joint;
                continue;
            }
            blocked = kept = 1;
            if (out != NULL) write_symbol(out, mark.symbol);
        }
        done = lowest;
    }
}

/* Split what NFD splits from a starter into the queue of `run`. Without a starter, its symbol becomes NONE. */
static void split(const ngram_model *m, character *base, marks *run, sink *out) {
    uint32_t composites_start = m->expansions - m->composites, i, depth;
    run->next = run->queued = 0;
    if (class_of(m, base->symbol) > 0) {
        run->queue[run->queued++] = base->symbol;
        base->symbol = NONE;
    } else if (base->symbol >= m->expansions && base->symbol < m->marks) {
        const unsigned char *parts = m->parts + 2 * MAX_PARTS * (size_t)(base->symbol - m->expansions);
        base->symbol = NONE;
        base->code = 0;
        for (i = 0; i < MAX_PARTS && u16_at(parts, i) != NONE; i++) {
            uint32_t part = u16_at(parts, i);
            if (class_of(m, part) > 0) {
                run->queue[run->queued++] = part;
            } else {
                if (base->symbol != NONE) write_symbol(out, base->symbol);
                base->symbol = part;
            }
        }
    } else {
        for (depth = 0; depth < 4; depth++) {
            uint32_t pair = base->symbol - composites_start, second;
            if (base->symbol < composites_start || base->symbol >= m->expansions) return;
            second = u16_at(m->second, pair);
            if (class_of(m, second) == 0) return; /* two starters stay joined */
            for (i = (uint32_t)run->queued++; i > 0; i--) run->queue[i] = run->queue[i - 1];
            run->queue[0] = second;
            base->symbol = u16_at(m->first, pair);
            base->code = 0;
        }
    }
}

/* Write a character with what follows and may join it; move the reader behind that. */
static void write_joined(const ngram_model *m, character base, reader *text, sink *out) {
    marks run;
    split(m, &base, &run, out);
    run.text = *text;
    for (;;) {
        character start = base, following;
        reader after;
        uint32_t joint;
        int kept = join_marks(m, &run, &base, text, NULL);
        after = *text;
        if (!kept && base.symbol != NONE && read_character(m, &after, &following) && following.symbol >= m->marks
            && class_of(m, following.symbol) == 0 && (joint = joined(m, &base, following)) != NONE) {
            base.symbol = joint;
            run.next = run.queued = 0;
            run.text = *text = after;
            continue;
        }
        if (base.symbol != NONE) write_symbol(out, base.symbol);
        if (kept) join_marks(m, &run, &start, text, out);
        return;
    }
}

/* Whether a symbol is a starter that stays as it is if no mark follows. */
static int is_starter(const ngram_model *m, uint32_t symbol) {
    return symbol < m->expansions || (symbol >= m->marks && class_of(m, symbol) == 0);
}

static void write_text(const ngram_model *m, reader text, sink *out) {
    uint32_t composites_start = m->expansions - m->composites;
    character now, next, third;
    int more = read_character(m, &text, &now);
    while (more) {
        reader after = text;
        int following = read_character(m, &after, &next);
        if (next.symbol < m->expansions && is_starter(m, now.symbol)) {
            write_symbol(out, now.symbol);
        } else if (next.symbol >= m->marks && is_starter(m, now.symbol)
                   && (now.symbol < composites_start || now.symbol >= m->marks)) {
            /* Most marks stand alone, and most do not join: write_joined would give the same, in more steps. */
            character copy = now;
            uint32_t joint = joined(m, &copy, next);
            reader behind = after;
            int is_mark = class_of(m, next.symbol) > 0, last = !is_mark || read_character(m, &behind, &third);
            if (joint != NONE || (is_mark && third.symbol >= m->expansions)) {
                write_joined(m, now, &text, out);
                more = read_character(m, &text, &now);
                continue;
            }
            write_symbol(out, now.symbol);
            if (is_mark) {
                write_symbol(out, next.symbol);
                after = behind;
                next = third;
                following = last;
            }
        } else {
            write_joined(m, now, &text, out);
            more = read_character(m, &text, &now);
            continue;
        }
        text = after;
        now = next;
        more = following;
    }
}

void ngram_logits(const ngram_model *m, const char *text, size_t size, double *logits) {
    sink out;
    reader bytes;
    uint32_t i;
    double squares, norm;
    bytes.at = (const unsigned char *)text;
    bytes.end = bytes.at + size;
    out.model = m;
    out.last = m->rows - m->word_rows - 1;
    out.is_word = out.previous = 0;
    out.word = 0;
    out.before = out.second = out.third = out.fourth = out.length = 0;
    out.pending = out.started = 0;
    for (i = 0; i <= m->outputs; i++) out.sums[i] = 0;
    write_id(&out, SPACE_ID);
    write_text(m, bytes, &out);
    write_id(&out, SPACE_ID);
    squares = (double)out.sums[0] * real_at(m->reals, 0);
    norm = sqrt(squares > 1 ? squares : 1);
    for (i = 0; i < m->outputs; i++) {
        double scale = real_at(m->reals, 1 + i), bias = real_at(m->reals, 1 + m->outputs + i);
        logits[i] = (double)out.sums[1 + i] * scale / norm + bias;
    }
    if (m->outputs == 1) {
        logits[1] = logits[0] / 2;
        logits[0] = -logits[1];
    }
}

int ngram_decide(const ngram_model *m, const double *logits, float *probabilities) {
    const uint32_t threshold = 1 + 2 * m->outputs;
    uint32_t i, best = 0;
    double largest = logits[0], total = 0, best_score = 0;
    for (i = 1; i < m->labels; i++)
        if (logits[i] > largest) largest = logits[i];
    for (i = 0; i < m->labels; i++) total += exp(logits[i] - largest);
    for (i = 0; i < m->labels; i++) probabilities[i] = (float)(exp(logits[i] - largest) / total);
    if (m->rule == THRESHOLD) return probabilities[1] >= (float)real_at(m->reals, threshold);
    for (i = 0; i < m->labels; i++) {
        double score = probabilities[i];
        if (m->rule == OFFSETS) score = log(score > 1e-12 ? score : 1e-12) + real_at(m->reals, threshold + 1 + i);
        if (i == 0 || score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return (int)best;
}

int ngram_classify(const ngram_model *m, const char *text, size_t size, float *probabilities) {
    double logits[NGRAM_MAX_LABELS];
    ngram_logits(m, text, size, logits);
    return ngram_decide(m, logits, probabilities);
}
