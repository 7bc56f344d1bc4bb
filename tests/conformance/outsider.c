/* A reader of candleshm blocks that knows nothing but docs/segment-format.md: no library, no header of ours.
 *
 *   outsider read FILE                  what is in the block, as JSON, like the "reading" in cases/NAME.json
 *   outsider hot FILE SECONDS [CHECK]   read beside the hot writer of the tests and judge every row; CHECK names one
 *                                       check that is left out (rev, wmark, tags, version): the control, which must tear
 *   outsider wait FILE SECONDS          sleep until the next close, print the newest settled bar of each symbol
 *   outsider copies                     the copy by words beside the string copy, in microseconds
 *
 * C11 and Linux; comments name the section of the page that each part follows. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef _Atomic uint64_t word;
_Static_assert(sizeof(word) == 8, "atomic words lie in the block as they are");

enum { COLUMNS = 12, PAGE = 4096, SYMBOL = 640, NAME = 64 };
enum { LIVE = 1, CLOSED = 2, VERIFIED = 3, HOLE = 4, MISSING = 5 };
enum { OPEN_TIME = 0, CLOSE = 4, CLOSE_TIME = 6, TRADES = 8, IGNORE = 11 };
/* Fields of "The table" as words. */
enum { H_ABI = 1, H_HASH = 2, H_GENERATION = 6, H_STATE = 7, H_BYTES = 8, H_MARKET = 9, H_INTERVAL = 10, H_LENGTH = 11,
       H_CAPACITY = 12, H_PLACES = 13, H_SYMBOLS_AT = 14, H_DATA_AT = 15, H_SYMBOL_STRIDE = 16, H_DATA_STRIDE = 17,
       H_COLUMN_STRIDE = 18, H_BOOT = 20, H_HEARTBEAT = 26, H_COUNT = 32, H_CLOSE_SEQ = 48, H_UNIVERSE = 56,
       H_READY = 64, H_MISSING = 65, H_HOLES = 66, H_USED = 67, H_LIMIT = 68, H_BANNED = 69, H_ZONE = 72, H_EXCHANGE = 81,
       H_PRICE = 93, H_REPLAY = 94 };
enum { S_VERSION = 0, S_LAST_CLOSE = 1, S_REV = 2, S_WMARK = 3, S_FIRST = 4, S_PHASE = 5, S_TRADING = 6, S_LATCH = 8, S_NAME = 72 };
enum { ATTEMPTS = 3, LATCH_ATTEMPTS = 4096, STRING_COPY_MIN = 64 };

static const unsigned char LAYOUT_HASH[32] = {
    0xce, 0xf0, 0xdc, 0xd9, 0xde, 0x0a, 0x5e, 0x17, 0x96, 0xdc, 0x86, 0x36, 0xcf, 0xfd, 0xdb, 0xb8,
    0x72, 0xfb, 0xeb, 0xa3, 0xea, 0xa9, 0x1f, 0x88, 0xe2, 0x74, 0x38, 0x31, 0xd3, 0x66, 0x9c, 0xb1 };
static const char *const STATES[] = { 0, 0, "ready", "superseded", "closed" };
static const char *const MARKETS[] = { 0, "SPOT", "UM", "CM", "UM", "CM" };
static const char *const PRICES[] = { "trade", "mark", "index", "premium" };
static const char *const INTERVALS[] = { 0, "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M", "1d@" };

typedef struct { const word *words; uint64_t length, capacity, places, symbols_at, data_at, data_stride, column_stride; } block;
typedef struct { const word *entry, *data; uint64_t length, capacity, column_stride; } series;
typedef struct { uint64_t head, solid, final, revision, received_ms; int state; double row[COLUMNS]; } latch;
typedef struct { uint64_t start, count; int live; unsigned char *states; double *rows; } window;   /* column k at rows + k * length */
typedef struct { uint64_t start, count, rev; unsigned char *there; int complete; } view;

/* Checks that the control leaves out. */
static int keep_rev = 1, keep_wmark = 1, keep_tags = 1, keep_version = 1;

static inline uint64_t get(const word *at) { return atomic_load_explicit(at, memory_order_relaxed); }
static inline void fence(void) { atomic_thread_fence(memory_order_acquire); }
static inline uint64_t low(uint64_t value) { return value & 0xFFFFFFFFu; }
static inline uint64_t up_to(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }
static inline uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
static inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }

static double as_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* "Copying". */
static void copy_words(double *to, const word *from, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) to[i] = as_double(get(from + i));
}

static void copy_run(double *to, const word *from, uint64_t count) {
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
    if (count >= STRING_COPY_MIN) {
        uint64_t bytes = count * 8;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
        return;
    }
#endif
    copy_words(to, from, count);
}

/* ---- "What a reader checks before use" ---- */

static int boot_id(uint64_t id[2]) {
    char text[64] = "", digits[33] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file) return 0;
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
    size_t length = 0;
    for (const char *c = text; *c && length < 32; c++)
        if (*c != '-' && *c != '\n') digits[length++] = *c;
    for (int half = 0; half < 2; half++) {
        char part[17] = "";
        memcpy(part, digits + 16 * half, 16);
        id[half] = strtoull(part, 0, 16);
    }
    return length == 32;
}

/* Returns "ok" and fills b, or says why not. */
static const char *open_block(const char *path, block *b) {
    int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return errno == ENOENT ? "not_found" : "corrupt";
    struct stat stat;
    if (fstat(file, &stat) || !S_ISREG(stat.st_mode) || stat.st_uid != geteuid() || stat.st_size < PAGE) {
        close(file);
        return "corrupt";
    }
    uint64_t bytes = (uint64_t)stat.st_size;
    void *mapping = mmap(0, bytes, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapping == MAP_FAILED) return "corrupt";
    const word *w = mapping;
    const char *why = "ok";
    uint64_t market = get(w + H_MARKET), price = get(w + H_PRICE), interval = get(w + H_INTERVAL), state = get(w + H_STATE), boot[2];
    fence();
    unsigned char hash[32];
    for (int i = 0; i < 4; i++) {
        uint64_t part = get(w + H_HASH + i);
        memcpy(hash + 8 * i, &part, 8);
    }
    uint64_t magic = get(w), length = get(w + H_LENGTH), places = get(w + H_PLACES);
    if (memcmp(&magic, "CANDLSHM", 8)) why = "corrupt";
    else if (low(get(w + H_ABI)) != 1 || memcmp(hash, LAYOUT_HASH, 32)) why = "incompatible";
    else if (price > 3 || market < (price ? 4 : 1) || market > (price ? 5 : 3) || interval < 1 || interval > 17) why = "corrupt";
    else if (length < 2 || length > 100000 || places < 1 || places > 16384) why = "corrupt";
    else {
        uint64_t capacity = up_to(length + 64, 8), data_at = up_to(PAGE + SYMBOL * places, PAGE);
        uint64_t column = 16 * capacity + 64, stride = 8 * capacity + COLUMNS * column;
        uint64_t size = up_to(data_at + places * stride, PAGE);
        *b = (block){ w, length, capacity, places, PAGE / 8, data_at / 8, stride / 8, column / 8 };
        if (get(w + H_CAPACITY) != capacity || get(w + H_SYMBOLS_AT) != PAGE || get(w + H_DATA_AT) != data_at ||
            get(w + H_SYMBOL_STRIDE) != SYMBOL || get(w + H_DATA_STRIDE) != stride || get(w + H_COLUMN_STRIDE) != column ||
            get(w + H_BYTES) != size || bytes != size || get(w + H_COUNT) > places) why = "corrupt";
        else if (state < 2 || state > 4) why = "not_found";
        else if (!boot_id(boot) || get(w + H_BOOT) != boot[0] || get(w + H_BOOT + 1) != boot[1]) why = "not_found";
    }
    if (strcmp(why, "ok")) munmap(mapping, bytes);
    return why;
}

static uint64_t symbol_count(const block *b) {
    uint64_t count = get(b->words + H_COUNT);
    fence();
    return least(count, b->places);
}

static series series_at(const block *b, uint64_t place) {
    const word *entry = b->words + b->symbols_at + place * SYMBOL / 8;
    return (series){ entry, b->words + b->data_at + place * b->data_stride, b->length, b->capacity, b->column_stride };
}

/* ---- "The reader's algorithm" ---- */

static int read_latch(const series *s, latch *l) {
    for (int attempt = 0; attempt < LATCH_ATTEMPTS; attempt++) {
        uint64_t version = get(s->entry + S_VERSION);
        fence();
        const word *from = s->entry + S_LATCH + 16 * (version % 4);
        uint64_t head = get(from), marks = get(from + 1), state = get(from + 2);
        l->received_ms = get(from + 3);
        copy_words(l->row, from + 4, COLUMNS);
        fence();
        if (keep_version && get(s->entry + S_VERSION) - version >= 3) continue;
        l->head = low(head);
        l->solid = low(marks);
        l->final = least(marks >> 32, l->head);
        l->state = l->head ? (int)(state & 0xFF) : 0;   /* without a head there is no row */
        l->revision = state >> 32;
        return 1;
    }
    return 0;
}

static int has_live(const latch *l) { return l->state == LIVE; }

static uint64_t start_of(const series *s, const latch *l, uint64_t end, uint64_t count) {
    uint64_t first = get(s->entry + S_FIRST);
    return least(most(most(minus(end, count), minus(l->head, s->length)), first), end);
}

static uint64_t tag_of(const series *s, uint64_t bar) { return get(s->data + bar % s->capacity); }
static uint64_t bar_in(uint64_t tag) { return tag >> 32; }
static int is_final(uint64_t tag, uint64_t bar) { return bar_in(tag) == bar && ((tag & 0xFF) == CLOSED || (tag & 0xFF) == VERIFIED); }
static int state_for(uint64_t tag, uint64_t bar) {
    int state = (int)(tag & 0xFF);
    return bar_in(tag) == bar && state >= LIVE && state <= HOLE ? state : MISSING;
}

static const word *column_at(const series *s, int column, uint64_t bar) {
    return s->data + s->capacity + (uint64_t)column * s->column_stride + bar % s->capacity;
}

static int untouched(const series *s, uint64_t rev, uint64_t start) {
    return (!keep_rev || get(s->entry + S_REV) == rev) && (!keep_wmark || get(s->entry + S_WMARK) <= start + s->capacity);
}

/* The newest n slots, or the newest n final ones. With `precisely` no state is guessed. Returns 0 when contended. */
static int read_window(const series *s, uint64_t n, int closed_only, int precisely, window *out) {
    uint64_t tags[n + 1];
    n = least(n, s->length);
    for (int attempt = 0, fast = !precisely;;) {
        latch l;
        uint64_t rev = get(s->entry + S_REV);
        fence();
        if (!read_latch(s, &l)) return 0;
        out->live = has_live(&l) && !closed_only;
        uint64_t end = closed_only ? l.final : l.head, start = start_of(s, &l, end, n - (uint64_t)out->live);
        uint64_t tagged = fast && start >= l.solid ? most(least(end, l.final), start) : start, count = end - start;
        for (uint64_t bar = tagged; bar < end; bar++) tags[bar - start] = tag_of(s, bar);
        fence();
        for (int k = 0; k < COLUMNS; k++) {
            copy_run(out->rows + (uint64_t)k * s->length, column_at(s, k, start), count);
            if (out->live) out->rows[(uint64_t)k * s->length + count] = l.row[k];
        }
        fence();
        if (tagged > start && !untouched(s, rev, start)) {
            fast = 0;
            continue;
        }
        int moved = 0;
        for (uint64_t bar = start; bar < end; bar++) {
            uint64_t i = bar - start;
            if (bar < tagged) {
                out->states[i] = CLOSED;
                continue;
            }
            int still = !keep_tags || ((tags[i] ^ tag_of(s, bar)) & ~(uint64_t)1) == 0;
            moved |= !still || bar_in(tags[i]) > bar;
            out->states[i] = (unsigned char)(still ? state_for(tags[i], bar) : MISSING);
        }
        moved |= get(s->entry + S_REV) - rev >= (uint64_t)1 << 24;
        if (moved && ++attempt < ATTEMPTS) continue;
        out->start = start;
        out->count = count + (uint64_t)out->live;
        if (out->live) out->states[count] = LIVE;
        return 1;
    }
}

static int is_blank(const series *s, uint64_t bar) {
    for (int k = 0; k < COLUMNS; k++)
        if (!isnan(as_double(get(column_at(s, k, bar))))) return 0;
    return 1;
}

static int open_view(const series *s, uint64_t n, view *v) {
    for (int attempt = 1;; attempt++) {
        latch l;
        v->rev = get(s->entry + S_REV);
        fence();
        if (!read_latch(s, &l)) return 0;
        uint64_t start = start_of(s, &l, l.final, least(n, s->length)), end = l.final;
        int went_on = 0;
        v->complete = 1;
        if (start >= l.solid) {
            for (uint64_t i = 0; i < end - start; i++) v->there[i] = 1;
        } else {
            uint64_t tags[end - start + 1];
            for (uint64_t bar = start; bar < end; bar++) {
                tags[bar - start] = tag_of(s, bar);
                went_on |= bar_in(tags[bar - start]) > bar;
            }
            fence();
            if (went_on && attempt < ATTEMPTS) continue;
            uint64_t first = start;
            for (uint64_t bar = start; bar < end; bar++)
                if (!is_final(tags[bar - start], bar) && !(bar_in(tags[bar - start]) == bar && is_blank(s, bar))) first = bar + 1;
            for (uint64_t bar = first; bar < end; bar++) {
                v->there[bar - first] = (unsigned char)is_final(tags[bar - start], bar);
                v->complete &= v->there[bar - first];
            }
            start = first;
        }
        fence();
        v->start = start;
        v->count = end - start;
        return 1;
    }
}

static int is_valid(const series *s, const view *v) {
    fence();
    if (!untouched(s, v->rev, v->start)) {
        if (get(s->entry + S_REV) - v->rev >= (uint64_t)1 << 23) return 0;
        for (uint64_t i = 0; keep_tags && i < v->count; i++) {
            uint64_t bar = v->start + i, tag = tag_of(s, bar), age = (v->rev - (tag >> 8)) & 0xFFFFFF;
            if (v->there[i] ? !is_final(tag, bar) || age >= (uint64_t)1 << 23 : bar_in(tag) != bar) return 0;
        }
    }
    for (uint64_t i = 0; i < v->count; i++)
        if (!v->there[i] && !is_blank(s, v->start + i)) return 0;
    return 1;
}

static uint64_t newest_settled(const series *s) {
    latch l;
    uint64_t newest = 0;
    if (!read_latch(s, &l)) return 0;
    for (uint64_t bar = start_of(s, &l, l.head, s->length); bar < l.head; bar++) {
        int state = state_for(tag_of(s, bar), bar);
        if (state == CLOSED || state == VERIFIED || state == HOLE) newest = bar;
    }
    fence();
    return newest;
}

/* "Age". Infinity for none, and for times from the future. In a replay times of receipt are of its clock. */
static double age_s(uint64_t stored_ms, uint64_t replay_ms) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t boot_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint64_t now_ms = replay_ms ? replay_ms : boot_ms;
    if (!stored_ms || stored_ms > now_ms + 1000) return INFINITY;
    return (double)minus(now_ms, stored_ms) / 1e3;
}

/* ---- read: what is there, as JSON ---- */

static void print_text(const word *at) {
    unsigned char bytes[NAME + 1] = { 0 };
    for (int i = 0; i < NAME / 8; i++) {
        uint64_t part = get(at + i);
        memcpy(bytes + 8 * i, &part, 8);
    }
    putchar('"');
    for (const unsigned char *c = bytes; *c;) {
        int more = *c < 0x80 ? 0 : *c >= 0xC2 && *c < 0xE0 ? 1 : *c >= 0xE0 && *c < 0xF0 ? 2 : *c >= 0xF0 && *c < 0xF5 ? 3 : -1;
        for (int i = 1; i <= more; i++)
            if ((c[i] & 0xC0) != 0x80) more = -1;
        if (more < 0) printf("\\ufffd"), c++;
        else if (*c < 0x20 || *c == '"' || *c == '\\') printf("\\u%04x", *c), c++;
        else for (int i = 0; i <= more; i++) putchar(*c++);
    }
    putchar('"');
}

static void print_number(double value) {
    if (isnan(value)) printf("null");
    else printf("%.17g", value);
}

static void print_row(const double *values, uint64_t stride) {
    printf("[");
    for (int k = 0; k < COLUMNS; k++) printf(k ? "," : ""), print_number(values[(uint64_t)k * stride]);
    printf("]");
}

static void print_window(const char *name, const series *s, const window *w) {
    printf("\"%s\":{\"start\":%" PRIu64 ",\"states\":[", name, w->start);
    for (uint64_t i = 0; i < w->count; i++) printf("%s%d", i ? "," : "", w->states[i]);
    printf("],\"rows\":[");
    for (uint64_t i = 0; i < w->count; i++) {
        printf(i ? "," : "");
        if (w->states[i] <= VERIFIED) print_row(w->rows + i, s->length);
        else printf("null");
    }
    printf("]},\n");
}

static void print_gaps(const series *s, const window *w) {
    printf("\"gaps\":[");
    uint64_t ring = w->count - (uint64_t)w->live;
    for (uint64_t i = 0, printed = 0; i < ring;) {
        uint64_t bar = w->start + i++;
        int state = w->states[bar - w->start];
        if (state < HOLE || bar_in(tag_of(s, bar)) > bar) continue;
        while (i < ring && w->states[i] == state && bar_in(tag_of(s, w->start + i)) <= w->start + i) i++;
        printf("%s[%" PRIu64 ",%" PRIu64 ",%d]", printed++ ? "," : "", bar, w->start + i, state == HOLE);
    }
    printf("],\n");
}

static int print_series(const series *s, uint64_t replay_ms) {
    uint64_t n = s->length;
    unsigned char states[n + 1];
    double *rows = malloc(sizeof(double) * COLUMNS * n);
    latch l;
    window w = { 0, 0, 0, states, rows };
    view v = { 0, 0, 0, states, 0 };
    if (!rows || !read_latch(s, &l)) return 1;
    printf("{\"symbol\":");
    print_text(s->entry + S_NAME);
    printf(",\"first_bar\":%" PRIu64 ",\"phase_days\":%" PRIu64 ",\"trading\":%" PRIu64, get(s->entry + S_FIRST),
           get(s->entry + S_PHASE), get(s->entry + S_TRADING));
    printf(",\"last_close\":");
    print_number(as_double(get(s->entry + S_LAST_CLOSE)));
    printf(",\"age\":\"%s\"", isinf(age_s(l.received_ms, replay_ms)) ? "none" : "known");
    printf(",\"head\":%" PRIu64 ",\"final\":%" PRIu64 ",\"revision\":%" PRIu64, l.head, l.final, l.revision);
    int there_is_one = l.head && l.state >= LIVE && l.state <= VERIFIED;
    printf(",\n\"newest\":{\"state\":%d,\"row\":", there_is_one ? l.state : 0);
    if (there_is_one) print_row(l.row, 1);
    else printf("null");
    printf("},\n");
    if (!read_window(s, n, 0, 1, &w)) return 1;
    print_window("candles", s, &w);
    print_gaps(s, &w);
    if (!read_window(s, n, 1, 1, &w)) return 1;
    print_window("closed_only", s, &w);
    if (!open_view(s, n, &v)) return 1;
    for (int k = 0; k < COLUMNS; k++) copy_run(rows + (uint64_t)k * n, column_at(s, k, v.start), v.count);
    int valid = is_valid(s, &v);
    printf("\"view\":{\"start\":%" PRIu64 ",\"count\":%" PRIu64 ",\"complete\":%s,\"valid\":%s,\"rows\":", v.start, v.count,
           v.complete ? "true" : "false", valid ? "true" : "false");
    printf(valid ? "[" : "null");
    for (uint64_t i = 0; valid && i < v.count; i++) {
        printf(i ? "," : "");
        if (v.there[i]) print_row(rows + i, n);
        else printf("null");
    }
    printf("%s},\n\"newest_settled\":%" PRIu64 "}", valid ? "]" : "", newest_settled(s));
    free(rows);
    return 0;
}

static int print_block(const char *path) {
    block b;
    const char *why = open_block(path, &b);
    printf("{\"open\":\"%s\"", why);
    if (!strcmp(why, "ok")) {
        const word *w = b.words;
        printf(",\"minor\":%" PRIu64 ",\"state\":\"%s\",\"market\":\"%s\",\"price\":\"%s\",\"interval\":",
               get(w + H_ABI) >> 32, STATES[get(w + H_STATE)], MARKETS[get(w + H_MARKET)], PRICES[get(w + H_PRICE)]);
        printf("\"%s", INTERVALS[get(w + H_INTERVAL)]);
        for (int i = 0; i < NAME; i++) {
            char c = (char)(get(w + H_ZONE + i / 8) >> 8 * (i % 8));
            if (!c) break;
            putchar(c);
        }
        printf("\",\"exchange\":");
        print_text(w + H_EXCHANGE);
        static const struct { const char *name; int at; } numbers[] = {
            { "generation", H_GENERATION }, { "length", H_LENGTH }, { "ready", H_READY }, { "missing", H_MISSING },
            { "holes", H_HOLES }, { "universe_bar", H_UNIVERSE }, { "weight_used", H_USED }, { "weight_limit", H_LIMIT },
            { "banned_until_ms", H_BANNED } };
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            printf(",\"%s\":%" PRIu64, numbers[i].name, get(w + numbers[i].at));
        printf(",\"collector\":\"%s\"", isinf(age_s(get(w + H_HEARTBEAT) / 1000000, 0)) ? "in the future" : "alive once");
        printf(",\n\"series\":[");
        for (uint64_t place = 0; place < symbol_count(&b); place++) {
            series s = series_at(&b, place);
            printf(place ? ",\n" : "");
            if (print_series(&s, get(w + H_REPLAY))) return 1;
        }
        printf("]");
    }
    printf("}\n");
    return 0;
}

/* ---- hot: beside the hot writer of the tests, whose rows hold one value in all value columns ---- */

typedef struct { uint64_t reads, rows, torn, foreign, order, refused; } tally;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The writer's candles are of 1 s, and the whole part of a value is its bar, counted from START_S. */
static void judge(tally *t, const double *row, uint64_t stride, double *last) {
    static const double START_S = 1700000040.0;
    double value = row[CLOSE * stride], bar = row[OPEN_TIME * stride] / 1e3 - START_S;
    int alike = 1;
    for (uint64_t k = 0; k < COLUMNS; k++) {
        if (k == OPEN_TIME || k == CLOSE_TIME || k == IGNORE) continue;
        alike &= row[k * stride] == (k == TRADES ? trunc(value) : value);
    }
    t->rows++;
    t->torn += !alike;
    t->foreign += floor(value) != bar;
    t->order += !(bar > *last);
    *last = bar;
}

static int run_hot(const char *path, double run_s) {
    block b;
    const char *why = open_block(path, &b);
    if (strcmp(why, "ok")) return fprintf(stderr, "%s: %s\n", path, why), 1;
    uint64_t n = b.length, count = symbol_count(&b);
    unsigned char *states = malloc(n + 1);
    double *rows = malloc(sizeof(double) * COLUMNS * n), until = seconds() + run_s;
    tally ways[4] = { { 0 } };   /* candles, precise, view, newest row */
    static const char *const names[] = { "candles", "precise", "view", "newest" };
    if (!states || !rows || !count) return fprintf(stderr, "no memory, or no symbols\n"), 1;
    for (uint64_t turn = 0; turn % 64 || seconds() < until; turn++) {
        series s = series_at(&b, turn % count);
        uint64_t want = turn % 7 == 0 ? n : 16 + turn % 64;
        window w = { 0, 0, 0, states, rows };
        view v = { 0, 0, 0, states, 0 };
        latch l;
        double last = -1;
        for (int way = 0; way < 2; way++, last = -1) {
            if (!read_window(&s, least(want, n), 0, way, &w)) continue;
            ways[way].reads++;
            for (uint64_t i = 0; i < w.count; i++)
                if (w.states[i] <= VERIFIED) judge(&ways[way], rows + i, n, &last);
        }
        if (open_view(&s, want, &v)) {
            for (int k = 0; k < COLUMNS; k++) copy_run(rows + (uint64_t)k * n, column_at(&s, k, v.start), v.count);
            if (!is_valid(&s, &v)) ways[2].refused++;
            else {
                ways[2].reads++;
                for (uint64_t i = 0; i < v.count; i++)
                    if (v.there[i]) judge(&ways[2], rows + i, n, &last);
            }
        }
        for (int i = 0; i < 16; i++, last = -1)
            if (read_latch(&s, &l) && l.state >= LIVE && l.state <= VERIFIED) ways[3].reads++, judge(&ways[3], l.row, 1, &last);
    }
    printf("{");
    for (int way = 0; way < 4; way++) {
        tally t = ways[way];
        printf("%s\"%s\":{\"reads\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"torn\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"order\":%" PRIu64
               ",\"refused\":%" PRIu64 "}", way ? "," : "", names[way], t.reads, t.rows, t.torn, t.foreign, t.order, t.refused);
    }
    printf("}\n");
    free(states);
    free(rows);
    return 0;
}

/* ---- "Waiting" ---- */

static int run_wait(const char *path, double run_s) {
    block b;
    const char *why = open_block(path, &b);
    if (strcmp(why, "ok")) return fprintf(stderr, "%s: %s\n", path, why), 1;
    double until = seconds() + run_s;
    const word *close_seq = b.words + H_CLOSE_SEQ;
    uint32_t first = (uint32_t)low(get(close_seq));
    for (;;) {
        uint32_t seen = (uint32_t)low(get(close_seq));
        fence();
        if (seen != first) break;
        double left = until - seconds();
        if (left <= 0) return fprintf(stderr, "%s: nothing closed\n", path), 2;
        left = left < 1 ? left : 1;
        struct timespec slice = { (time_t)left, (long)((left - floor(left)) * 1e9) };
        syscall(SYS_futex, (const void *)close_seq, FUTEX_WAIT, seen, &slice, (void *)0, 0);
    }
    for (uint64_t place = 0; place < symbol_count(&b); place++) {
        series s = series_at(&b, place);
        printf("%" PRIu64 "\n", newest_settled(&s));
    }
    return 0;
}

/* ---- "Copying" ---- */

static int run_copies(void) {
    static const uint64_t sizes[] = { 16, 64, 256, 1440, 10000 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t n = sizes[i], stride = up_to(2 * (n + 64) + 8, 8), per = 300000 / n + 1;
        word *from = aligned_alloc(64, COLUMNS * stride * 8);
        double *to = aligned_alloc(64, up_to(COLUMNS * n * 8, 64)), best[2] = { 1, 1 };
        if (!from || !to) return 1;
        for (uint64_t at = 0; at < COLUMNS * stride; at++) atomic_init(from + at, at);
        memset(to, 0, COLUMNS * n * 8);
        for (int round = 0; round < 100; round++) {
            double started = seconds();
            for (uint64_t k = 0; k < per * COLUMNS; k++) {
                uint64_t column = k % COLUMNS;
                if (round % 2) copy_run(to + column * n, from + column * stride, n);
                else copy_words(to + column * n, from + column * stride, n);
            }
            double took = (seconds() - started) / (double)per * 1e6;
            if (round < 2 || took < best[round % 2]) best[round % 2] = took;
        }
        printf("%6" PRIu64 " rows x %d columns: words %.2f us, copy_run %.2f us\n", n, COLUMNS, best[0], best[1]);
        free(from);
        free(to);
    }
    return 0;
}

int main(int count, char **words) {
    if (count == 5) {
        keep_rev = strcmp(words[4], "rev") != 0;
        keep_wmark = strcmp(words[4], "wmark") != 0;
        keep_tags = strcmp(words[4], "tags") != 0;
        keep_version = strcmp(words[4], "version") != 0;
    }
    if (count == 3 && !strcmp(words[1], "read")) return print_block(words[2]);
    if (count >= 4 && !strcmp(words[1], "hot")) return run_hot(words[2], atof(words[3]));
    if (count == 4 && !strcmp(words[1], "wait")) return run_wait(words[2], atof(words[3]));
    if (count == 2 && !strcmp(words[1], "copies")) return run_copies();
    fprintf(stderr, "usage: outsider read FILE | hot FILE SECONDS [rev|wmark|tags|version] | wait FILE SECONDS | copies\n");
    return 1;
}
