/* Reads a block by candleshm.h as it is told: a line of words comes in, a line of words goes out. The first word is what
 * the call returned; behind it, after a failure, the error's name and message, else what the call filled, doubles as
 * their bits. tests/test_native_reading.py compares that with what Python reads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "candleshm.h"

enum { WORDS_MAX = 8, GAPS_MAX = 4 };

static cshm_feed *feed;
static cshm_series *series;
static cshm_view *view;
static size_t view_rows;

static void print_value(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    printf(" %016llx", (unsigned long long)bits);
}

static void print_column(const double *values, int64_t rows) {
    for (int64_t row = 0; row < rows; row++) print_value(values[row]);
}

/* Prints what a call returned, and after a failure why. */
static int64_t printed(int64_t answer) {
    printf("%lld", (long long)answer);
    if (answer < 0) printf(" %s %s", cshm_error_name((int)answer), cshm_last_message());
    return answer;
}

static double *room_for(size_t count) {
    double *values = malloc((count ? count : 1) * sizeof *values);
    if (values == NULL) abort();
    return values;
}

static void nap(double seconds) {
    struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
}

static void *interrupt(void *after) {
    nap(*(double *)after);
    cshm_interrupt(feed);
    return NULL;
}

static void names(void) {
    char text[65536];
    int bytes = cshm_names(NULL, 0), again;
    if (bytes < 0) {
        printed(bytes);
        return;
    }
    again = cshm_names(text, sizeof text);
    printf("%d", again);
    for (char *name = strtok(text, "\n"); name != NULL; name = strtok(NULL, "\n")) printf(" %s", name);
    /* Cut, and still a text. */
    if (cshm_names(text, 3) < 3 || strlen(text) != 2) abort();
}

static void health(void) {
    cshm_health found;
    memset(&found, 0, sizeof found);
    found.size = sizeof found;
    if (printed(cshm_get_health(feed, &found)) < 0) return;
    printf(" %u %u %u %u %s %s", found.size, found.state, found.ready, found.loaded, found.market, found.interval);
    printf(" %llu %llu %llu", (unsigned long long)found.generation, (unsigned long long)found.length,
           (unsigned long long)found.symbols);
    printf(" %llu %llu %llu", (unsigned long long)found.symbol_capacity, (unsigned long long)found.missing,
           (unsigned long long)found.holes);
    printf(" %llu %llu %llu", (unsigned long long)found.pid, (unsigned long long)found.weight_used,
           (unsigned long long)found.weight_limit);
    printf(" %llu %llu %llu", (unsigned long long)found.failing, (unsigned long long)found.polled,
           (unsigned long long)found.stale);
    printf(" %lld %.3f %.3f", (long long)found.banned_until_ms, found.heartbeat_age_s, found.oldest_age_s);
    printf(" [%s]", found.exchange);
    printf(" %llu %lld %.6f %lld [%s]", (unsigned long long)found.epoch, (long long)found.source_ms, found.lag_s,
           (long long)found.replay_ms, found.source);
    /* A program that was compiled when the struct ended here: nothing behind that is touched. */
    memset(&found, 'x', sizeof found);
    found.size = offsetof(cshm_health, epoch);
    if (cshm_get_health(feed, &found) != CSHM_OK || found.length == 0) abort();
    for (size_t at = offsetof(cshm_health, epoch); at < sizeof found; at++) {
        if (((const char *)&found)[at] != 'x') abort();
    }
}

static void symbols(void) {
    int64_t count = printed(cshm_symbol_count(feed));
    char name[CSHM_SYMBOL_BYTES];
    for (int64_t place = 0; place < count; place++) {
        if (cshm_symbol_name(feed, (size_t)place, name) != CSHM_OK) abort();
        printf(" %s", name);
    }
}

static void live(void) {
    double row[CSHM_COLUMNS];
    int state;
    if (cshm_live(series, row, NULL) < 0) {
        printed(cshm_live(series, row, &state));
        return;
    }
    printed(cshm_live(series, row, &state));
    print_column(row, CSHM_COLUMNS);
    printf(" %d", state);
}

static void candles(size_t n, int flags, size_t stride, int with_states) {
    double *columns = room_for(11 * stride + n);
    uint8_t *states = with_states ? malloc(n + 1) : NULL;
    int64_t rows = printed(cshm_candles(series, n, flags, columns, stride, states));
    for (int column = 0; column < CSHM_COLUMNS && rows > 0; column++) {
        print_column(columns + (size_t)column * stride, rows);
    }
    for (int64_t row = 0; row < rows && states != NULL; row++) printf(" %d", states[row]);
    free(states);
    free(columns);
}

static void column(int number, size_t n, int flags) {
    double *values = room_for(n);
    print_column(values, printed(cshm_column(series, number, n, flags, values)));
    free(values);
}

static void gaps(size_t room) {
    cshm_gap found[GAPS_MAX];
    int64_t count = printed(cshm_gaps(series, room > 0 ? found : NULL, room));
    for (int64_t gap = 0; gap < count && gap < (int64_t)room; gap++) {
        printf(" %lld %lld %d", (long long)found[gap].start_ms, (long long)found[gap].end_ms, found[gap].is_hole);
    }
}

static void open_view(size_t n) {
    cshm_view_close(view);
    int64_t rows = cshm_view_open(series, n, &view);
    printed(rows);
    view_rows = rows < 0 ? 0 : (size_t)rows;
}

static void wait_closed(int64_t open_ms, double quorum, double timeout_s) {
    int64_t count = cshm_symbol_count(feed);
    uint8_t *missing = malloc((size_t)count + 1);
    if (missing == NULL) abort();
    printed(cshm_wait_closed(feed, open_ms, quorum, timeout_s, missing));
    printf(" |");
    for (int64_t place = 0; place < count; place++) printf(" %d", missing[place]);
    free(missing);
}

static void last(int number, size_t room) {
    double *values = room_for(room);
    int64_t count = printed(cshm_last(feed, number, values, room));
    print_column(values, count < (int64_t)room ? count : (int64_t)room);
    free(values);
}

static void panel(int number, size_t n, int with_live, size_t places) {
    double *values = room_for(places * n);
    int64_t *open_ms = malloc((n + 1) * sizeof *open_ms);
    if (open_ms == NULL) abort();
    int64_t rows = printed(cshm_panel(feed, number, n, with_live, values, open_ms));
    for (int64_t row = 0; row < rows; row++) printf(" %lld", (long long)open_ms[row]);
    for (size_t place = 0; place < places && rows >= 0; place++) print_column(values + place * n, rows);
    free(open_ms);
    free(values);
}

/* Every pointer that may not be NULL is. */
static void nulls(void) {
    double value, row[CSHM_COLUMNS];
    cshm_health found;
    char name[CSHM_SYMBOL_BYTES];
    cshm_feed *no_feed;
    cshm_series *no_series;
    cshm_view *no_view;
    uint8_t missing[8];
    int64_t answers[] = {
        cshm_attach(NULL, 0, &no_feed), cshm_attach("a", 0, NULL), cshm_names(NULL, 10), cshm_get_health(NULL, &found),
        cshm_get_health(feed, NULL), cshm_symbol_count(NULL), cshm_symbol_name(NULL, 0, name),
        cshm_symbol_name(feed, 0, NULL), cshm_series_of(NULL, "BTCUSDT", &no_series),
        cshm_series_of(feed, NULL, &no_series), cshm_series_of(feed, "BTCUSDT", NULL), cshm_last_close(NULL, &value),
        cshm_last_close(series, NULL), cshm_live(NULL, row, NULL), cshm_live(series, NULL, NULL), cshm_age(NULL, &value),
        cshm_age(series, NULL), cshm_last_open_ms(NULL), cshm_revision(NULL), cshm_candles(NULL, 1, 0, row, 1, NULL),
        cshm_candles(series, 1, 0, NULL, 1, NULL), cshm_column(NULL, 4, 1, 0, row), cshm_column(series, 4, 1, 0, NULL),
        cshm_gaps(NULL, NULL, 0), cshm_gaps(series, NULL, 1), cshm_view_open(NULL, 1, &no_view),
        cshm_view_open(series, 1, NULL), cshm_view_complete(NULL), cshm_view_valid(NULL), cshm_view_check(NULL),
        cshm_wait_open(NULL, 0, 0), cshm_wait_closed(NULL, 0, 1, 0, missing), cshm_last(NULL, 4, row, 1),
        cshm_last(feed, 4, NULL, 1), cshm_panel(NULL, 4, 1, 0, row, NULL), cshm_panel(feed, 4, 1, 0, NULL, NULL),
    };
    if (cshm_view_column(NULL, 4) != NULL || strcmp(cshm_last_message(), "view must not be NULL") != 0) abort();
    cshm_interrupt(NULL);
    cshm_detach(NULL);
    cshm_series_free(NULL);
    cshm_view_close(NULL);
    printf("%zu", sizeof answers / sizeof *answers);
    for (size_t call = 0; call < sizeof answers / sizeof *answers; call++) printf(" %d", (int)answers[call]);
}

/* Sizes, flags and numbers that cannot be used. The last is no error, and clears the message. */
static void arguments(void) {
    double values[32];
    cshm_health found;
    cshm_feed *no_feed = (cshm_feed *)&found;
    cshm_view *no_view = (cshm_view *)&found;
    char name[CSHM_SYMBOL_BYTES];
    found.size = 8;
    int64_t answers[] = {
        cshm_get_health(feed, &found), cshm_symbol_name(feed, 1000, name), cshm_candles(series, 0, 0, values, 1, NULL),
        cshm_candles(series, 2, 0, values, 1, NULL), cshm_candles(series, 1, 3, values, 1, NULL),
        cshm_candles(series, 1, 4, values, 1, NULL), cshm_candles(series, 1, 0, values, SIZE_MAX, NULL),
        cshm_candles(series, SIZE_MAX, 0, values, SIZE_MAX, NULL), cshm_column(series, 12, 1, 0, values),
        cshm_column(series, -1, 1, 0, values), cshm_view_open(series, 0, &no_view), cshm_last(feed, 12, values, 1),
        cshm_panel(feed, 4, 0, 0, values, NULL), cshm_panel(feed, 4, SIZE_MAX, 0, values, NULL),
        cshm_wait_closed(feed, 0, 0.0, 0, NULL), cshm_wait_closed(feed, 0, 1.0, strtod("nan", NULL), NULL),
        cshm_attach("no/name", 0, &no_feed), cshm_attach("\xff", 0, &no_feed), cshm_attach("a", strtod("nan", NULL), &no_feed),
    };
    if (no_feed != NULL || no_view != NULL || cshm_last_message()[0] == '\0') abort();
    if (cshm_symbol_count(feed) < 0 || cshm_last_message()[0] != '\0') abort();
    printf("%zu", sizeof answers / sizeof *answers);
    for (size_t call = 0; call < sizeof answers / sizeof *answers; call++) printf(" %d", (int)answers[call]);
}

static int rows_are_whole(const double *columns, size_t stride, int64_t rows) {
    static const int same[] = {CSHM_HIGH, CSHM_LOW, CSHM_CLOSE, CSHM_VOLUME, CSHM_QUOTE_VOLUME,
                               CSHM_TAKER_BUY_VOLUME, CSHM_TAKER_BUY_QUOTE_VOLUME};
    for (int64_t row = 0; row < rows; row++) {
        for (size_t other = 0; other < sizeof same / sizeof *same; other++) {
            const double open = columns[CSHM_OPEN * stride + (size_t)row];
            if (columns[(size_t)same[other] * stride + (size_t)row] != open) return 0;
        }
    }
    return 1;
}

typedef struct { int rounds; long reads, refused, torn; } reading;

/* Reads as fast as it can; every row holds one value in all its value columns, if it is whole. */
static void *read_rounds(void *told) {
    enum { N = 64 };
    reading *mine = told;
    double columns[N * CSHM_COLUMNS], row[CSHM_COLUMNS], close;
    uint8_t states[N];
    for (int round = 0; round < mine->rounds; round++) {
        cshm_view *lent;
        int64_t rows = cshm_candles(series, N, CSHM_HOLES_DROP, columns, N, round % 2 ? states : NULL);
        if (rows < 0 || cshm_live(series, row, NULL) < 0 || cshm_last_close(series, &close) < 0) abort();
        mine->torn += !rows_are_whole(columns, N, rows) + !rows_are_whole(row, 1, 1);
        rows = cshm_view_open(series, N, &lent);
        if (rows < 0) abort();
        for (int number = 0; number < CSHM_COLUMNS; number++) {
            memcpy(columns + number * N, cshm_view_column(lent, number), (size_t)rows * sizeof *columns);
        }
        if (!cshm_view_valid(lent)) {
            mine->refused++;
        } else if (cshm_view_complete(lent)) {
            mine->torn += !rows_are_whole(columns, N, rows);
        }
        cshm_view_close(lent);
        mine->reads++;
    }
    return NULL;
}

static void threads(int rounds) {
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    reading told[THREADS];
    reading sum = {0, 0, 0, 0};
    for (int number = 0; number < THREADS; number++) {
        told[number] = (reading){rounds, 0, 0, 0};
        if (pthread_create(&thread[number], NULL, read_rounds, &told[number]) != 0) abort();
    }
    for (int number = 0; number < THREADS; number++) {
        pthread_join(thread[number], NULL);
        sum.reads += told[number].reads;
        sum.refused += told[number].refused;
        sum.torn += told[number].torn;
    }
    printf("%ld %ld", sum.reads, sum.torn);
}

/* Whether a call is the one, with that many arguments. */
static int is(char *word[], int count, const char *name, int arguments) {
    return strcmp(word[0], name) == 0 && count == arguments + 1;
}

static void obey(char *word[], int count) {
    double value;
    int64_t number = count > 1 ? strtoll(word[1], NULL, 10) : 0;
    size_t n = (size_t)number;
    if (is(word, count, "attach", 2)) {
        printed(cshm_attach(word[1], strtod(word[2], NULL), &feed));
    } else if (is(word, count, "detach", 0)) {
        cshm_detach(feed);
        feed = NULL;
        printf("0");
    } else if (is(word, count, "names", 0)) {
        names();
    } else if (is(word, count, "health", 0)) {
        health();
    } else if (is(word, count, "symbols", 0)) {
        symbols();
    } else if (is(word, count, "series", 1)) {
        cshm_series_free(series);
        printed(cshm_series_of(feed, word[1], &series));
    } else if (is(word, count, "last_close", 0)) {
        if (printed(cshm_last_close(series, &value)) >= 0) print_value(value);
    } else if (is(word, count, "live", 0)) {
        live();
    } else if (is(word, count, "age", 0)) {
        if (printed(cshm_age(series, &value)) >= 0) printf(" %f", value);
    } else if (is(word, count, "last_open_ms", 0)) {
        printed(cshm_last_open_ms(series));
    } else if (is(word, count, "revision", 0)) {
        printed(cshm_revision(series));
    } else if (is(word, count, "candles", 4)) {
        candles(n, atoi(word[2]), (size_t)atoll(word[3]), atoi(word[4]));
    } else if (is(word, count, "column", 3)) {
        column((int)number, (size_t)atoll(word[2]), atoi(word[3]));
    } else if (is(word, count, "gaps", 1)) {
        gaps(n);
    } else if (is(word, count, "view", 1)) {
        open_view(n);
    } else if (is(word, count, "view_columns", 0)) {
        printed(cshm_view_complete(view));
        for (int lent = 0; lent < CSHM_COLUMNS; lent++) print_column(cshm_view_column(view, lent), (int64_t)view_rows);
    } else if (is(word, count, "view_valid", 0)) {
        printed(cshm_view_valid(view));
    } else if (is(word, count, "view_check", 0)) {
        printed(cshm_view_check(view));
    } else if (is(word, count, "view_close", 0)) {
        cshm_view_close(view);
        view = NULL;
        printf("0");
    } else if (is(word, count, "wait_open", 2)) {
        printed(cshm_wait_open(series, number, strtod(word[2], NULL)));
    } else if (is(word, count, "wait_closed", 3)) {
        wait_closed(number, strtod(word[2], NULL), strtod(word[3], NULL));
    } else if (is(word, count, "interrupted_wait", 1)) {
        pthread_t thread;
        double after = strtod(word[1], NULL);
        if (pthread_create(&thread, NULL, interrupt, &after) != 0) abort();
        printed(cshm_wait_open(series, 0, -1));
        pthread_join(thread, NULL);
    } else if (is(word, count, "last", 2)) {
        last((int)number, (size_t)atoll(word[2]));
    } else if (is(word, count, "panel", 4)) {
        panel((int)number, (size_t)atoll(word[2]), atoi(word[3]), (size_t)atoll(word[4]));
    } else if (is(word, count, "nulls", 0)) {
        nulls();
    } else if (is(word, count, "arguments", 0)) {
        arguments();
    } else if (is(word, count, "threads", 1)) {
        threads((int)number);
    } else if (is(word, count, "error_name", 1)) {
        printf("%s", cshm_error_name((int)number));
    } else if (is(word, count, "api", 0)) {
        printf("%d %d", CSHM_API, cshm_api());
    } else {
        printf("no such call: %s", word[0]);
    }
}

int main(void) {
    char line[512];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *word[WORDS_MAX];
        int count = 0;
        for (char *next = strtok(line, " \n"); next != NULL && count < WORDS_MAX; next = strtok(NULL, " \n")) {
            word[count++] = next;
        }
        if (count > 0) obey(word, count);
        printf("\n");
        fflush(stdout);
    }
    cshm_view_close(view);
    cshm_series_free(series);
    cshm_detach(feed);
    return 0;
}
