/* candleshm.h - read the blocks of candleshm from C, C++, Go, Julia, Node, and whatever else can call C.
 *
 * Nothing here waits for a collector, except the functions called wait. Every function may be called from any thread,
 * also for the same feed, series or view, except that what is freed must not be in use. Only pointers, int64_t,
 * size_t, double and int cross the border: no structs by value, no callbacks, no errno. Memory that a call fills
 * is the call's alone until it returns, and need not be set before. Handles are not to be used in a child after
 * fork(), unless exec follows. Times called _ms are epoch milliseconds, UTC; those called _s are seconds. */
#ifndef CANDLESHM_H
#define CANDLESHM_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define CSHM_API 1              /* of this header; cshm_api() tells the library's, which has to be the same */
#define CSHM_COLUMNS 12
#define CSHM_SYMBOL_BYTES 65    /* of the longest name of a symbol, its NUL included */

/* The columns of a row. Times, and the number of trades, are whole numbers. */
enum {
    CSHM_OPEN_TIME_MS, CSHM_OPEN, CSHM_HIGH, CSHM_LOW, CSHM_CLOSE, CSHM_VOLUME, CSHM_CLOSE_TIME_MS, CSHM_QUOTE_VOLUME,
    CSHM_TRADES, CSHM_TAKER_BUY_VOLUME, CSHM_TAKER_BUY_QUOTE_VOLUME, CSHM_IGNORE
};

/* The states of a row, as RowState in Python. CSHM_EMPTY: the symbol has no row yet (cshm_live only). */
enum { CSHM_EMPTY = 0, CSHM_LIVE = 1, CSHM_FINAL = 2, CSHM_VERIFIED = 3, CSHM_HOLE = 4, CSHM_MISSING = 5 };

/* The states of a block. READY: of the block, not of its data, see cshm_health.ready. SUPERSEDED: another one has the
 * name, or will at once. CLOSED: the collector ended and removed the name. */
enum { CSHM_STATE_READY = 2, CSHM_STATE_SUPERSEDED = 3, CSHM_STATE_CLOSED = 4 };

/* A call that returns an int or int64_t returns one of these when it failed, and 0 or more otherwise. After a failure,
 * what the call was to fill holds no answer: pointers are NULL, other memory may be half filled. */
enum cshm_error {
    CSHM_OK = 0,
    CSHM_NOT_FOUND = -1,        /* no block of that name, or half initialised, or left over from before the boot */
    CSHM_INCOMPATIBLE = -2,     /* written in another format: use the same version of candleshm on both sides */
    CSHM_CORRUPT = -3,          /* not a block, or its header contradicts itself */
    CSHM_UNAVAILABLE = -4,      /* the system refused: permissions, another user's block */
    CSHM_UNKNOWN_SYMBOL = -5,   /* the block does not carry it, or the one that took the name no longer does */
    CSHM_STALE = -6,            /* older than max_age_s, or delisted; a wait: the collector shows no life for as long */
    CSHM_TIMEOUT = -7,          /* a wait was in vain, or ended by cshm_interrupt */
    CSHM_GAP = -8,              /* a row is absent, with CSHM_HOLES_RAISE only */
    CSHM_OVERWRITTEN = -9,      /* rows of a view changed: discard what was computed (cshm_view_check only) */
    CSHM_ARGUMENT = -10,        /* an argument cannot be used: NULL, n = 0, a column above 11, ... */
    CSHM_CONTENDED = -11,       /* the newest row changed during every one of 4096 attempts to read it; try again */
    CSHM_INTERNAL = -12,        /* a fault in this library: please report what cshm_last_message says */
    CSHM_ENDED = -13            /* the replay that a wait is in has no later moment */
};
const char *cshm_error_name(int error);          /* "CSHM_STALE"; "unknown" for what is none. Never freed. */
/* Of this thread's newest call, one line in English for people: "" when it succeeded. Stays until this thread's next
 * failure. Calls that return nothing, and cshm_error_name, cshm_api and this one, do not change it, unless they fail. */
const char *cshm_last_message(void);
int cshm_api(void);

/* ---- blocks ---- */
typedef struct cshm_feed cshm_feed;              /* a name, and the block that has it now: follows by itself */
typedef struct cshm_series cshm_series;          /* a symbol of a feed; cheap to keep, follows as well */
typedef struct cshm_view cshm_view;              /* final rows in place */

/* Data that was last confirmed longer than max_age_s ago is not handed out: CSHM_STALE. 0 and less: any age is good.
 * Blocks of other users are believed when they are shared with the group that the environment variable
 * CANDLESHM_GROUP (a name of /etc/group, or a number) names at the first call. */
int cshm_attach(const char *name, double max_age_s, cshm_feed **out);
void cshm_detach(cshm_feed *feed);               /* NULL is fine. Series and views stay usable, and go on following. */

/* The blocks of this machine that can be read, each followed by \n, and a NUL at the end. Returns the bytes needed, the
 * NUL included; when there are fewer, the text is cut. bytes may be 0, and out NULL then. */
int cshm_names(char *out, size_t bytes);

typedef struct {
    uint32_t size;                               /* to be sizeof(cshm_health) before the call: later versions are longer */
    uint32_t state;                              /* CSHM_STATE_*; 0 in a damaged block */
    uint32_t ready;                              /* 1: all was loaded, a heartbeat within 5 s, and the data is current */
    uint32_t loaded;                             /* 1: every symbol was loaded once */
    char market[8], interval[80], exchange[80];  /* "SPOT" "UM" "CM"; "1m", "1d@Asia/Shanghai"; "binance" or "" */
    char price[8];                               /* what the prices are: "trade", "mark", "index", "premium" */
    uint64_t generation;                         /* blocks that have stood under the name one after the other */
    uint64_t length;                             /* rows of a full window, the live one included */
    uint64_t symbols, symbol_capacity;           /* that the block carries; that it has room for */
    uint64_t missing, holes;                     /* rows of all windows that are not fetched yet; that do not exist */
    uint64_t pid;                                /* the collector's process */
    uint64_t weight_used, weight_limit;          /* request weight of the exchange's current minute */
    uint64_t failing, polled;                    /* symbols whose newest request failed; kept fresh without a stream */
    uint64_t stale;                              /* symbols that trade, and whose data is older than max_age_s or 60 s */
    int64_t banned_until_ms;                     /* until when the exchange refuses requests; 0: it does not */
    double heartbeat_age_s;                      /* of the collector; infinity when it lies in the future */
    double oldest_age_s;                         /* of the symbols that trade; infinity while none has any data */
    /* Of a block of a cluster; its leader is a process that sent the newest rows. */
    uint64_t epoch;                              /* of that leader; 0 outside a cluster, and of a collector alone in it */
    int64_t source_ms;                           /* when its newest message was sent, by the exchange's clock; 0: unknown */
    double lag_s;                                /* how long that was on its way, or ago, once nothing came for more than
                                                  * 3 s; 0 at a leader, NaN where nothing can come */
    int64_t replay_ms;                           /* the replayed time, in a block of a replay: ages count by it; else 0 */
    char source[80];                             /* that leader, "host/pid", or the collector alone itself; else "" */
} cshm_health;
int cshm_get_health(const cshm_feed *feed, cshm_health *out);

/* Symbols have places, 0 to cshm_symbol_count - 1. A place keeps its symbol as long as the same block has the name, and
 * symbols that are added come behind; another block may order them otherwise. Then cshm_last, cshm_panel and
 * cshm_wait_closed with missing fail with CSHM_UNKNOWN_SYMBOL until the number and the names have been asked for again.
 * The feed remembers the number that this function returned last (after attaching: how many there were), and
 * cshm_wait_closed and cshm_panel fill memory for so many symbols, whatever the collector adds meanwhile. Threads that
 * call it for the same feed at different times must have room for the largest number; else attach once in each. */
int64_t cshm_symbol_count(const cshm_feed *feed);
int cshm_symbol_name(const cshm_feed *feed, size_t place, char *out /* CSHM_SYMBOL_BYTES */);

/* ---- one symbol ---- */
int cshm_series_of(cshm_feed *feed, const char *symbol, cshm_series **out);
void cshm_series_free(cshm_series *series);      /* NULL is fine. Views stay usable. */
int cshm_last_close(const cshm_series *series, double *out);                      /* NaN while there is no row */
/* The newest row and its state, which may be NULL. NaN and CSHM_EMPTY while there is none. */
int cshm_live(const cshm_series *series, double row[CSHM_COLUMNS], int *state);
int cshm_age(const cshm_series *series, double *out_s);  /* since the exchange confirmed it; infinity before that */
int64_t cshm_last_open_ms(const cshm_series *series);    /* of the newest row; 0 while there is none */
int64_t cshm_revision(const cshm_series *series);        /* how often closed rows were corrected so far */
/* The last three never return CSHM_STALE. */

/* What becomes of slots without a row: they are left out, so that there are fewer rows than slots; they stay, as their
 * open time and NaN; the call fails with CSHM_GAP. CSHM_CLOSED_ONLY, added to one of them, leaves out rows that are not
 * final, and ends before the first of these. */
enum { CSHM_HOLES_DROP = 0, CSHM_HOLES_NAN = 1, CSHM_HOLES_RAISE = 2, CSHM_CLOSED_ONLY = 16 };
/* The newest n slots with the live one, oldest first, from one moment; no more than LENGTH of the block. Column k of
 * row i is columns[k * stride + i]; stride >= n, and columns has 11 * stride + n places, or more. states (n bytes)
 * may be NULL, which is faster. Places behind the last row may be changed as well. Returns how many rows. */
int64_t cshm_candles(const cshm_series *series, size_t n, int flags, double *columns, size_t stride, uint8_t *states);
int64_t cshm_column(const cshm_series *series, int column, size_t n, int flags, double *values);   /* one column only */

typedef struct { int64_t start_ms, end_ms; int32_t is_hole, reserved; } cshm_gap;  /* open times, half open */
/* The gaps among the newest LENGTH slots, oldest first, as many as there is room for. Returns how many there are. Never
 * CSHM_STALE. is_hole: the exchange has no such rows; else they are not fetched yet. out may be NULL when room is 0. */
int64_t cshm_gaps(const cshm_series *series, cshm_gap *out, size_t room);

/* The newest n final rows in place, nothing is copied; fewer if there are fewer. Values may change under the reader:
 * believe what was computed only when cshm_view_valid, asked afterwards, says 1. The columns stay readable until the
 * view is closed, also when the collector ends. Returns rows; *out is to be closed. */
int64_t cshm_view_open(const cshm_series *series, size_t n, cshm_view **out);
const double *cshm_view_column(const cshm_view *view, int column);  /* oldest first, NaN where there is no row; or NULL */
int cshm_view_complete(const cshm_view *view);   /* 1: every slot has a row; 0: some are NaN */
int cshm_view_valid(const cshm_view *view);      /* 1: no row was overwritten or revised so far; 0: discard */
int cshm_view_check(const cshm_view *view);      /* the same as an error: CSHM_OK or CSHM_OVERWRITTEN */
void cshm_view_close(cshm_view *view);           /* NULL is fine. */

/* ---- waiting: sleeps until the collector announces something, in slices of a second at most, so that another block of
 * the name, and a collector that died, are noticed. timeout_s below 0: for ever. Signals do not end a wait.
 * cshm_interrupt, which may be called from any thread (not from a signal's handler), ends all waits of the feed and its
 * series that are under way in this process, with CSHM_TIMEOUT: most at once, all within a second. A wait that
 * begins afterwards is not ended. ---- */
/* Until a candle opens that is newer than that of after_open_ms (0: than the newest one now). Returns its open time. */
int64_t cshm_wait_open(const cshm_series *series, int64_t after_open_ms, double timeout_s);
/* Until the candle that contains open_ms (0: the next one to close) is final for the part quorum, above 0 and at most 1,
 * of the symbols that trade and have rows; a hole counts. Returns its open time. missing, as many bytes as
 * cshm_symbol_count returned last, or NULL, is 1 for those that do not have it final, also after CSHM_TIMEOUT. */
int64_t cshm_wait_closed(cshm_feed *feed, int64_t open_ms, double quorum, double timeout_s, uint8_t *missing);
void cshm_interrupt(cshm_feed *feed);

/* ---- many symbols, in their places. CSHM_STALE when one that trades and has rows is too old. ---- */
/* The newest value of each, NaN where there is none, as many as there is room for. Returns how many symbols there are. */
int64_t cshm_last(cshm_feed *feed, int column, double *values, size_t room);
/* The newest n rows of all, aligned: up to the newest candle that all symbols that trade have final, or, with live not
 * 0, up to the newest one that any of them has. Row i of the symbol at place s is values[s * n + i], NaN where there is
 * none; values has n places for each symbol of cshm_symbol_count's last answer. open_ms (n places, or NULL) are the
 * open times of the rows. Returns how many rows, oldest first; places behind them are NaN. */
int64_t cshm_panel(cshm_feed *feed, int column, size_t n, int live, double *values, int64_t *open_ms);
#ifdef __cplusplus
}
#endif
#endif
