/* The compiled core's waiting: the usual cases of get_message() and send_message(); see _wire_usual.c.
 *
 * The promises are those of the functions: each call is a cancel point and a schedule point; what is
 * cancelled has neither taken nor sent anything. What of it depends on the event loop stands in
 * the `scheduler` of the Wire, a tuple of loops/trio.py; without one the functions are called.
 */

#include "_wire.h"

#include <structmember.h>

#include <stddef.h>

/* The parts of a scheduler; see loops.Loop. */
enum { WAITER, CANCEL_POINT, RESCHEDULE, NOTHING, AT_ONCE, TICKET, INSIDE, PARTS };

static PyObject *name_forget, *name_take, *name_closing, *name_lose, *name_must_flush;
static PyObject *name_task, *name_runner, *name_reschedule, *name_status, *name_cancelled;
static PyObject *name_interrupted;

int
begin_waits(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&name_forget, "forget_receiver"},
        {&name_take, "take"},
        {&name_closing, "closing"},
        {&name_lose, "lose"},
        {&name_must_flush, "must_flush"},
        {&name_task, "task"},
        {&name_runner, "runner"},
        {&name_reschedule, "reschedule"},
        {&name_status, "_cancel_status"},
        {&name_cancelled, "effectively_cancelled"},
        {&name_interrupted, "ki_pending"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *names[i].name = PyUnicode_InternFromString(names[i].text);
        if (*names[i].name == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Delivered: an outcome.Value of a message, made and unwrapped once each. */

static PyObject *
delivered(PyObject *value)
{
    Delivered *self = PyObject_New(Delivered, &DeliveredType);
    if (self != NULL) {
        self->value = Py_NewRef(value);
    }
    return (PyObject *)self;
}

static PyObject *
delivered_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", NULL};
    PyObject *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Delivered", names, &value)) {
        return NULL;
    }
    return delivered(value);
}

static void
delivered_dealloc(Delivered *self)
{
    Py_DECREF(self->value);
    PyObject_Free(self);
}

static PyObject *
delivered_unwrap(Delivered *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->value);
}

static PyMethodDef delivered_methods[] = {
    {"unwrap", (PyCFunction)delivered_unwrap, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef delivered_members[] = {
    {"value", T_OBJECT_EX, offsetof(Delivered, value), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* No part of the garbage collector: nothing that a task is handed refers to it. */
PyTypeObject DeliveredType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "wssup.server._wire.Delivered",
    .tp_doc = "What a task is woken with, as outcome.Value.",
    .tp_basicsize = sizeof(Delivered),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = delivered_new,
    .tp_dealloc = (destructor)delivered_dealloc,
    .tp_methods = delivered_methods,
    .tp_members = delivered_members,
};

/* The parts of the loop; borrowed, NULL if it has none. */
static PyObject *const *
parts_of(const Wire *wire)
{
    PyObject *scheduler = wire->scheduler;
    if (scheduler == NULL || !PyTuple_CheckExact(scheduler) ||
        PyTuple_GET_SIZE(scheduler) != PARTS) {
        return NULL;
    }
    return ((PyTupleObject *)scheduler)->ob_item;
}

/* Whether the event loop has them. */
int
can_wait(const Wire *wire)
{
    return parts_of(wire) != NULL;
}

/* The running task. */
static PyObject *
running(PyObject *const *parts)
{
    if (parts[INSIDE] != Py_None) {
        PyObject *task = PyObject_GetAttr(parts[INSIDE], name_task);
        if (task != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return task;
        }
        PyErr_Clear(); /* there is none, and the other one says so */
    }
    return PyObject_CallNoArgs(parts[WAITER]);
}

/* Have a task run next, and be sent `with`; -1: an exception is set. */
static int
reschedule(PyObject *const *parts, PyObject *task, PyObject *with)
{
    PyObject *done = NULL;
    if (parts[INSIDE] == Py_None) {
        PyObject *arguments[] = {task, with};
        done = PyObject_Vectorcall(parts[RESCHEDULE], arguments, 2, NULL);
    }
    else {
        PyObject *runner = PyObject_GetAttr(parts[INSIDE], name_runner);
        if (runner != NULL) {
            PyObject *arguments[] = {runner, task, with};
            done = PyObject_VectorcallMethod(name_reschedule, arguments, 3, NULL);
            Py_DECREF(runner);
        }
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether an attribute is False; -1: an exception is set. */
static int
is_false(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    Py_XDECREF(value);
    return value == NULL ? -1 : value == Py_False;
}

/* Whether the running task is surely not cancelled, nor the program interrupted; -1: an exception
 * is set. */
static int
is_going_on(PyObject *const *parts, PyObject *task)
{
    PyObject *status = PyObject_GetAttr(task, name_status), *runner = NULL;
    int so = status == NULL ? -1 : is_false(status, name_cancelled);
    if (so == 1) {
        runner = PyObject_GetAttr(parts[INSIDE], name_runner);
        so = runner == NULL ? -1 : is_false(runner, name_interrupted);
    }
    Py_XDECREF(status);
    Py_XDECREF(runner);
    return so;
}

/* Whether the task is cancelled: PYGEN_RETURN: no; PYGEN_NEXT: it is, and yields. (trio counts
 * cancel points, for tests: the schedule point, which always follows, is counted as both.) */
static PySendResult
cancel_point(Wait *self, PyObject *const *parts, PyObject **result)
{
    if (parts[INSIDE] != Py_None) {
        PyObject *task = running(parts);
        int goes_on = task == NULL ? -1 : is_going_on(parts, task);
        Py_XDECREF(task);
        if (goes_on) {
            return goes_on < 0 ? PYGEN_ERROR : PYGEN_RETURN;
        }
    }
    PyObject *point = PyObject_CallNoArgs(parts[CANCEL_POINT]);
    if (point == NULL) {
        return PYGEN_ERROR;
    }
    PySendResult how = PyIter_Send(point, Py_None, result);
    if (how == PYGEN_NEXT) {
        self->inner = point;
        self->state = CANCELLED;
        return how;
    }
    Py_DECREF(point);
    if (how == PYGEN_RETURN) {
        Py_CLEAR(*result);
    }
    return how;
}

/* Let others run: the task is put in the scheduler's queue before the scheduler is told that it
 * waits. What is awaited is `message` then. */
static PySendResult
schedule_point(Wait *self, PyObject *const *parts, PyObject **result)
{
    PyObject *task = running(parts);
    int failed = task == NULL || reschedule(parts, task, parts[NOTHING]);
    Py_XDECREF(task);
    if (failed) {
        return PYGEN_ERROR;
    }
    self->state = YIELDED;
    *result = Py_NewRef(parts[AT_ONCE]);
    return PYGEN_NEXT;
}

/* connection.get_message(), which says why. `parts` are held. */
static PySendResult
receive(Wait *self, const Wire *wire, PyObject *const *parts, PyObject **result)
{
    Connection *connection = self->connection;
    if (wire->watchful) {
        return wait_call(self, result);
    }
    if (!is_none(connection->inbox) &&
        !(PyList_CheckExact(connection->inbox) && PyList_GET_SIZE(connection->inbox) == 0)) {
        PySendResult how = cancel_point(self, parts, result);
        if (how != PYGEN_RETURN) {
            return how;
        }
        self->message = PyObject_CallMethodNoArgs((PyObject *)connection, name_take);
        return self->message == NULL ? PYGEN_ERROR : schedule_point(self, parts, result);
    }
    if (!is_none(connection->closed) || !is_none(connection->receiver)) {
        return wait_call(self, result);
    }
    if (is_none(connection->ticket)) {
        PyObject *forget = PyObject_GetAttr((PyObject *)connection, name_forget);
        if (forget == NULL) {
            return PYGEN_ERROR;
        }
        PyObject *ticket = PyObject_CallOneArg(parts[TICKET], forget);
        Py_DECREF(forget);
        if (ticket == NULL) {
            return PYGEN_ERROR;
        }
        Py_XSETREF(connection->ticket, ticket);
    }
    PyObject *task = running(parts);
    if (task == NULL) {
        return PYGEN_ERROR;
    }
    Py_XSETREF(connection->receiver, task);
    self->state = ASLEEP;
    *result = Py_NewRef(connection->ticket);
    return PYGEN_NEXT;
}

/* connection.send_message() */
static PySendResult
send_usual(Wait *self, Wire *wire, PyObject *const *parts, PyObject **result)
{
    Connection *connection = self->connection;
    PySendResult how = cancel_point(self, parts, result);
    if (how != PYGEN_RETURN) {
        return how;
    }
    PyObject *waits;
    if (!is_none(connection->closed) || !is_none(connection->outbox)) {
        return wait_call(self, result);
    }
    if (PyUnicode_CheckExact(self->message)) {
        waits = connection_send_text(connection, self->message);
    }
    else if (PyBytes_CheckExact(self->message)) {
        waits = connection_send_binary(connection, self->message);
    }
    else {
        return wait_call(self, result);
    }
    if (waits == NULL) {
        if (PyErr_ExceptionMatches(PyExc_OSError)) {
            /* It is lost; and who sends to a lost connection is told so. */
            PyErr_Clear();
            PyObject *closing = PyObject_GetAttr((PyObject *)wire, name_closing), *lost = NULL;
            if (closing != NULL) {
                lost = PyObject_CallMethodOneArg(closing, name_lose, (PyObject *)connection);
                Py_DECREF(closing);
            }
            if (lost != NULL) {
                Py_DECREF(lost);
                return wait_call(self, result);
            }
        }
        return PYGEN_ERROR;
    }
    int flush = waits == Py_True;
    Py_DECREF(waits);
    if (flush) {
        PyObject *done =
            PyObject_CallMethodOneArg((PyObject *)wire, name_must_flush, (PyObject *)connection);
        if (done == NULL) {
            return PYGEN_ERROR;
        }
        Py_DECREF(done);
    }
    Py_CLEAR(self->message);
    return schedule_point(self, parts, result);
}

/* The usual case, if it is one. */
PySendResult
wait_begin(Wait *self, PyObject **result)
{
    Wire *wire = wire_of(self->connection);
    if (wire == NULL) {
        return PYGEN_ERROR;
    }
    PyObject *const *parts = parts_of(wire);
    if (parts == NULL) {
        return wait_call(self, result);
    }
    PyObject *scheduler = Py_NewRef(wire->scheduler);
    Py_INCREF(wire);
    PySendResult how = self->usual->kind == SENDING ? send_usual(self, wire, parts, result)
                                                    : receive(self, wire, parts, result);
    Py_DECREF(wire);
    Py_DECREF(scheduler);
    return how;
}

/* Give a message to the one task that waits for it. 1: done; 0: none or several wait, or the loop
 * has its own way; -1: an exception is set. */
static int
wake_receiver(Connection *self, PyObject *message)
{
    if (is_none(self->receiver) || !is_none(self->more_receivers)) {
        return 0;
    }
    Wire *wire = wire_of(self);
    if (wire == NULL) {
        return -1;
    }
    PyObject *const *parts = parts_of(wire);
    if (parts == NULL) {
        return 0;
    }
    PyObject *with = delivered(message);
    if (with == NULL) {
        return -1;
    }
    PyObject *task = self->receiver, *scheduler = Py_NewRef(wire->scheduler);
    self->receiver = Py_NewRef(Py_None);
    int failed = reschedule(parts, task, with);
    Py_DECREF(task);
    Py_DECREF(with);
    Py_DECREF(scheduler);
    return failed ? -1 : 1;
}

/* See wire_pure.WireConnection.forward(). */
PyObject *
connection_forward(Connection *self, PyObject *budget)
{
    PyObject *found = connection_receive(self, budget);
    if (found == NULL || !(PyUnicode_CheckExact(found) || PyBytes_CheckExact(found))) {
        return found;
    }
    int woken = wake_receiver(self, found);
    if (woken == 0) {
        return found;
    }
    Py_DECREF(found);
    if (woken < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
