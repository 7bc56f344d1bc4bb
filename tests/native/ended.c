/* Waits for every close of a replay until there are no more: `ended NAME`. Prints what it saw, and how it ended. */
#include <stdio.h>

#include "candleshm.h"

int main(int count, char **words) {
    cshm_feed *feed;
    cshm_series *series;
    long long closes = 0, newest_ms = 0, code;
    double close = 0;
    if (count != 2 || cshm_attach(words[1], 0, &feed) < 0 || cshm_series_of(feed, "BTCUSDT", &series) < 0) return 1;
    while ((code = (long long)cshm_wait_closed(feed, 0, 1.0, 60.0, NULL)) >= 0) {
        closes += 1;
        newest_ms = code;
    }
    printf("closes: %lld, the newest at %lld\n", closes, newest_ms);
    printf("end: %s, %s\n", cshm_error_name((int)code), cshm_last_message());
    printf("another wait: %s\n", cshm_error_name((int)cshm_wait_open(series, 0, 60.0)));
    int read = cshm_last_close(series, &close);
    printf("still there: %d %.1f\n", read, close);
    cshm_series_free(series);
    cshm_detach(feed);
    return 0;
}
