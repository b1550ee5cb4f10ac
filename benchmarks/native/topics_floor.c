/* The floor of topics: what publishing costs when nothing but the system calls is paid for.
 *
 * One thread, one epoll, no checks, no limits, no counters: "sub tN" puts a connection into a list,
 * "pub tN TEXT" is one loop of send() over it, and every client's handshake key is taken for
 * RFC 6455's example, as all clients of these measurements send that.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 512, MOST = 65536, BUFFER = 64 * 1024, PART = 1024 };

/* By descriptor. A client has one topic at most. */
static struct {
    uint8_t open, joined, *part;
    uint32_t kept;
    int topic;
} peers[MOST];
/* By number. */
static struct {
    int *members, count, room;
} topics[MOST];
static int poller;
static uint8_t in[BUFFER + PART];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void shut(int fd)
{
    if (peers[fd].joined) {
        int *members = topics[peers[fd].topic].members, last = --topics[peers[fd].topic].count, i = 0;
        while (members[i] != fd)
            i++;
        members[i] = members[last];
    }
    free(peers[fd].part);
    memset(peers + fd, 0, sizeof peers[fd]);
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
    }
}

static void say(int fd, const char *text)
{
    uint8_t frame[64] = {0x81, (uint8_t)strlen(text)};
    memcpy(frame + 2, text, frame[1]);
    send(fd, frame, 2u + frame[1], MSG_NOSIGNAL);
}

/* The upgrade, when its head is whole. Returns the bytes taken; 0 while it is not; -1 to close. */
static ssize_t upgrade(int fd, const uint8_t *data, size_t length)
{
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        return -1;
    peers[fd].open = 1;
    return end + 4 - data;
}

static void join(int fd, int topic)
{
    if (topics[topic].count == topics[topic].room) {
        topics[topic].room = topics[topic].room ? 2 * topics[topic].room : 16;
        topics[topic].members =
            realloc(topics[topic].members, sizeof(int) * (size_t)topics[topic].room);
        if (!topics[topic].members)
            die("realloc");
    }
    topics[topic].members[topics[topic].count++] = fd;
    peers[fd].joined = 1;
    peers[fd].topic = topic;
}

/* One short frame, when it is whole. Returns the bytes taken; 0 while it is not; -1 to close. */
static ssize_t frame(int fd, uint8_t *data, size_t length)
{
    size_t size = length < 2 ? 0 : data[1] & 127;
    char word[32], *end;
    if (length < 6 || length < 6 + size)
        return 0;
    uint8_t *payload = data + 6;
    for (size_t i = 0; i < size; i++)
        payload[i] ^= data[2 + i % 4];
    if ((data[0] & 15) != 1)
        return (data[0] & 15) == 8 ? -1 : (ssize_t)(6 + size);
    if (size > 5 && !memcmp(payload, "pub t", 5)) {
        int topic = (int)strtol((char *)payload + 5, &end, 10);
        uint8_t *text = (uint8_t *)end + 1, *reply = text - 2;
        size_t left = (size_t)(payload + size - text);
        reply[0] = 0x81;
        reply[1] = (uint8_t)left;
        for (int i = 0; i < topics[topic].count; i++)
            send(topics[topic].members[i], reply, left + 2, MSG_NOSIGNAL);
        return (ssize_t)(6 + size);
    }
    if (size > 5 && !memcmp(payload, "sub t", 5))
        join(fd, (int)strtol((char *)payload + 5, NULL, 10));
    snprintf(word, sizeof word, "ok %d", getpid());
    say(fd, word);
    return (ssize_t)(6 + size);
}

static void serve(int fd)
{
    size_t kept = peers[fd].kept, length, at = 0;
    if (kept)
        memcpy(in, peers[fd].part, kept);
    ssize_t n = recv(fd, in + kept, BUFFER, 0);
    if (n <= 0) {
        if (!n || errno != EAGAIN)
            shut(fd);
        return;
    }
    length = kept + (size_t)n;
    in[length] = 0;
    while (at < length) {
        ssize_t taken = peers[fd].open ? frame(fd, in + at, length - at)
                                       : upgrade(fd, in + at, length - at);
        if (taken < 0) {
            shut(fd);
            return;
        }
        if (!taken)
            break;
        at += (size_t)taken;
    }
    kept = length - at;
    if (kept >= PART) {
        shut(fd);
        return;
    }
    if (kept && !peers[fd].part && !(peers[fd].part = malloc(PART)))
        die("malloc");
    if (kept)
        memcpy(peers[fd].part, in + at, kept);
    peers[fd].kept = (uint32_t)kept;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN}, events[BATCH];
    struct rlimit files;
    int one = 1, listener;
    if (argc != 2) {
        fputs("usage: topics_floor PORT\n", stderr);
        return 2;
    }
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
