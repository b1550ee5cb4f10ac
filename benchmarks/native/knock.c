/* Clients that come and go without pause, so many per second, at a server on 127.0.0.1: who of them
 * is not let in?
 *
 * Each line on standard input is answered with one, in JSON; its end is the end. "stop" lets those
 * finish who are at it.
 */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    AT_A_TIME = 1000, /* in progress at most */
    LATE = 5,         /* seconds until a handshake is given up */
    LIFETIME = 1800,  /* and this process, whatever happens to who started it */
};
#define MS 1000000ull

static int port;
static uint32_t rate = 100;
static int stopping;

/* Those that may knock again, and how the others fared. */
static uint32_t spare[AT_A_TIME], spares;
static uint64_t begun, opened, refused, cut, denied, late, slowest;

static void put_back(struct conn *c)
{
    spare[spares++] = (uint32_t)(c - conns);
}

static void let_in(struct conn *c)
{
    uint64_t took = now_ns() - c->since;
    if (took > slowest)
        slowest = took;
    opened++;
    c->size = 1; /* a mark: how it ends is of no interest here */
    send_close(c);
}

static void not_let_in(struct conn *c)
{
    if (c->size) {
    } else if (failure == ECONNREFUSED) {
        refused++;
    } else if (failure == EPROTO) {
        denied++;
    } else {
        cut++;
    }
    put_back(c);
}

/* Give up those who wait for too long; those whose goodbye is not answered were let in. */
static void give_up(void)
{
    for (uint32_t i = 0; i < AT_A_TIME; i++) {
        struct conn *c = conns + i;
        if (c->phase == UNUSED || now_ns() - c->since < LATE * 1000 * MS)
            continue;
        late += !c->size;
        drop(c);
        put_back(c);
    }
}

static void report(void)
{
    printf("{\"begun\": %lu, \"opened\": %lu, \"refused\": %lu, \"cut\": %lu, \"denied\": %lu, "
           "\"late\": %lu, \"slowest_ms\": %.2f}\n",
           begun, opened, refused, cut, denied, late, (double)slowest / 1e6);
    fflush(stdout);
}

static void finish(void)
{
    stopping = 1;
    while (spares < AT_A_TIME) {
        turn(10 * (int64_t)MS);
        give_up();
    }
}

static void knock(void)
{
    uint64_t at_first = now_ns(), looked = at_first;
    char line[64];
    for (;;) {
        if (turn(5 * (int64_t)MS)) {
            ssize_t n = read(STDIN_FILENO, line, sizeof line);
            if (n <= 0)
                return;
            if (line[0] == 's')
                finish();
            report();
        }
        uint64_t now = now_ns();
        double due = (double)(now - at_first) / 1e9 * rate;
        for (; !stopping && (double)begun < due && spares; begun++)
            begin(conns + spare[--spares]);
        if (now - looked > 100 * MS) {
            looked = now;
            give_up();
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"port", 1, 0, 'p'}, {"rate", 1, 0, 'r'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (o == 'p')
            port = atoi(optarg);
        if (o == 'r')
            rate = (uint32_t)atoi(optarg);
    }
    if (!port) {
        fputs("usage: knock --port N [--rate PER_SECOND]\n", stderr);
        return 2;
    }
    /* Whoever started this wants it gone with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIFETIME);
    client_setup(port, AT_A_TIME);
    driver.opened = let_in;
    driver.ended = put_back;
    driver.failed = not_let_in;
    for (uint32_t i = 0; i < AT_A_TIME; i++)
        put_back(conns + i);
    watch_extra(STDIN_FILENO);
    knock();
    for (uint32_t i = 0; i < AT_A_TIME; i++)
        if (conns[i].fd >= 0)
            drop(conns + i);
    return 0;
}
