/* What the floors share: one thread, one epoll, no checks, no limits, no counters. */
#include <stdint.h>
#include <sys/types.h>

enum { MOST = 65536 };

/* What a floor does. The first two return the bytes taken, 0 while not all has come, -1 to close. */
struct handler {
    ssize_t (*upgrade)(int fd, uint8_t *data, size_t length); /* sets is_open when it answered */
    ssize_t (*frame)(int fd, uint8_t *data, size_t length);
    void (*shut)(int fd); /* or NULL */
};

/* By descriptor; and the highest there was. */
extern uint8_t is_open[MOST];
extern int highest;

void die(const char *what) __attribute__((noreturn));

/* Serve on loopback, on the port that is the one argument, until killed. */
int run(int argc, char **argv, const struct handler *handler);
