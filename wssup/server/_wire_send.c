/* The compiled core's sending: one write of a frame that is nowhere else; see _wire.c. */

#include "_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The longest header of a frame that is not masked. */
enum { HEAD_BYTES = 10 };
/* Up to so many bytes a copy is cheaper than a second part for the kernel to gather. */
enum { COPIED = 2048 };

static PyObject *name_queue;

int
begin_send(void)
{
    name_queue = PyUnicode_InternFromString("_queue");
    return name_queue == NULL ? -1 : 0;
}

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
        sent = write_once(fd_of(self), head, head_size, payload, size);
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

PyObject *
connection_send(Connection *self, PyObject *const *arguments, Py_ssize_t count)
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

/* As connection_send(); `data` is bytes. */
PyObject *
connection_send_binary(Connection *self, PyObject *data)
{
    return send_payload(self, BINARY, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
}

PyObject *
connection_send_text(Connection *self, PyObject *text)
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

PyObject *
connection_transmit(Connection *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "what is sent must be bytes");
        return NULL;
    }
    Py_ssize_t sent = 0;
    if (is_none(self->outbox)) {
        sent = write_once(fd_of(self), NULL, 0, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
        if (sent < 0) {
            return NULL;
        }
        if (sent == PyBytes_GET_SIZE(data)) {
            Py_RETURN_FALSE;
        }
    }
    return queue(self, Py_NewRef(data), sent);
}

PyObject *
connection_post(Connection *self, PyObject *const *arguments, Py_ssize_t count)
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
    return connection_transmit(self, arguments[0]);
}

/* One message to many. */

/* Send to one; 1: sent, 0: not, -1: an exception is set. */
static int
send_to(Connection *to, PyObject *frame, PyObject *waiting, PyObject *queueing, PyObject *broken)
{
    if (!is_none(to->outbox)) {
        return PyList_Append(queueing, (PyObject *)to);
    }
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    Py_ssize_t sent = write_once(fd_of(to), NULL, 0, PyBytes_AS_STRING(frame), size);
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

PyObject *
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
