/* The floor of topics: what publishing costs when nothing but the system calls is paid for.
 *
 * One thread, one epoll, no checks, no limits, no counters: "sub tN" puts a connection into a list,
 * "pub tN TEXT" is one loop of send() over it, and every client's handshake key is taken for
 * RFC 6455's example, as all clients of these measurements send that.
 */
#define _GNU_SOURCE
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* By descriptor. A client has one topic at most. */
static struct {
    uint8_t joined;
    int topic;
} peers[MOST];
/* By number. */
static struct {
    int *members, count, room;
} topics[MOST];

static void leave(int fd)
{
    if (!peers[fd].joined)
        return;
    int *members = topics[peers[fd].topic].members, last = --topics[peers[fd].topic].count, i = 0;
    while (members[i] != fd)
        i++;
    members[i] = members[last];
    peers[fd].joined = 0;
}

static void say(int fd, const char *text)
{
    uint8_t frame[64] = {0x81, (uint8_t)strlen(text)};
    memcpy(frame + 2, text, frame[1]);
    send(fd, frame, 2u + frame[1], MSG_NOSIGNAL);
}

/* The upgrade, when its head is whole. */
static ssize_t upgrade(int fd, uint8_t *data, size_t length)
{
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        return -1;
    is_open[fd] = 1;
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

/* One short frame, when it is whole. */
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

int main(int argc, char **argv)
{
    static const struct handler handler = {upgrade, frame, leave};
    return run(argc, argv, &handler);
}
