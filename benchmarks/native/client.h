/* One WebSocket client connection in a few bytes: what the modes of load.c and reload.c share. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stddef.h>
#include <stdint.h>

enum phase { UNUSED, CONNECTING, UPGRADING, OPEN, CLOSING };

struct conn {
    int fd;
    uint8_t phase;    /* enum phase */
    uint8_t partly;   /* the kernel took a part of a text only; the rest waits for room */
    uint8_t have;     /* bytes of the current frame's header read so far */
    uint8_t head[10]; /* that header; servers do not mask, so ten bytes suffice */
    uint8_t stamped;  /* the kernel says when its bytes arrive */
    uint16_t spilled; /* bytes in spill */
    uint32_t left;    /* payload bytes of the current frame still to come */
    uint32_t size;    /* length of the text message expected; 0: none is */
    uint32_t at;      /* where in the pattern the expected text begins */
    uint32_t sent;    /* bytes of the frame in flight that the kernel took */
    uint32_t mask;    /* that frame's mask, to build its rest again */
    uint64_t since;   /* when the message in flight was sent, or the connection begun, in ns */
    uint8_t *spill;   /* the part of a response head or control frame that came in pieces */
};

/* What a mode does with what happens. Those it does not need may be NULL. */
struct driver {
    void (*opened)(struct conn *);   /* the handshake is complete */
    void (*message)(struct conn *);  /* the expected text has come, whole and unaltered */
    void (*ended)(struct conn *);    /* the connection was open or closing and is closed now */
    void (*failed)(struct conn *);   /* something went wrong; counted and closed */
    /* A whole text of at most 125 bytes has come. If this is NULL, texts are compared with the
     * expected one instead. */
    void (*text)(struct conn *, const char *payload, size_t length);
    /* An open connection was closed by the server: with this code, 1006 if without a word. If this
     * is NULL, that is a failure. */
    void (*closed)(struct conn *, unsigned code);
};

extern struct driver driver;
extern struct conn *conns;
extern uint64_t pings, errors;
extern int failure; /* the errno of the last failure */

/* Sizes of messages: the pattern that texts are cut from is a little longer than the longest. */
enum { LONGEST = 16384, STARTS = 64 };

void client_setup(int port, uint32_t count);
uint64_t now_ns(void);
/* Have the kernel say when bytes of this connection arrive, whenever they are read. */
void stamp(struct conn *c);
/* When the last bytes of a stamped connection arrived, by the clock of wall_ns(); 0: unknown. */
extern uint64_t arrived;
uint64_t wall_ns(void);
uint64_t random64(void);

/* Begin connection c: connect, then send the upgrade request when connected. */
void begin(struct conn *c);
/* Send the text of c->size bytes at c->at of the pattern, masked afresh. */
void send_text(struct conn *c);
/* Send another text, of at most 125 bytes. Returns 0 when the socket did not take it. */
int send_small(struct conn *c, const char *payload, size_t length);
/* Send a close frame with 1001 (going away) and wait for the server's end of it. */
void send_close(struct conn *c);
/* Close without a word. A reset, so that no port is left in TIME_WAIT. */
void drop(struct conn *c);
/* Say what the pattern begins with, for a server that acts on text. */
void pattern_begin(const char *text);
/* Wait at most timeout_ns for events and handle them. Returns 1 if the extra descriptor is ready. */
int turn(int64_t timeout_ns);
/* Have turn() watch one more descriptor. */
void watch_extra(int fd);

#endif
