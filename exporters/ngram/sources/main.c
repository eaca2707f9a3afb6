/* Print label and probability for each line of the standard input.

       cc -O2 -o classify model.c main.c -lm
       ./classify < texts.txt                     reads model.bin in the current folder
       ./classify path/to/model.bin < texts.txt                                           */

#include "model.h"

#include <stdio.h>
#include <stdlib.h>

static void *file_bytes(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    void *bytes = NULL;
    long end;
    if (file == NULL) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
        *size = (size_t)end;
        bytes = malloc(*size);
        if (bytes != NULL && fread(bytes, 1, *size, file) != *size) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(file);
    return bytes;
}

/* Read one line of any length, without its line break; return 0 at the end. */
static int read_line(char **line, size_t *length, size_t *room) {
    int byte;
    *length = 0;
    while ((byte = getchar()) != EOF && byte != '\n') {
        if (*length == *room) {
            size_t wider = *room == 0 ? 1024 : 2 * *room;
            char *moved = realloc(*line, wider);
            if (moved == NULL) return 0;
            *line = moved;
            *room = wider;
        }
        (*line)[(*length)++] = (char)byte;
    }
    return byte != EOF || *length > 0;
}

int main(int arguments, char **argument) {
    static ngram_model model;
    const char *path = arguments > 1 ? argument[1] : "model.bin";
    float probabilities[NGRAM_MAX_LABELS];
    char *line = NULL;
    size_t size = 0, length, room = 0;
    void *bytes = file_bytes(path, &size);
    if (bytes == NULL || ngram_open(&model, bytes, size) != 0) {
        fprintf(stderr, "%s: %s\n", path, bytes == NULL ? "cannot be read" : "not a valid model.bin");
        free(bytes);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* each answer leaves at once, for a program that waits for it */
    while (read_line(&line, &length, &room)) {
        int label = ngram_classify(&model, line == NULL ? "" : line, length, probabilities);
        printf("%s\t%.4f\n", ngram_label(&model, label), probabilities[label]);
    }
    free(line);
    free(bytes);
    return 0;
}
