/* One WebSocket client connection: connect, upgrade, frames out and in.
 *
 * All connections share one epoll, one read buffer and one write buffer; a connection itself keeps
 * only where it stands, so that tens of thousands fit one process and the cache.
 */
#define _GNU_SOURCE
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 512, SPILL = 1024, PER_SOURCE = 4000, EXTRA = 0xffffffff };

struct driver driver;
struct conn *conns;
uint64_t pings, errors, arrived;
int failure;

static int poller;
static struct sockaddr_in server;
static char request[1024];
static size_t request_length;
static uint8_t pattern[LONGEST + STARTS];
static uint8_t in[256 * 1024];
static uint8_t out[LONGEST + 64];
static uint64_t seed;
static uint32_t begun;

static uint64_t nanoseconds(struct timespec t)
{
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return nanoseconds(t);
}

uint64_t wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return nanoseconds(t);
}

/* xorshift64*: masks must differ, not be secret. */
uint64_t random64(void)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * 2685821657736338717u;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

void client_setup(int port, uint32_t count)
{
    seed = now_ns() | 1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        die("epoll_create1");
    conns = calloc(count, sizeof *conns);
    if (!conns)
        die("calloc");
    for (uint32_t i = 0; i < count; i++)
        conns[i].fd = -1;
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)port);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* Printable and without a period that a cut could hide in. Upper case, so that no text begins
     * with a command by chance. */
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[(i * 7 + i / 32) % 32];
    /* What a desktop browser sends, with the cookies of a small shop: about 700 bytes. The key is
     * RFC 6455's example, so that the right answer is known without computing it. */
    request_length = (size_t)snprintf(
        request, sizeof request,
        "GET /live?room=42 HTTP/1.1\r\n"
        "Host: 127.0.0.1:%d\r\n"
        "Connection: Upgrade\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/129.0.0.0 Safari/537.36\r\n"
        "Upgrade: websocket\r\n"
        "Origin: http://127.0.0.1:%d\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n"
        "Cookie: session=eyJ1c2VyIjoxMjM0NTYsImxhbmciOiJlbiIsImV4cCI6MTc5OTk5OTk5OX0.q8Vt2mXw; "
        "csrf=Zk3JpYx7WbNc0aLrTgHs5uQeDvMiOf1; theme=dark; consent=necessary.statistics; "
        "seen=3f2b8c9d-6a51-4e0f-9c7e-1d2a3b4c5d6e\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "\r\n",
        port, port);
}

void pattern_begin(const char *text)
{
    memcpy(pattern, text, strlen(text));
}

static void spill_free(struct conn *c)
{
    free(c->spill);
    c->spill = NULL;
    c->spilled = 0;
}

void drop(struct conn *c)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->fd);
    spill_free(c);
    c->fd = -1;
    c->phase = UNUSED;
}

static void fail(struct conn *c, const char *why)
{
    static int told;
    if (told++ < 5)
        fprintf(stderr, "load: %s (phase %d): %s\n", why, c->phase, strerror(errno));
    failure = errno;
    errors++;
    drop(c);
    if (driver.failed)
        driver.failed(c);
}

static void ended(struct conn *c)
{
    drop(c);
    if (driver.ended)
        driver.ended(c);
}

static void watch(struct conn *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(c - conns)};
    if (epoll_ctl(poller, operation, c->fd, &event))
        die("epoll_ctl");
}

void watch_extra(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = EXTRA};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

void begin(struct conn *c)
{
    /* A source address carries a few thousand connections: the kernel's search for a free port
     * slows down long before the range is full. Bound without a port, which connect() picks. */
    struct sockaddr_in source = {.sin_family = AF_INET};
    uint32_t group = begun++ / PER_SOURCE % 200;
    int one = 1;
    memset(c, 0, sizeof *c);
    c->since = now_ns();
    c->phase = CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    source.sin_addr.s_addr = htonl(0x7f000001u + (((uint32_t)getpid() % 200 + 1) << 16) + (group << 8));
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source))
        die("bind");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        fail(c, "connect");
        return;
    }
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void connected(struct conn *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        errno = error;
        fail(c, "connect");
        return;
    }
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) {
        fail(c, "sending the request");
        return;
    }
    c->phase = UPGRADING;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void apply_mask(uint8_t *to, const uint8_t *from, size_t length, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask, word;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < length; i++)
        to[i] = from[i] ^ (uint8_t)(mask >> (8 * (i % 4)));
}

/* Build a masked frame in the write buffer; returns its length. */
static size_t build(uint8_t first, const uint8_t *payload, size_t length, uint32_t mask)
{
    size_t n = 0;
    out[n++] = first;
    if (length < 126) {
        out[n++] = (uint8_t)(0x80 | length);
    } else {
        out[n++] = 0x80 | 126;
        out[n++] = (uint8_t)(length >> 8);
        out[n++] = (uint8_t)length;
    }
    memcpy(out + n, &mask, 4);
    apply_mask(out + n + 4, payload, length, mask);
    return n + 4 + length;
}

/* Send what the kernel has not taken yet of the text in flight. */
static void send_rest(struct conn *c)
{
    size_t length = build(0x81, pattern + c->at, c->size, c->mask);
    ssize_t n = send(c->fd, out + c->sent, length - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        fail(c, "sending a message");
        return;
    }
    c->sent += n > 0 ? (uint32_t)n : 0;
    uint8_t partly = c->sent < length;
    if (partly != c->partly)
        watch(c, EPOLL_CTL_MOD, partly ? EPOLLIN | EPOLLOUT : EPOLLIN);
    c->partly = partly;
}

void send_text(struct conn *c)
{
    c->mask = (uint32_t)random64();
    c->sent = 0;
    send_rest(c);
}

/* A small frame: a socket that does not take it whole is broken or hopelessly behind. */
static int send_control(struct conn *c, uint8_t first, const uint8_t *payload, size_t length)
{
    size_t n = build(first, payload, length, (uint32_t)random64());
    return send(c->fd, out, n, MSG_NOSIGNAL) == (ssize_t)n;
}

int send_small(struct conn *c, const char *payload, size_t length)
{
    return send_control(c, 0x81, (const uint8_t *)payload, length);
}

void send_close(struct conn *c)
{
    static const uint8_t going_away[2] = {1001 >> 8, 1001 & 255};
    c->phase = CLOSING;
    if (!send_control(c, 0x88, going_away, 2))
        fail(c, "sending a close frame");
}

/* Keep the part of something small that did not come whole. */
static int keep(struct conn *c, const uint8_t *data, size_t length)
{
    if (c->spilled + length > SPILL)
        return 0;
    if (!c->spill && !(c->spill = malloc(SPILL)))
        die("malloc");
    memcpy(c->spill + c->spilled, data, length);
    c->spilled = (uint16_t)(c->spilled + length);
    return 1;
}

/* Read the response's head. Returns how many of the bytes it took; -1 after a failure. */
static ssize_t response(struct conn *c, const uint8_t *data, size_t length)
{
    const uint8_t *head = data;
    size_t size = length, before = c->spilled;
    if (before) {
        if (!keep(c, data, length))
            goto wrong;
        head = c->spill;
        size = c->spilled;
    }
    uint8_t *end = memmem(head, size, "\r\n\r\n", 4);
    if (!end) {
        if (!before && !keep(c, data, length))
            goto wrong;
        return (ssize_t)length;
    }
    size = (size_t)(end + 4 - head);
    if (size < 12 || memcmp(head, "HTTP/1.1 101", 12) ||
        !memmem(head, size, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28))
        goto wrong;
    spill_free(c);
    c->phase = OPEN;
    if (driver.opened)
        driver.opened(c);
    return (ssize_t)(size - before);
wrong:
    errno = EPROTO;
    fail(c, "the response is not the right 101");
    return -1;
}

/* A whole control frame. Returns 0 when the connection is gone with it. */
static int control(struct conn *c, const uint8_t *payload, size_t length)
{
    uint8_t opcode = c->head[0] & 15;
    if (opcode == 9) {
        pings++;
        /* Not into the midst of a text; the next ping is answered then. */
        if (!c->partly && !send_control(c, 0x8a, payload, length)) {
            fail(c, "sending a pong");
            return 0;
        }
        return 1;
    }
    if (opcode == 8) {
        if (c->phase == CLOSING) {
            ended(c);
        } else if (driver.closed) {
            /* Answered with the same; the end of the connection is the server's to make. */
            c->phase = CLOSING;
            send_control(c, 0x88, payload, length < 2 ? 0 : 2);
            driver.closed(c, length < 2 ? 1005 : (unsigned)payload[0] << 8 | payload[1]);
        } else {
            errno = EPROTO;
            fail(c, "closed by the server");
        }
        return 0;
    }
    return 1;
}

/* The header of a frame, when it has come whole: 0 while it has not. */
static int header(struct conn *c, const uint8_t **data, size_t *length)
{
    for (;;) {
        unsigned short_length = c->have > 1 ? c->head[1] & 127u : 0;
        unsigned need = short_length == 126 ? 4 : short_length == 127 ? 10 : 2;
        if (c->have >= need) {
            c->left = short_length;
            if (need == 4)
                c->left = (uint32_t)c->head[2] << 8 | c->head[3];
            if (need == 10)
                c->left = (uint32_t)c->head[8] << 8 | c->head[9]; /* longer ones are refused below */
            return 1;
        }
        if (!*length)
            return 0;
        c->head[c->have++] = *(*data)++;
        --*length;
    }
}

/* Frames, in pieces as they come. */
static void frames(struct conn *c, const uint8_t *data, size_t length)
{
    /* c->have is above 99 while a frame's payload is being read. */
    enum { PAYLOAD = 100 };
    while (c->phase == OPEN || c->phase == CLOSING) {
        if (c->have < PAYLOAD) {
            if (!header(c, &data, &length))
                return;
            c->have = PAYLOAD;
            int is_control = c->head[0] & 8;
            if (!(c->head[0] & 0x80) || c->head[1] & 0x80 || (c->head[1] & 127) == 127 ||
                (is_control || driver.text ? c->left > 125 : c->left != c->size) ||
                (!is_control && c->head[0] != 0x81)) {
                errno = EPROTO;
                fail(c, "an unexpected frame");
                return;
            }
        }
        size_t n = length < c->left ? length : c->left;
        if (c->head[0] & 8 || driver.text) {
            if (n < c->left || c->spilled) {
                keep(c, data, n);
                if (n < c->left) {
                    c->left -= (uint32_t)n;
                    return;
                }
            }
            c->have = 0;
            const uint8_t *payload = c->spilled ? c->spill : data;
            size_t whole = c->spilled ? c->spilled : n;
            if (!(c->head[0] & 8))
                driver.text(c, (const char *)payload, whole);
            else if (!control(c, payload, whole))
                return;
            spill_free(c);
        } else {
            if (memcmp(data, pattern + c->at + (c->size - c->left), n)) {
                errno = EPROTO;
                fail(c, "an altered message");
                return;
            }
            c->left -= (uint32_t)n;
            if (c->left)
                return;
            c->have = 0;
            if (driver.message)
                driver.message(c);
        }
        data += n;
        length -= n;
        if (!length)
            return;
    }
}

void stamp(struct conn *c)
{
    int one = 1;
    if (setsockopt(c->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one))
        die("SO_TIMESTAMPNS");
    c->stamped = 1;
}

/* recv(), and when the bytes came: the kernel knows it even if this process was not running. */
static ssize_t receive_stamped(int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {in, sizeof in};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &message, 0);
    arrived = 0;
    struct cmsghdr *first = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_TIMESTAMPNS) {
        struct timespec when;
        memcpy(&when, CMSG_DATA(first), sizeof when);
        arrived = nanoseconds(when);
    }
    return n;
}

static void readable(struct conn *c)
{
    ssize_t n = c->stamped ? receive_stamped(c->fd) : recv(c->fd, in, sizeof in, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (c->phase == CLOSING) {
            ended(c);
        } else if (c->phase == OPEN && driver.closed) {
            drop(c);
            driver.closed(c, 1006);
        } else {
            errno = n ? errno : ECONNABORTED;
            fail(c, "receiving");
        }
        return;
    }
    ssize_t taken = 0;
    if (c->phase == UPGRADING && (taken = response(c, in, (size_t)n)) < 0)
        return;
    if (c->phase == OPEN || c->phase == CLOSING)
        frames(c, in + taken, (size_t)(n - taken));
}

int turn(int64_t timeout_ns)
{
    struct epoll_event events[BATCH];
    struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    int extra = 0;
    int n = epoll_pwait2(poller, events, BATCH, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (n < 0 && errno != EINTR)
        die("epoll_pwait2");
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == EXTRA) {
            extra = 1;
            continue;
        }
        struct conn *c = conns + events[i].data.u32;
        if (c->phase == CONNECTING) {
            connected(c);
            continue;
        }
        if (c->phase != UNUSED && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            readable(c);
        if (c->phase == OPEN && c->partly && events[i].events & EPOLLOUT)
            send_rest(c);
    }
    return extra;
}
