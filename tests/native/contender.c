/* Reads the newest row of a symbol, the first one of its block, one instruction at a time: before each of them the parent
 * moves the version of the row's latch on, as no collector could. Prints the error that the reader gets. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "candleshm.h"

enum { FIRST_VERSION = 4096, LATCHES = 4 };

static int read_stepwise(const char *name, const char *symbol) {
    cshm_feed *feed;
    cshm_series *series;
    double row[CSHM_COLUMNS];
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) return 2;
    if (cshm_attach(name, 0, &feed) != CSHM_OK || cshm_series_of(feed, symbol, &series) != CSHM_OK) return 3;
    raise(SIGSTOP);
    const int error = cshm_live(series, row, NULL);
    printf("%s %s\n", cshm_error_name(error), cshm_last_message());
    fflush(stdout);
    return 0;
}

int main(int count, char *word[]) {
    char path[300];
    if (count != 3 || snprintf(path, sizeof path, "/dev/shm/%s", word[1]) < 0) return 4;
    const int file = open(path, O_RDWR);
    char *block = mmap(NULL, FIRST_VERSION + 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || block == MAP_FAILED) return 5;
    const pid_t reader = fork();
    if (reader == 0) _exit(read_stepwise(word[1], word[2]));
    atomic_ullong *version = (atomic_ullong *)(void *)(block + FIRST_VERSION);
    for (;;) {
        int status;
        if (waitpid(reader, &status, 0) != reader) return 6;
        if (!WIFSTOPPED(status)) return WIFEXITED(status) ? WEXITSTATUS(status) : 7;
        atomic_fetch_add(version, LATCHES);
        if (ptrace(PTRACE_SINGLESTEP, reader, NULL, NULL) != 0) return 8;
    }
}
