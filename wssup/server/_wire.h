/* What the files of the compiled core share; see _wire.c. */

#ifndef WSSUP_WIRE_H
#define WSSUP_WIRE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* RFC 6455 section 5. */
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { CONTROL_BYTES = 125 };

typedef struct {
    PyObject_HEAD
    PyObject *buffer, *buffers, *view, *decode;
    Py_buffer memory; /* of `buffer`; memory.obj is NULL once it is given back */
    Py_ssize_t short_, medium;
    Py_ssize_t messages_in, messages_out, bytes_in, bytes_out, queued;
    PyObject *scheduler; /* see wire_pure.Wire */
    char watchful;
} Wire;

/* What is looked at for each message stands together: with thousands of connections each line of
 * the cache has to be fetched anew. */
typedef struct {
    PyObject_HEAD
    PyObject *fd; /* an int that others have, too: as a number it would be another one for each */
    PyObject *status, *inbox, *heard, *unfinished, *wire, *receiver, *more_receivers;
    PyObject *ticket, *closed, *outbox;
    Py_ssize_t out_bytes;
} Connection;

/* What a task is woken with: see _wire_waits.c. */
typedef struct {
    PyObject_HEAD
    PyObject *value;
} Delivered;

/* _wire_usual.c: a method of which the usual case is compiled. */

enum { RECEIVING, SENDING, KINDS };

typedef struct {
    PyObject_HEAD
    PyObject *attributes; /* __doc__ and the like */
    vectorcallfunc vectorcall;
    PyObject *function;
    PyObject *end; /* an exception that becomes StopAsyncIteration, or NULL */
    int kind;
} Usual;

/* One call of such a method. */

/* NEW: not begun. ASLEEP: woken with its result, or with an exception. YIELDED: has its result, and
 * lets others run. CANCELLED: passes on the cancel point's exception. PASSING: the function does
 * it. RUNNING: one of these is at work. */
enum { NEW, ASLEEP, YIELDED, CANCELLED, PASSING, RUNNING, DONE };

typedef struct {
    PyObject_HEAD
    Usual *usual;
    Connection *connection;
    PyObject *message; /* to send, or received; or NULL */
    PyObject *inner;   /* PASSING, CANCELLED: the coroutine that does it */
    int state;
} Wait;

extern PyTypeObject WireType, ConnectionType, DeliveredType, UsualType, WaitType;

Wire *wire_of(const Connection *self);

/* A connection's descriptor; -1 if it has none. */
static inline int
fd_of(const Connection *self)
{
    if (self->fd == NULL || !PyLong_Check(self->fd)) {
        return -1;
    }
    int over;
    long fd = PyLong_AsLongAndOverflow(self->fd, &over);
    return over || fd != (int)fd ? -1 : (int)fd;
}

static inline int
is_none(const PyObject *object)
{
    return object == NULL || object == Py_None;
}

/* An attribute of a module; NULL: an exception is set. */
PyObject *taken(const char *module, const char *name);

/* _wire_receive.c; begin_…(): what it needs of Python; -1: an exception is set. */
int begin_receive(void);
PyObject *connection_receive(Connection *self, PyObject *budget);
PyObject *connection_decode(Connection *self, PyObject *const *arguments, Py_ssize_t count);

/* _wire_send.c */
int begin_send(void);
PyObject *connection_send(Connection *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *connection_send_binary(Connection *self, PyObject *data);
PyObject *connection_send_text(Connection *self, PyObject *text);
PyObject *connection_post(Connection *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *connection_transmit(Connection *self, PyObject *data);
PyObject *broadcast(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* _wire_usual.c; how a Wait goes on: PYGEN_NEXT: `result` is for the loop; PYGEN_RETURN: it is what
 * is awaited. */
int begin_usual(void);
PySendResult wait_call(Wait *self, PyObject **result);

/* _wire_waits.c */
int begin_waits(void);
int can_wait(const Wire *wire);
PySendResult wait_begin(Wait *self, PyObject **result);
PyObject *connection_forward(Connection *self, PyObject *budget);

#endif
