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
 *
 * Here are the types and the module; _wire_receive.c and _wire_send.c have the methods, and
 * _wire_usual.c and _wire_waits.c what tasks await.
 */

#include "_wire.h"

#include <structmember.h>

#include <string.h>

/* Wire. */

static int
wire_traverse(Wire *self, visitproc visit, void *arg)
{
    Py_VISIT(self->buffer);
    Py_VISIT(self->buffers);
    Py_VISIT(self->view);
    Py_VISIT(self->decode);
    Py_VISIT(self->scheduler);
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
    Py_CLEAR(self->scheduler);
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
    {"scheduler", T_OBJECT, offsetof(Wire, scheduler), 0, NULL},
    {"watchful", T_BOOL, offsetof(Wire, watchful), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject WireType = {
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
Wire *
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

/* WireConnection. */

static PyObject *
connection_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Connection *self = (Connection *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->fd = PyLong_FromLong(-1); /* 0 is somebody's */
    }
    return (PyObject *)self;
}

static int
connection_traverse(Connection *self, visitproc visit, void *arg)
{
    Py_VISIT(self->fd);
    Py_VISIT(self->status);
    Py_VISIT(self->inbox);
    Py_VISIT(self->heard);
    Py_VISIT(self->unfinished);
    Py_VISIT(self->wire);
    Py_VISIT(self->receiver);
    Py_VISIT(self->more_receivers);
    Py_VISIT(self->ticket);
    Py_VISIT(self->closed);
    Py_VISIT(self->outbox);
    return 0;
}

static int
connection_clear(Connection *self)
{
    Py_CLEAR(self->fd);
    Py_CLEAR(self->status);
    Py_CLEAR(self->inbox);
    Py_CLEAR(self->heard);
    Py_CLEAR(self->unfinished);
    Py_CLEAR(self->wire);
    Py_CLEAR(self->receiver);
    Py_CLEAR(self->more_receivers);
    Py_CLEAR(self->ticket);
    Py_CLEAR(self->closed);
    Py_CLEAR(self->outbox);
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
    {"fd", T_OBJECT_EX, offsetof(Connection, fd), 0, NULL},
    {"status", T_OBJECT_EX, offsetof(Connection, status), 0, NULL},
    {"inbox", T_OBJECT_EX, offsetof(Connection, inbox), 0, NULL},
    {"heard", T_OBJECT_EX, offsetof(Connection, heard), 0, NULL},
    {"unfinished", T_OBJECT_EX, offsetof(Connection, unfinished), 0, NULL},
    {"wire", T_OBJECT_EX, offsetof(Connection, wire), 0, NULL},
    {"receiver", T_OBJECT_EX, offsetof(Connection, receiver), 0, NULL},
    {"more_receivers", T_OBJECT_EX, offsetof(Connection, more_receivers), 0, NULL},
    {"ticket", T_OBJECT_EX, offsetof(Connection, ticket), 0, NULL},
    {"closed", T_OBJECT_EX, offsetof(Connection, closed), 0, NULL},
    {"outbox", T_OBJECT_EX, offsetof(Connection, outbox), 0, NULL},
    {"out_bytes", T_PYSSIZET, offsetof(Connection, out_bytes), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef connection_methods[] = {
    {"receive", METHOD(connection_receive), METH_O, NULL},
    {"decode", METHOD(connection_decode), METH_FASTCALL, NULL},
    {"send", METHOD(connection_send), METH_FASTCALL, NULL},
    {"send_text", METHOD(connection_send_text), METH_O, NULL},
    {"post", METHOD(connection_post), METH_FASTCALL, NULL},
    {"transmit", METHOD(connection_transmit), METH_O, NULL},
    {"forward", METHOD(connection_forward), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject ConnectionType = {
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
PyObject *
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
    if (begin_receive() || begin_send() || begin_usual() || begin_waits()) {
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) {
        return NULL;
    }
    PyTypeObject *types[] = {&WireType, &ConnectionType, &DeliveredType, &UsualType, &WaitType};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (PyModule_AddType(module, types[i])) {
            Py_DECREF(module);
            return NULL;
        }
    }
    return module;
}
