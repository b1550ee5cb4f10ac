/* The floor: what a WebSocket echo costs when nothing but the system calls is paid for.
 *
 * One thread, one epoll, no checks, no limits, no counters. A text that begins with "go" is sent to
 * everybody, in one loop of send() over all connections; any other frame comes back to its sender.
 * Every server under test does more than this for each message, so its figure over the floor's is
 * the share of the possible that is left; and the load generator reaches at least the floor's.
 */
#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* FIPS 180-4, for the one message of two blocks that a handshake needs. */
static uint32_t left(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t *block)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) {
        memcpy(w + i, block + 4 * i, 4);
        w[i] = ntohl(w[i]);
    }
    for (int i = 16; i < 80; i++)
        w[i] = left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        uint32_t t = left(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = left(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

/* Sec-WebSocket-Accept for a key of 24 characters: the base64 of a hash is 28. */
static void accept_key(const uint8_t *key, char answer[28])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t text[128] = {0}, hash[21] = {0};
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    text[60] = 0x80;
    text[126] = (60 * 8) >> 8;
    text[127] = (60 * 8) & 255;
    sha1_block(h, text);
    sha1_block(h, text + 64);
    for (int i = 0; i < 5; i++) {
        uint32_t word = htonl(h[i]);
        memcpy(hash + 4 * i, &word, 4);
    }
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)hash[3 * i] << 16 | (uint32_t)hash[3 * i + 1] << 8 | hash[3 * i + 2];
        for (int j = 0; j < 4; j++)
            answer[4 * i + j] = letters[three >> (18 - 6 * j) & 63];
    }
    answer[27] = '=';
}

/* The upgrade, when its head is whole. */
static ssize_t upgrade(int fd, uint8_t *data, size_t length)
{
    char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: ____________________________\r\n\r\n";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    const uint8_t *key = memmem(data, length, "Sec-WebSocket-Key: ", 19);
    if (!key || end - key < 19 + 24)
        return -1;
    accept_key(key + 19, answer + sizeof answer - 1 - 32);
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        return -1;
    is_open[fd] = 1;
    return end + 4 - data;
}

/* One frame, when it is whole: sent back from where it lies, its header moved up to its payload
 * over the mask. */
static ssize_t frame(int fd, uint8_t *data, size_t length)
{
    if (length < 6)
        return 0;
    size_t size = data[1] & 127, header = 2;
    if (size == 126) {
        size = (size_t)data[2] << 8 | data[3];
        header = 4;
    }
    size_t whole = header + 4 + size;
    if (length < whole)
        return 0;
    uint8_t *payload = data + header + 4, *reply = data + 4;
    uint32_t mask;
    memcpy(&mask, data + header, 4);
    uint64_t wide = (uint64_t)mask << 32 | mask;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, payload + i, 8);
        word ^= wide;
        memcpy(payload + i, &word, 8);
    }
    for (; i < size; i++)
        payload[i] ^= (uint8_t)(mask >> (8 * (i % 4)));
    memmove(reply, data, header);
    reply[1] &= 127;
    if (reply[0] == 0x81 && size > 1 && payload[0] == 'g' && payload[1] == 'o') {
        for (int other = 0; other <= highest; other++)
            if (is_open[other])
                send(other, reply, header + size, MSG_NOSIGNAL);
        return (ssize_t)whole;
    }
    if ((reply[0] & 15) == 10)
        return (ssize_t)whole;
    /* A reply that the kernel does not take whole would have to be queued: a client that has one
     * message in flight never brings that about. */
    if (send(fd, reply, header + size, MSG_NOSIGNAL) != (ssize_t)(header + size))
        return -1;
    return (reply[0] & 15) == 8 ? -1 : (ssize_t)whole;
}

int main(int argc, char **argv)
{
    static const struct handler handler = {upgrade, frame, NULL};
    return run(argc, argv, &handler);
}
