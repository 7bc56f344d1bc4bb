/* Reads as programs in C do, many at a time, of symbols drawn at random; native.py calls it. Each function leaves the
 * symbol that it read last in `told`, and what it read of it, to be checked. */
#include <stdlib.h>
#include <string.h>

#include "candleshm.h"

enum { WINDOW = 1440 };

typedef struct {
    cshm_series **series;
    uint32_t symbols, chance, last;
} told;

static inline cshm_series *draw(told *told) {
    told->chance = told->chance * 1664525u + 1013904223u;
    told->last = (told->chance >> 8) % told->symbols;
    return told->series[told->last];
}

static inline void must(int64_t answer) {
    if (answer < 0) abort();
}

void draw_only(told *told, size_t count, double *value) {
    while (count-- > 0) *(cshm_series *volatile *)value = draw(told);
}

void last_close(told *told, size_t count, double *value) {
    while (count-- > 0) must(cshm_last_close(draw(told), value));
}

void live(told *told, size_t count, double *row) {
    while (count-- > 0) must(cshm_live(draw(told), row, NULL));
}

/* The last view stays open: native.py checks and closes it. */
cshm_view *view_and_live(told *told, size_t count, double *row) {
    cshm_view *view = NULL;
    while (count-- > 0) {
        cshm_series *series = draw(told);
        cshm_view_close(view);
        must(cshm_view_open(series, WINDOW, &view));
        if (cshm_view_column(view, CSHM_CLOSE) == NULL) abort();
        must(cshm_live(series, row, NULL));
    }
    return view;
}

void candles(told *told, size_t count, double *columns) {
    while (count-- > 0) must(cshm_candles(draw(told), WINDOW, CSHM_HOLES_DROP, columns, WINDOW, NULL));
}

/* The same columns out of the same memory, and nobody looks whether they hold still. */
void copies(told *told, size_t count, double *columns, cshm_view **views) {
    while (count-- > 0) {
        draw(told);
        for (int column = 0; column < CSHM_COLUMNS; column++) {
            memcpy(columns + column * WINDOW, cshm_view_column(views[told->last], column), WINDOW * sizeof *columns);
        }
    }
}
