/* The compiled core behind the seam that wire.py describes: what is done once per message.
 *
 * It gives what wire_pure.py gives, event by event, byte by byte and count by count; one suite of
 * tests holds for both. It takes the usual cases only: whole frames that came in one read, and
 * frames that the kernel takes at once. All else, and every judgement about a client, is done by
 * the Python code that the pure core uses: the Decoder of frames.py, and _queue() and flush().
 *
 * - The buffer that is read into is one bytearray of the worker. An export of it is held as long
 *   as the Wire lives, so it can be neither resized nor moved. Behind the bytes of the last read
 *   stand those of another connection: nothing here looks further than `size`.
 * - Sockets do not block, and MSG_DONTWAIT says so again: the flag O_NONBLOCK belongs to the open
 *   file description, which others may share. So the GIL is never given up: to do so for a call
 *   that ends at once costs more than it gives.
 * - A signal's Python handler runs before an interrupted call is made again (PEP 475).
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { CONTROL_BYTES = 125, HEAD_BYTES = 10 };
/* Up to so many bytes a copy is cheaper than a second part for the kernel to gather. */
enum { COPIED = 2048 };

/* Of the Python modules; they live as long as the process. */
static PyObject *control;             /* frames.control */
static PyObject *nothing, *at_end;    /* () and (END,) */
static PyObject *no_bytes;            /* b"" */
static PyObject *name_more, *name_rest, *name_opcode, *name_queue;

typedef struct {
    PyObject_HEAD
    PyObject *buffer, *buffers, *view, *decode;
    Py_buffer memory; /* of `buffer`; memory.obj is NULL once it is given back */
    Py_ssize_t short_, medium;
    Py_ssize_t messages_in, messages_out, bytes_in, bytes_out, queued;
} Wire;

typedef struct {
    PyObject_HEAD
    int fd;
    Py_ssize_t out_bytes;
    PyObject *outbox, *unfinished, *wire;
} Connection;

static PyTypeObject WireType, ConnectionType;

/* Frames. */

typedef struct {
    int first;         /* the first byte: FIN, reserved bits, opcode */
    Py_ssize_t start;  /* of the payload, behind the mask */
    Py_ssize_t length;
} Frame;

/* Whether `data` begins with a whole masked frame that is a whole message, or a control frame. */
static int
whole_frame(const uint8_t *data, Py_ssize_t size, const Wire *wire, Frame *frame)
{
    if (size < 6) {
        return 0;
    }
    int second = data[1];
    frame->first = data[0];
    if (second >= 0x80 && second <= 0x80 + CONTROL_BYTES) {
        frame->start = 6;
        frame->length = second - 0x80;
        if (frame->length > wire->short_) {
            return 0;
        }
    }
    else if (second == 0xFE && size >= 8) {
        frame->start = 8;
        frame->length = data[2] << 8 | data[3];
        /* The shortest form that holds it is the only one that is allowed. */
        if (frame->length <= CONTROL_BYTES || frame->length > wire->medium) {
            return 0;
        }
    }
    else {
        return 0;
    }
    if (frame->length > size - frame->start) {
        return 0;
    }
    switch (frame->first) {
    case 0x80 | TEXT:
    case 0x80 | BINARY:
        return 1;
    case 0x80 | CLOSE:
    case 0x80 | PING:
    case 0x80 | PONG:
        return frame->length <= CONTROL_BYTES;
    default:
        return 0;
    }
}

/* RFC 6455 section 5.3. `to` may be `from`; memcpy because neither is aligned. */
static void
unmask(uint8_t *to, const uint8_t *from, Py_ssize_t size, const uint8_t *mask)
{
    uint32_t key;
    memcpy(&key, mask, 4);
    uint64_t wide = (uint64_t)key << 32 | key, word;
    Py_ssize_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&word, from + at, 8);
        word ^= wide;
        memcpy(to + at, &word, 8);
    }
    for (; at < size; at++) {
        to[at] = from[at] ^ mask[at & 3];
    }
}

/* What a whole frame says. NULL without an exception: text that is not UTF-8; `data` is as it was,
 * and the Decoder finds the words for it. */
static PyObject *
event_of(Wire *wire, uint8_t *data, const Frame *frame)
{
    uint8_t *payload = data + frame->start;
    uint8_t mask[4];
    memcpy(mask, payload - 4, 4);
    if (frame->first == (0x80 | TEXT)) {
        unmask(payload, payload, frame->length, mask);
        PyObject *text = PyUnicode_DecodeUTF8((const char *)payload, frame->length, NULL);
        if (text == NULL) {
            if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear();
                unmask(payload, payload, frame->length, mask);
            }
            return NULL;
        }
        wire->messages_in++;
        wire->bytes_in += frame->length;
        return text;
    }
    PyObject *body = PyBytes_FromStringAndSize(NULL, frame->length);
    if (body == NULL) {
        return NULL;
    }
    unmask((uint8_t *)PyBytes_AS_STRING(body), payload, frame->length, mask);
    if (frame->first == (0x80 | BINARY)) {
        wire->messages_in++;
        wire->bytes_in += frame->length;
        return body;
    }
    PyObject *event = PyObject_CallFunction(control, "iN", frame->first & 0x0F, body);
    return event;
}

/* Wire. */

static int
wire_traverse(Wire *self, visitproc visit, void *arg)
{
    Py_VISIT(self->buffer);
    Py_VISIT(self->buffers);
    Py_VISIT(self->view);
    Py_VISIT(self->decode);
    Py_VISIT(self->memory.obj);
    return 0;
}

static int
wire_clear(Wire *self)
{
    if (self->memory.obj != NULL) {
        PyBuffer_Release(&self->memory);
    }
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->buffers);
    Py_CLEAR(self->view);
    Py_CLEAR(self->decode);
    return 0;
}

static void
wire_dealloc(Wire *self)
{
    PyObject_GC_UnTrack(self);
    wire_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int
wire_init(Wire *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"decoder", "read_bytes", "message_bytes", NULL};
    PyObject *decoder, *limit;
    Py_ssize_t read_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$nO!:Wire", names, &decoder, &read_bytes,
                                     &PyLong_Type, &limit)) {
        return -1;
    }
    int over;
    long long message_bytes = PyLong_AsLongLongAndOverflow(limit, &over);
    if (message_bytes == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (over) {
        message_bytes = over * 0xFFFFLL; /* beyond what is compared with it */
    }
    wire_clear(self); /* a second call begins anew */
    self->short_ = message_bytes < CONTROL_BYTES ? (Py_ssize_t)message_bytes : CONTROL_BYTES;
    self->medium = message_bytes < 0xFFFF ? (Py_ssize_t)message_bytes : 0xFFFF;
    self->decode = PyObject_GetAttrString(decoder, "decode");
    if (self->decode == NULL) {
        return -1;
    }
    self->buffer = PyByteArray_FromStringAndSize(NULL, read_bytes < 16 ? 16 : read_bytes);
    if (self->buffer == NULL) {
        return -1;
    }
    memset(PyByteArray_AS_STRING(self->buffer), 0, (size_t)PyByteArray_GET_SIZE(self->buffer));
    self->buffers = Py_BuildValue("[O]", self->buffer);
    self->view = PyMemoryView_FromObject(self->buffer);
    if (self->buffers == NULL || self->view == NULL) {
        return -1;
    }
    return PyObject_GetBuffer(self->buffer, &self->memory, PyBUF_WRITABLE);
}

static PyMemberDef wire_members[] = {
    {"buffer", T_OBJECT_EX, offsetof(Wire, buffer), READONLY, NULL},
    {"buffers", T_OBJECT_EX, offsetof(Wire, buffers), READONLY, NULL},
    {"view", T_OBJECT_EX, offsetof(Wire, view), READONLY, NULL},
    {"decode", T_OBJECT_EX, offsetof(Wire, decode), READONLY, NULL},
    {"short", T_PYSSIZET, offsetof(Wire, short_), READONLY, NULL},
    {"medium", T_PYSSIZET, offsetof(Wire, medium), READONLY, NULL},
    {"messages_in", T_PYSSIZET, offsetof(Wire, messages_in), 0, NULL},
    {"messages_out", T_PYSSIZET, offsetof(Wire, messages_out), 0, NULL},
    {"bytes_in", T_PYSSIZET, offsetof(Wire, bytes_in), 0, NULL},
    {"bytes_out", T_PYSSIZET, offsetof(Wire, bytes_out), 0, NULL},
    {"queued", T_PYSSIZET, offsetof(Wire, queued), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject WireType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "wssup.server._wire.Wire",
    .tp_doc = "See wire_pure.Wire.",
    .tp_basicsize = sizeof(Wire),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)wire_init,
    .tp_traverse = (traverseproc)wire_traverse,
    .tp_clear = (inquiry)wire_clear,
    .tp_dealloc = (destructor)wire_dealloc,
    .tp_members = wire_members,
};

/* A connection's Wire, borrowed: only Python code can take it away, and who calls that code holds
 * it. */
static Wire *
wire_of(const Connection *self)
{
    if (self->wire == NULL || !PyObject_TypeCheck(self->wire, &WireType)) {
        PyErr_SetString(PyExc_AttributeError, "the connection has no wire");
        return NULL;
    }
    Wire *wire = (Wire *)self->wire;
    if (wire->memory.obj == NULL) {
        PyErr_SetString(PyExc_ValueError, "the wire has no buffer");
        return NULL;
    }
    return wire;
}

static inline int
is_none(const PyObject *object)
{
    return object == NULL || object == Py_None;
}

/* Receiving. */

/* One read. -1: nothing is there; -2: an exception is set; 0: the peer is gone, however. */
static Py_ssize_t
read_once(int fd, const Wire *wire)
{
    for (;;) {
        Py_ssize_t size = recv(fd, wire->memory.buf, (size_t)wire->memory.len, MSG_DONTWAIT);
        if (size >= 0) {
            return size;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return -1;
        }
        if (errno != EINTR) {
            return 0;
        }
        if (PyErr_CheckSignals() < 0) {
            return -2;
        }
    }
}

/* See wire_pure.WireConnection.decode(). Steals `data`, which may be NULL with an exception. */
static PyObject *
decode_bytes(Connection *self, PyObject *data, PyObject *budget)
{
    Wire *wire = wire_of(self);
    if (data == NULL || wire == NULL) {
        Py_XDECREF(data);
        return NULL;
    }
    Py_INCREF(wire);
    PyObject *state = is_none(self->unfinished) ? Py_None : self->unfinished;
    Py_INCREF(state);
    PyObject *arguments[] = {data, state, budget};
    PyObject *events = NULL;
    PyObject *found = PyObject_Vectorcall(wire->decode, arguments, 3, NULL);
    Py_DECREF(data);
    Py_DECREF(state);
    if (found == NULL) {
        goto done;
    }
    if (!PyTuple_Check(found) || PyTuple_GET_SIZE(found) != 2 ||
        !PyList_Check(PyTuple_GET_ITEM(found, 0))) {
        PyErr_SetString(PyExc_TypeError, "decode() must return (list, state)");
        goto done;
    }
    events = PyTuple_GET_ITEM(found, 0);
    Py_INCREF(events);
    PyObject *next = PyTuple_GET_ITEM(found, 1);
    Py_INCREF(next);
    Py_XSETREF(self->unfinished, next);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(events); i++) {
        PyObject *event = PyList_GET_ITEM(events, i);
        if (PyBytes_CheckExact(event)) {
            wire->bytes_in += PyBytes_GET_SIZE(event);
        }
        else if (PyUnicode_CheckExact(event)) {
            if (PyUnicode_IS_ASCII(event)) {
                wire->bytes_in += PyUnicode_GET_LENGTH(event);
            }
            else {
                /* Not PyUnicode_AsUTF8AndSize(): the message would keep what that makes. */
                PyObject *encoded = PyUnicode_AsUTF8String(event);
                if (encoded == NULL) {
                    Py_CLEAR(events);
                    goto done;
                }
                wire->bytes_in += PyBytes_GET_SIZE(encoded);
                Py_DECREF(encoded);
            }
        }
        else {
            continue;
        }
        wire->messages_in++;
    }
done:
    Py_XDECREF(found);
    Py_DECREF(wire);
    return events;
}

/* Several frames, the first `size` bytes of the buffer: those that are whole and simple here, the
 * rest by the Decoder, which also says what is left if the budget is spent. */
static PyObject *
decode_frames(Connection *self, Wire *wire, Py_ssize_t size, PyObject *budget)
{
    uint8_t *data = wire->memory.buf;
    long left = PyLong_AsLong(budget);
    if (left == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *events = PyList_New(0);
    if (events == NULL) {
        return NULL;
    }
    Py_ssize_t at = 0;
    Frame frame;
    while (left > 0 && whole_frame(data + at, size - at, wire, &frame) &&
           frame.first != (0x80 | CLOSE)) {
        PyObject *event = event_of(wire, data + at, &frame);
        if (event == NULL) {
            if (PyErr_Occurred()) {
                goto failed;
            }
            break;
        }
        int failed = PyList_Append(events, event);
        Py_DECREF(event);
        if (failed) {
            goto failed;
        }
        at += frame.start + frame.length;
        left--;
    }
    if (at == size) {
        return events;
    }
    PyObject *rest = PyBytes_FromStringAndSize((char *)data + at, size - at);
    PyObject *budget_left = PyLong_FromLong(left);
    if (budget_left == NULL) {
        Py_XDECREF(rest);
        goto failed;
    }
    PyObject *more = decode_bytes(self, rest, budget_left);
    Py_DECREF(budget_left);
    if (more == NULL) {
        goto failed;
    }
    if (at == 0) {
        Py_DECREF(events);
        return more;
    }
    int failed = PyList_SetSlice(events, PyList_GET_SIZE(events), PyList_GET_SIZE(events), more);
    Py_DECREF(more);
    if (failed) {
        goto failed;
    }
    return events;
failed:
    Py_DECREF(events);
    return NULL;
}

/* Frames of the last read that a budget left: they are put where they came from, if no message is
 * in the middle and they fit. */
static PyObject *
receive_rest(Connection *self, Wire *wire, PyObject *budget)
{
    PyObject *state = Py_NewRef(self->unfinished), *rest = NULL;
    PyObject *opcode = PyObject_GetAttr(state, name_opcode);
    if (opcode != NULL) {
        rest = PyObject_GetAttr(state, name_rest);
    }
    Py_DECREF(state);
    if (rest == NULL) {
        Py_XDECREF(opcode);
        return NULL;
    }
    int between = PyObject_Not(opcode);
    Py_DECREF(opcode);
    PyObject *events;
    if (between == 1 && PyBytes_CheckExact(rest) && PyBytes_GET_SIZE(rest) <= wire->memory.len) {
        Py_ssize_t size = PyBytes_GET_SIZE(rest);
        memcpy(wire->memory.buf, PyBytes_AS_STRING(rest), (size_t)size);
        Py_INCREF(Py_None);
        Py_XSETREF(self->unfinished, Py_None);
        events = decode_frames(self, wire, size, budget);
    }
    else if (between >= 0) {
        Py_INCREF(no_bytes);
        events = decode_bytes(self, no_bytes, budget);
    }
    else {
        events = NULL;
    }
    Py_DECREF(rest);
    return events;
}

static PyObject *
receive_held(Connection *self, Wire *wire, PyObject *budget)
{
    int between = is_none(self->unfinished);
    if (!between) {
        PyObject *more = PyObject_GetAttr(self->unfinished, name_more);
        if (more == NULL) {
            return NULL;
        }
        int is_more = PyObject_IsTrue(more);
        Py_DECREF(more);
        if (is_more) {
            return is_more < 0 ? NULL : receive_rest(self, wire, budget);
        }
    }
    Py_ssize_t size = read_once(self->fd, wire);
    if (size <= 0) {
        if (size == -2) {
            return NULL;
        }
        return Py_NewRef(size ? nothing : at_end);
    }
    uint8_t *data = wire->memory.buf;
    Frame frame;
    if (!between || !whole_frame(data, size, wire, &frame)) {
        return decode_bytes(self, PyBytes_FromStringAndSize((char *)data, size), budget);
    }
    if (frame.start + frame.length != size) {
        return decode_frames(self, wire, size, budget);
    }
    /* Nearly all reads: one whole masked frame, which is one whole message. */
    PyObject *event = event_of(wire, data, &frame);
    if (event == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        return decode_bytes(self, PyBytes_FromStringAndSize((char *)data, size), budget);
    }
    return frame.first >= (0x80 | CLOSE) ? Py_BuildValue("(N)", event) : event;
}

/* See wire_pure.WireConnection.receive(). */
static PyObject *
receive(Connection *self, PyObject *budget)
{
    Wire *wire = wire_of(self);
    if (wire == NULL) {
        return NULL;
    }
    Py_INCREF(wire);
    PyObject *found = receive_held(self, wire, budget);
    Py_DECREF(wire);
    return found;
}

static PyObject *
decode(Connection *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "decode() takes data and a budget");
        return NULL;
    }
    return decode_bytes(self, Py_NewRef(arguments[0]), arguments[1]);
}

/* Sending. */

/* One write of two parts. The bytes that the kernel took, 0 if it takes none now; -1: an exception
 * is set. SIGPIPE is not wanted: EPIPE tells the same to who asked. */
static Py_ssize_t
write_once(int fd, const char *head, Py_ssize_t head_size, const char *body, Py_ssize_t body_size)
{
    char frame[HEAD_BYTES + COPIED];
    int copied = head_size && body_size <= COPIED;
    if (copied) {
        memcpy(frame, head, (size_t)head_size);
        memcpy(frame + head_size, body, (size_t)body_size);
    }
    struct iovec parts[] = {
        {(void *)head, (size_t)head_size},
        {(void *)body, (size_t)body_size},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    for (;;) {
        Py_ssize_t sent;
        if (copied) {
            sent = send(fd, frame, (size_t)(head_size + body_size), flags);
        }
        else if (head_size == 0) {
            sent = send(fd, body, (size_t)body_size, flags);
        }
        else {
            sent = sendmsg(fd, &message, flags);
        }
        if (sent >= 0) {
            return sent;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        }
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}

/* Queue what the kernel did not take; see wire_pure.py. Steals `data`, which may be NULL. */
static PyObject *
queue(Connection *self, PyObject *data, Py_ssize_t sent)
{
    PyObject *at = data == NULL ? NULL : PyLong_FromSsize_t(sent), *waits = NULL;
    if (at != NULL) {
        PyObject *arguments[] = {(PyObject *)self, data, at};
        waits = PyObject_VectorcallMethod(name_queue, arguments, 3, NULL);
    }
    Py_XDECREF(at);
    Py_XDECREF(data);
    return waits;
}

/* Section 5.2: the header of a final frame from a server, which is not masked. */
static Py_ssize_t
make_head(char *head, int opcode, Py_ssize_t size)
{
    uint8_t *at = (uint8_t *)head;
    *at++ = (uint8_t)(0x80 | opcode);
    if (size <= CONTROL_BYTES) {
        *at++ = (uint8_t)size;
        return 2;
    }
    int bytes = size <= 0xFFFF ? 2 : 8;
    *at++ = bytes == 2 ? 126 : 127;
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
        *at++ = (uint8_t)((uint64_t)size >> shift);
    }
    return 2 + bytes;
}

static PyObject *
send_payload(Connection *self, int opcode, const char *payload, Py_ssize_t size)
{
    Wire *wire = wire_of(self);
    if (wire == NULL) {
        return NULL;
    }
    char head[HEAD_BYTES];
    Py_ssize_t head_size = make_head(head, opcode, size), sent = 0;
    wire->messages_out++;
    wire->bytes_out += size;
    if (is_none(self->outbox)) {
        sent = write_once(self->fd, head, head_size, payload, size);
        if (sent < 0) {
            return NULL;
        }
        if (sent == head_size + size) {
            Py_RETURN_FALSE;
        }
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, head_size + size);
    if (frame != NULL) {
        memcpy(PyBytes_AS_STRING(frame), head, (size_t)head_size);
        memcpy(PyBytes_AS_STRING(frame) + head_size, payload, (size_t)size);
    }
    return queue(self, frame, sent);
}

static PyObject *
send_message(Connection *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "send() takes an opcode and bytes");
        return NULL;
    }
    long opcode = PyLong_AsLong(arguments[0]);
    if (opcode < 0 || opcode > PONG) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "there is no such opcode");
        }
        return NULL;
    }
    return send_payload(self, (int)opcode, PyBytes_AS_STRING(arguments[1]),
                        PyBytes_GET_SIZE(arguments[1]));
}

static PyObject *
send_text(Connection *self, PyObject *text)
{
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "send_text() takes a str");
        return NULL;
    }
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        return send_payload(self, TEXT, PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text));
    }
    PyObject *encoded = PyUnicode_AsUTF8String(text);
    if (encoded == NULL) {
        return NULL;
    }
    PyObject *waits =
        send_payload(self, TEXT, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded));
    Py_DECREF(encoded);
    return waits;
}

static PyObject *
transmit(Connection *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "what is sent must be bytes");
        return NULL;
    }
    Py_ssize_t sent = 0;
    if (is_none(self->outbox)) {
        sent = write_once(self->fd, NULL, 0, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
        if (sent < 0) {
            return NULL;
        }
        if (sent == PyBytes_GET_SIZE(data)) {
            Py_RETURN_FALSE;
        }
    }
    return queue(self, Py_NewRef(data), sent);
}

static PyObject *
post(Connection *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "post() takes a frame and the size of its payload");
        return NULL;
    }
    Py_ssize_t size = PyLong_AsSsize_t(arguments[1]);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Wire *wire = wire_of(self);
    if (wire == NULL) {
        return NULL;
    }
    wire->messages_out++;
    wire->bytes_out += size;
    return transmit(self, arguments[0]);
}

/* WireConnection. */

static PyObject *
connection_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Connection *self = (Connection *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->fd = -1; /* 0 is somebody's */
    }
    return (PyObject *)self;
}

static int
connection_traverse(Connection *self, visitproc visit, void *arg)
{
    Py_VISIT(self->outbox);
    Py_VISIT(self->unfinished);
    Py_VISIT(self->wire);
    return 0;
}

static int
connection_clear(Connection *self)
{
    Py_CLEAR(self->outbox);
    Py_CLEAR(self->unfinished);
    Py_CLEAR(self->wire);
    return 0;
}

static void
connection_dealloc(Connection *self)
{
    PyObject_GC_UnTrack(self);
    connection_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef connection_members[] = {
    {"fd", T_INT, offsetof(Connection, fd), 0, NULL},
    {"out_bytes", T_PYSSIZET, offsetof(Connection, out_bytes), 0, NULL},
    {"outbox", T_OBJECT_EX, offsetof(Connection, outbox), 0, NULL},
    {"unfinished", T_OBJECT_EX, offsetof(Connection, unfinished), 0, NULL},
    {"wire", T_OBJECT_EX, offsetof(Connection, wire), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef connection_methods[] = {
    {"receive", METHOD(receive), METH_O, NULL},
    {"decode", METHOD(decode), METH_FASTCALL, NULL},
    {"send", METHOD(send_message), METH_FASTCALL, NULL},
    {"send_text", METHOD(send_text), METH_O, NULL},
    {"post", METHOD(post), METH_FASTCALL, NULL},
    {"transmit", METHOD(transmit), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ConnectionType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "wssup.server._wire.WireConnection",
    .tp_doc = "See wire_pure.WireConnection.",
    .tp_basicsize = sizeof(Connection),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = connection_new,
    .tp_traverse = (traverseproc)connection_traverse,
    .tp_clear = (inquiry)connection_clear,
    .tp_dealloc = (destructor)connection_dealloc,
    .tp_members = connection_members,
    .tp_methods = connection_methods,
};

/* One message to many. */

/* Send to one; 1: sent, 0: not, -1: an exception is set. */
static int
send_to(Connection *to, PyObject *frame, PyObject *waiting, PyObject *queueing, PyObject *broken)
{
    if (!is_none(to->outbox)) {
        return PyList_Append(queueing, (PyObject *)to);
    }
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    Py_ssize_t sent = write_once(to->fd, NULL, 0, PyBytes_AS_STRING(frame), size);
    if (sent < 0) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return -1;
        }
        PyErr_Clear();
        return PyList_Append(broken, (PyObject *)to);
    }
    if (sent != size) {
        PyObject *waits = queue(to, Py_NewRef(frame), sent);
        if (waits == NULL) {
            return -1;
        }
        Py_DECREF(waits);
        if (PyList_Append(waiting, (PyObject *)to)) {
            return -1;
        }
    }
    return 1;
}

static PyObject *
broadcast(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "broadcast() takes connections, a frame and its size");
        return NULL;
    }
    Py_ssize_t size = PyLong_AsSsize_t(arguments[2]), sent_to = 0;
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *lists[] = {PyList_New(0), PyList_New(0), PyList_New(0)}, *found = NULL, *one;
    PyObject *connections = PyObject_GetIter(arguments[0]);
    Wire *wire = NULL;
    if (connections == NULL || lists[0] == NULL || lists[1] == NULL || lists[2] == NULL) {
        goto done;
    }
    while ((one = PyIter_Next(connections)) != NULL) {
        int sent = -1;
        if (!PyObject_TypeCheck(one, &ConnectionType)) {
            PyErr_SetString(PyExc_TypeError, "broadcast() sends to connections");
        }
        else {
            sent = send_to((Connection *)one, arguments[1], lists[0], lists[1], lists[2]);
        }
        if (sent >= 0 && wire == NULL) {
            wire = wire_of((Connection *)one);
            Py_XINCREF(wire);
        }
        Py_DECREF(one);
        if (sent < 0 || wire == NULL) {
            goto done;
        }
        sent_to += sent;
    }
    if (PyErr_Occurred()) {
        goto done;
    }
    if (wire != NULL) {
        wire->messages_out += sent_to;
        wire->bytes_out += sent_to * size;
    }
    found = PyTuple_Pack(3, lists[0], lists[1], lists[2]);
done:
    Py_XDECREF(wire);
    Py_XDECREF(connections);
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(lists[i]);
    }
    return found;
}

/* The module. */

static PyMethodDef functions[] = {
    {"broadcast", METHOD(broadcast), METH_FASTCALL, "See wire_pure.broadcast()."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_wire",
    .m_doc = "The compiled core; see wire.py.",
    .m_size = -1, /* one per process: what it needs of Python stands in static variables */
    .m_methods = functions,
};

/* An attribute of one of our modules. */
static PyObject *
taken(const char *module, const char *name)
{
    PyObject *from = PyImport_ImportModule(module), *object = NULL;
    if (from != NULL) {
        object = PyObject_GetAttrString(from, name);
        Py_DECREF(from);
    }
    return object;
}

PyMODINIT_FUNC
PyInit__wire(void)
{
    PyObject *end = taken("wssup.server.wire_pure", "END");
    control = taken("wssup.server.frames", "control");
    nothing = PyTuple_New(0);
    at_end = end == NULL ? NULL : PyTuple_Pack(1, end);
    Py_XDECREF(end);
    no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    name_more = PyUnicode_InternFromString("more");
    name_rest = PyUnicode_InternFromString("rest");
    name_opcode = PyUnicode_InternFromString("opcode");
    name_queue = PyUnicode_InternFromString("_queue");
    if (control == NULL || nothing == NULL || at_end == NULL || no_bytes == NULL ||
        name_more == NULL || name_rest == NULL || name_opcode == NULL || name_queue == NULL) {
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) {
        return NULL;
    }
    if (PyModule_AddType(module, &WireType) || PyModule_AddType(module, &ConnectionType)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
