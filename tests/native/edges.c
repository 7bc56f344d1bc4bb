/* What a caller may do wrong, and when it may still read: `edges NAME`. Prints a line for each finding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "candleshm.h"

static cshm_feed *feed;
static cshm_series *btc;

static void at_exit(void) {
    double close = 0, columns[CSHM_COLUMNS * 4];
    uint8_t states[4];
    printf("at exit: %d %lld\n", cshm_last_close(btc, &close), (long long)cshm_candles(btc, 4, 0, columns, 4, states));
}

int main(int count, char **words) {
    if (count != 2) return 1;
    cshm_feed *no_feed = (cshm_feed *)words;
    cshm_series *no_series = (cshm_series *)words, *other = (cshm_series *)words;
    cshm_view *no_view = (cshm_view *)words;
    int first = cshm_attach(NULL, 0, &no_feed), second = cshm_series_of(NULL, "BTCUSDT", &no_series);
    long long third = (long long)cshm_view_open(NULL, 1, &no_view);
    if (cshm_attach(words[1], 0, &feed) < 0 || cshm_series_of(feed, "BTCUSDT", &btc) < 0) return 1;
    int fourth = cshm_series_of(feed, NULL, &other);
    printf("pointers: %d %d %lld %d, %s\n", first, second, third, fourth,
           no_feed || no_series || no_view || other ? "not NULL" : "NULL");

    char said[200];
    snprintf(said, sizeof said, "%s", cshm_last_message());
    cshm_interrupt(feed);
    printf("message: %s\n", *said && !strcmp(said, cshm_last_message()) ? "kept" : "lost");
    printf("negative: %s\n", cshm_error_name((int)cshm_wait_closed(feed, -1, 1.0, 0.0, NULL)));
    atexit(at_exit);
    return 0;
}
