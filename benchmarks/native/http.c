/* HTTP/1.1 requests at a server on 127.0.0.1: one in flight on each connection, kept alive, or a
 * connection for each request.
 *
 * The answers are looked at: a status of 200 and so many bytes of body as Content-Length says. The
 * last line on standard output is JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024, BATCH = 256, ANSWER = 16384 };

/* What a browser sends, about: 400 bytes. */
static const char request_format[] =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: %s\r\n\r\n";

static struct conn {
    int fd;
    int have;
    uint64_t begun;
    char answer[ANSWER];
} conns[MOST];

static int poller, port, keep = 1;
static char request[1024];
static size_t request_length;
static uint64_t answered, *times, room, errors;
static int measuring;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void ask(struct conn *c)
{
    c->have = 0;
    if (keep)
        c->begun = now_ns();
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        die("send");
}

static void open_one(struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->begun = now_ns();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0)
        die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e) < 0)
        die("epoll_ctl");
    ask(c);
}

/* The length of a whole answer, 0 if it is not whole yet, -1 if it is none. */
static int whole(struct conn *c)
{
    c->answer[c->have] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end)
        return 0;
    if (strncmp(c->answer, "HTTP/1.1 200", 12))
        return -1;
    char *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (!length || length > end)
        return -1;
    int all = (int)(end + 4 - c->answer) + atoi(length + 17);
    return c->have < all ? 0 : c->have == all ? all : -1;
}

static void wrong(struct conn *c, const char *what)
{
    if (!errors++)
        fprintf(stderr, "%s: %.200s\n", what, c->answer);
}

static void done(struct conn *c)
{
    if (measuring && answered < room)
        times[answered++] = now_ns() - c->begun;
    if (keep) {
        ask(c);
    } else {
        struct linger hard = {1, 0}; /* no TIME_WAIT: ports are few */
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(c->fd);
        open_one(c);
    }
}

static void take(struct conn *c)
{
    ssize_t got = recv(c->fd, c->answer + c->have, (size_t)(ANSWER - 1 - c->have), 0);
    if (got <= 0) {
        wrong(c, "ended early");
        exit(1);
    }
    c->have += (int)got;
    int length = whole(c);
    if (length < 0) {
        wrong(c, "not what was asked for");
        exit(1);
    }
    if (length)
        done(c);
}

static void run(uint64_t until)
{
    struct epoll_event events[BATCH];
    while (now_ns() < until) {
        int count = epoll_wait(poller, events, BATCH, 100);
        for (int i = 0; i < count; i++)
            take(events[i].data.ptr);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double cpu(int pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!pid || !file)
        return 0;
    unsigned long user = 0, system = 0;
    if (fgets(line, sizeof line, file))
        sscanf(strrchr(line, ')') + 2,
               "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'},
        {"warmup", 1, 0, 'w'}, {"keep", 1, 0, 'k'}, {"pid", 1, 0, 'i'}, {0, 0, 0, 0},
    };
    int connections = 50, pid = 0;
    double seconds = 2, warmup = 0.5;
    for (int o; (o = getopt_long(argc, argv, "", options, 0)) >= 0;) {
        switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 'k': keep = atoi(optarg); break;
        case 'i': pid = atoi(optarg); break;
        default: return 2;
        }
    }
    if (connections < 1 || connections > MOST || !port) {
        fprintf(stderr, "http --port N [--connections 1..%d] [--seconds S] [--keep 0|1]\n", MOST);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    request_length = (size_t)snprintf(request, sizeof request, request_format,
                                      keep ? "keep-alive" : "close");
    room = (uint64_t)((seconds + 1) * 400000);
    times = malloc(room * sizeof *times);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!times || poller < 0)
        die("start");
    for (int i = 0; i < connections; i++)
        open_one(&conns[i]);
    run(now_ns() + (uint64_t)(warmup * 1e9));
    measuring = 1;
    double cpu_before = cpu(pid);
    uint64_t began = now_ns();
    run(began + (uint64_t)(seconds * 1e9));
    double took = (double)(now_ns() - began) / 1e9;
    double used = cpu(pid) - cpu_before;
    if (!answered) {
        fprintf(stderr, "no answer\n");
        return 1;
    }
    qsort(times, answered, sizeof *times, compare);
    printf("{\"requests_per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"server_cpu_us\": %.3f, \"errors\": %lu}\n",
           (double)answered / took, (double)times[answered / 2] / 1e3,
           (double)times[answered * 99 / 100] / 1e3, used * 1e6 / (double)answered,
           (unsigned long)errors);
    return 0;
}
