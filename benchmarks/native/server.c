/* See server.h. */
#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 512, BUFFER = 256 * 1024, PART = 32 * 1024 };

/* By descriptor. A connection gets memory of its own when something first comes in pieces. */
static struct {
    uint8_t *part;
    uint32_t kept;
} parts[MOST];
uint8_t is_open[MOST];
int highest;
static int poller;
/* One byte more: what was read can be ended with a zero. */
static uint8_t in[BUFFER + 1];
static const struct handler *handler;

void die(const char *what)
{
    perror(what);
    exit(1);
}

static void shut(int fd)
{
    if (handler->shut)
        handler->shut(fd);
    free(parts[fd].part);
    memset(parts + fd, 0, sizeof parts[fd]);
    is_open[fd] = 0;
    close(fd);
}

static void take(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
        highest = fd > highest ? fd : highest;
    }
}

static void serve(int fd)
{
    size_t kept = parts[fd].kept, length, at = 0;
    if (kept)
        memcpy(in, parts[fd].part, kept);
    ssize_t n = recv(fd, in + kept, BUFFER - kept, 0);
    if (n <= 0) {
        if (!n || errno != EAGAIN)
            shut(fd);
        return;
    }
    length = kept + (size_t)n;
    in[length] = 0;
    while (at < length) {
        ssize_t taken = is_open[fd] ? handler->frame(fd, in + at, length - at)
                                    : handler->upgrade(fd, in + at, length - at);
        if (taken < 0) {
            shut(fd);
            return;
        }
        if (!taken)
            break;
        at += (size_t)taken;
    }
    kept = length - at;
    if (kept > PART) {
        shut(fd);
        return;
    }
    if (kept && !parts[fd].part && !(parts[fd].part = malloc(PART)))
        die("malloc");
    if (kept)
        memcpy(parts[fd].part, in + at, kept);
    parts[fd].kept = (uint32_t)kept;
}

int run(int argc, char **argv, const struct handler *given)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN}, events[BATCH];
    struct rlimit files;
    int one = 1, listener;
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    handler = given;
    /* Whoever started this wants it gone with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        die("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    event.data.fd = listener;
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    for (;;) {
        int n = epoll_wait(poller, events, BATCH, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                take(listener);
            else
                serve(events[i].data.fd);
        }
    }
}
