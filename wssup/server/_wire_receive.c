/* The compiled core's receiving: one read, and what is usual of what it gave; see _wire.c. */

#include "_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Of the Python modules; they live as long as the process. */
static PyObject *control;          /* frames.control */
static PyObject *nothing, *at_end; /* () and (END,) */
static PyObject *no_bytes;         /* b"" */
static PyObject *name_more, *name_rest, *name_opcode;

int
begin_receive(void)
{
    PyObject *end = taken("wssup.server.wire_pure", "END");
    at_end = end == NULL ? NULL : PyTuple_Pack(1, end);
    Py_XDECREF(end);
    control = taken("wssup.server.frames", "control");
    nothing = PyTuple_New(0);
    no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    name_more = PyUnicode_InternFromString("more");
    name_rest = PyUnicode_InternFromString("rest");
    name_opcode = PyUnicode_InternFromString("opcode");
    return at_end == NULL || control == NULL || nothing == NULL || no_bytes == NULL ||
                   name_more == NULL || name_rest == NULL || name_opcode == NULL
               ? -1
               : 0;
}

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
    Py_ssize_t size = read_once(fd_of(self), wire);
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
PyObject *
connection_receive(Connection *self, PyObject *budget)
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

PyObject *
connection_decode(Connection *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "decode() takes data and a budget");
        return NULL;
    }
    return decode_bytes(self, Py_NewRef(arguments[0]), arguments[1]);
}
