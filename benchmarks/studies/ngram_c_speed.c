/* Print the fastest of PASSES times of ngram_classify in microseconds, for each line of the standard input. */

#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 1000
#define ROOM (1 << 16)

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

int main(int arguments, char **argument) {
    static ngram_model model;
    static char line[ROOM];
    static char *texts[MOST];
    static double best[MOST];
    float probabilities[NGRAM_MAX_LABELS];
    int count = 0, pass, i;
    long size;
    void *bytes;
    FILE *file = fopen(argument[arguments - 1], "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) return 1;
    size = ftell(file);
    rewind(file);
    bytes = malloc((size_t)size);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) return 1;
    if (ngram_open(&model, bytes, (size_t)size) != 0) return 1;
    for (; count < MOST && fgets(line, ROOM, stdin) != NULL; count++) {
        texts[count] = malloc(strlen(line) + 1);
        if (texts[count] == NULL) return 1;
        strcpy(texts[count], line);
        best[count] = 1e9;
    }
    for (pass = 0; pass < PASSES; pass++) {
        for (i = 0; i < count; i++) {
            double started = microseconds(), taken;
            ngram_classify(&model, texts[i], strlen(texts[i]), probabilities);
            taken = microseconds() - started;
            if (taken < best[i]) best[i] = taken;
        }
    }
    for (i = 0; i < count; i++) printf("%.3f\n", best[i]);
    return 0;
}
