/* Classify UTF-8 texts with the n-gram model in model.bin. C99; needs only sqrt, exp and log of the C library.

   Nothing is allocated: the model points into the bytes that ngram_open is given, which must stay where they are.
   The functions that take a const model can be called from several threads. */

#ifndef NGRAM_MODEL_H
#define NGRAM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#define NGRAM_MAX_LABELS 255
#define NGRAM_MAX_JOINING 127

typedef struct {
    /* sections of model.bin */
    const unsigned char *reals, *starts, *symbols, *ids, *first, *second, *order, *parts, *classes, *table;
    const char *names;
    /* counts of model.bin */
    uint32_t rows, word_rows, outputs, labels, rule, runs, composites, expansions, marks, joining;
    uint32_t double_symbol, double_ids[2];
    /* found once by ngram_open */
    uint16_t ascii[128];                     /* symbol of each ASCII character */
    uint16_t pages[514];                     /* the run with the first code point of each page of 256 */
    uint16_t groups[NGRAM_MAX_JOINING + 1];  /* where the pairs of each second symbol start in `order` */
} ngram_model;

/* Read `size` bytes of a model.bin. Return 0, or -1 if they are not a valid model. Any bytes are safe. */
int ngram_open(ngram_model *model, const void *bytes, size_t size);

/* Return the number of labels; the name of a label, in UTF-8. */
int ngram_labels(const ngram_model *model);
const char *ngram_label(const ngram_model *model, int label);

/* Return the label of a text of `size` bytes, and write the probability of each label into `probabilities`. Malformed
   UTF-8 is read as U+FFFD. */
int ngram_classify(const ngram_model *model, const char *text, size_t size, float *probabilities);

/* Write the logit of each label into `logits`. */
void ngram_logits(const ngram_model *model, const char *text, size_t size, double *logits);

/* Return the label that the decision rule chooses; write probabilities. ngram_classify is ngram_logits and this. */
int ngram_decide(const ngram_model *model, const double *logits, float *probabilities);

#endif
