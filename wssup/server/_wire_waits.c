/* The compiled core's waiting: what get_message() and send_message() return; see _wire.c.
 *
 * Such a method is written in Python, as a coroutine function that knows every case. `Usual` wraps
 * it: called, it gives a `Wait`, which behaves like the coroutine, and goes through the usual case
 * by itself: a message is waited for and comes, or is there; one is sent, and the kernel takes it.
 * No Python frame is made for that. In every other case the Wait calls the function, and passes on
 * what is sent into it, thrown into it, and comes out, as `await` would.
 *
 * The promises are those of the function: each call is a cancel point and a schedule point; what is
 * cancelled has neither taken nor sent anything. What of it depends on the event loop stands in
 * the `scheduler` of the Wire, a tuple of loops/trio.py; without one, Usual calls the function.
 */

#include "_wire.h"

#include <structmember.h>

#include <stddef.h>

/* The parts of a scheduler; see loops.Loop. */
enum { WAITER, CANCEL_POINT, RESCHEDULE, NOTHING, AT_ONCE, TICKET, INSIDE, PARTS };

static PyObject *name_throw, *name_close, *name_unwrap, *name_forget, *name_take, *name_closing;
static PyObject *name_lose, *name_must_flush, *name_qualname, *name_task, *name_runner;
static PyObject *name_reschedule, *name_status, *name_cancelled, *name_interrupted;

int
begin_waits(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&name_throw, "throw"},
        {&name_close, "close"},
        {&name_unwrap, "unwrap"},
        {&name_forget, "forget_receiver"},
        {&name_take, "take"},
        {&name_closing, "closing"},
        {&name_lose, "lose"},
        {&name_must_flush, "must_flush"},
        {&name_qualname, "__qualname__"},
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

typedef struct {
    PyObject_HEAD
    PyObject *value;
} Delivered;

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

/* Usual: a method of which the usual case is compiled. */

enum { RECEIVING, SENDING, KINDS };

typedef struct {
    PyObject_HEAD
    PyObject *attributes; /* __doc__ and the like */
    vectorcallfunc vectorcall;
    PyObject *function;
    PyObject *end; /* an exception that becomes StopAsyncIteration, or NULL */
    int kind;
} Usual;

/* Wait: one call of such a method. */

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

/* Waits that were used, for the next ones: two are made for each echo. */
enum { KEPT = 64 };
static Wait *kept[KEPT];
static int kept_count;

static PyObject *
wait_for(Usual *usual, Connection *connection, PyObject *message)
{
    Wait *self;
    if (kept_count) {
        self = kept[--kept_count];
        (void)PyObject_Init((PyObject *)self, &WaitType);
    }
    else {
        self = PyObject_GC_New(Wait, &WaitType);
        if (self == NULL) {
            return NULL;
        }
    }
    self->usual = (Usual *)Py_NewRef((PyObject *)usual);
    self->connection = (Connection *)Py_NewRef((PyObject *)connection);
    self->message = Py_XNewRef(message);
    self->inner = NULL;
    self->state = NEW;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
wait_traverse(Wait *self, visitproc visit, void *arg)
{
    Py_VISIT(self->usual);
    Py_VISIT(self->connection);
    Py_VISIT(self->message);
    Py_VISIT(self->inner);
    return 0;
}

static int
wait_clear(Wait *self)
{
    Py_CLEAR(self->usual);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->message);
    Py_CLEAR(self->inner);
    return 0;
}

/* As of a coroutine: nobody awaited it. */
static void
wait_finalize(Wait *self)
{
    if (self->state != NEW || self->usual == NULL) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *name = PyObject_GetAttr(self->usual->function, name_qualname);
    if (name == NULL || PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                                         "coroutine '%S' was never awaited", name) < 0) {
        PyErr_WriteUnraisable((PyObject *)self->usual);
    }
    Py_XDECREF(name);
    PyErr_Restore(type, value, traceback);
}

static void
wait_dealloc(Wait *self)
{
    if (self->state == NEW && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    wait_clear(self);
    /* One that was finalized is marked so for ever. */
    if (kept_count < KEPT && !PyObject_GC_IsFinalized((PyObject *)self)) {
        kept[kept_count++] = self;
    }
    else {
        PyObject_GC_Del(self);
    }
}

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

/* The running task. */
static PyObject *
running(PyObject *const *parts)
{
    return parts[INSIDE] == Py_None ? PyObject_CallNoArgs(parts[WAITER])
                                    : PyObject_GetAttr(parts[INSIDE], name_task);
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

/* How a Wait goes on: PYGEN_NEXT: `result` is for the loop; PYGEN_RETURN: it is what is awaited. */

static PySendResult
pass(Wait *self, PyObject *sent, PyObject **result)
{
    PySendResult how = PyIter_Send(self->inner, sent, result);
    if (how == PYGEN_NEXT) {
        self->state = PASSING;
    }
    else {
        Py_CLEAR(self->inner);
    }
    return how;
}

/* What is not usual is for the function. */
static PySendResult
call(Wait *self, PyObject **result)
{
    PyObject *arguments[] = {(PyObject *)self->connection, self->message};
    size_t count = self->usual->kind == SENDING ? 2 : 1;
    self->inner = PyObject_Vectorcall(self->usual->function, arguments, count, NULL);
    return self->inner == NULL ? PYGEN_ERROR : pass(self, Py_None, result);
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
        return call(self, result);
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
        return call(self, result);
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
        return call(self, result);
    }
    if (PyUnicode_CheckExact(self->message)) {
        waits = connection_send_text(connection, self->message);
    }
    else if (PyBytes_CheckExact(self->message)) {
        waits = connection_send_binary(connection, self->message);
    }
    else {
        return call(self, result);
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
                return call(self, result);
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

static PySendResult
begin(Wait *self, PyObject **result)
{
    Wire *wire = wire_of(self->connection);
    if (wire == NULL) {
        return PYGEN_ERROR;
    }
    PyObject *const *parts = parts_of(wire);
    if (parts == NULL) {
        return call(self, result);
    }
    PyObject *scheduler = Py_NewRef(wire->scheduler);
    Py_INCREF(wire);
    PySendResult how = self->usual->kind == SENDING ? send_usual(self, wire, parts, result)
                                                    : receive(self, wire, parts, result);
    Py_DECREF(wire);
    Py_DECREF(scheduler);
    return how;
}

/* What `await` does with the exception that is set: the end of an iteration has another name. */
static void
rename_end(const Wait *self)
{
    if (self->usual->end != NULL && PyErr_ExceptionMatches(self->usual->end)) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
    }
}

static PySendResult
wait_send(Wait *self, PyObject *sent, PyObject **result)
{
    int state = self->state;
    PySendResult how;
    *result = NULL;
    if (state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return PYGEN_ERROR;
    }
    if (state == DONE) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (state == NEW && sent != Py_None) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    self->state = RUNNING;
    switch (state) {
    case NEW:
        how = begin(self, result);
        break;
    case ASLEEP:
        *result = Py_TYPE(sent) == &DeliveredType
                      ? Py_NewRef(((Delivered *)sent)->value)
                      : PyObject_CallMethodNoArgs(sent, name_unwrap);
        how = *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        break;
    case YIELDED:
        *result = self->message != NULL ? self->message : Py_NewRef(Py_None);
        self->message = NULL;
        how = PYGEN_RETURN;
        break;
    case CANCELLED:
        how = pass(self, sent, result);
        if (how == PYGEN_NEXT) {
            self->state = CANCELLED;
        }
        else if (how == PYGEN_RETURN) {
            /* It was not, after all. */
            Py_CLEAR(*result);
            how = call(self, result);
        }
        break;
    default:
        how = pass(self, sent, result);
    }
    if (how != PYGEN_NEXT) {
        self->state = DONE;
        if (how == PYGEN_ERROR) {
            rename_end(self);
        }
    }
    return how;
}

/* The same as iterators have it. */
static PyObject *
as_iterator(PySendResult how, PyObject *result)
{
    if (how == PYGEN_RETURN) {
        if (result == Py_None) {
            PyErr_SetNone(PyExc_StopIteration);
        }
        else {
            /* An instance, so that a tuple or an exception stays what it is. */
            PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
            if (stop != NULL) {
                PyErr_SetObject(PyExc_StopIteration, stop);
                Py_DECREF(stop);
            }
        }
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
wait_send_method(Wait *self, PyObject *sent)
{
    PyObject *result;
    PySendResult how = wait_send(self, sent, &result);
    return as_iterator(how, result);
}

static PyObject *
wait_next(Wait *self)
{
    return wait_send_method(self, Py_None);
}

/* Raise as generator.throw() is told to: an exception, or a type, a value and a traceback. */
static void
raise_thrown(PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *type = arguments[0], *error = NULL;
    PyObject *value = count > 1 && arguments[1] != Py_None ? arguments[1] : NULL;
    PyObject *traceback = count > 2 && arguments[2] != Py_None ? arguments[2] : NULL;
    if (PyExceptionInstance_Check(type) && value == NULL) {
        error = Py_NewRef(type);
    }
    else if (PyExceptionClass_Check(type)) {
        if (value != NULL && PyObject_IsInstance(value, type) == 1) {
            error = Py_NewRef(value);
        }
        else if (value != NULL && PyTuple_Check(value)) {
            error = PyObject_CallObject(type, value);
        }
        else {
            error = value ? PyObject_CallOneArg(type, value) : PyObject_CallNoArgs(type);
        }
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    if (error == NULL) {
        return;
    }
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    else if (traceback == NULL || PyException_SetTraceback(error, traceback) == 0) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_DECREF(error);
}

static PyObject *
wait_throw(Wait *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    int state = self->state;
    if (state == RUNNING || state == DONE) {
        PyObject *result;
        return as_iterator(wait_send(self, Py_None, &result), NULL); /* which says so */
    }
    PyObject *result = NULL;
    if (self->inner != NULL) {
        self->state = RUNNING;
        PyObject *throw = PyObject_GetAttr(self->inner, name_throw);
        if (throw != NULL) {
            result = PyObject_Vectorcall(throw, arguments, (size_t)count, NULL);
            Py_DECREF(throw);
        }
        if (result != NULL) {
            self->state = state;
            return result;
        }
        /* A StopIteration, too, says of this what it says of the other. */
        Py_CLEAR(self->inner);
    }
    else {
        raise_thrown(arguments, count);
    }
    self->state = DONE;
    rename_end(self);
    return NULL;
}

static PyObject *
wait_close(Wait *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    self->state = DONE;
    if (self->inner != NULL) {
        PyObject *inner = self->inner;
        self->inner = NULL;
        PyObject *done = PyObject_CallMethodNoArgs(inner, name_close);
        Py_DECREF(inner);
        return done;
    }
    Py_RETURN_NONE;
}

static PyObject *
wait_repr(const Wait *self)
{
    PyObject *name = PyObject_GetAttr(self->usual->function, name_qualname);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("<coroutine object %S at %p>", name, self);
    Py_DECREF(name);
    return text;
}

/* What a coroutine says of itself, and what looks at tasks looks at. trio wraps one that has no
 * frame. */
static PyObject *
wait_attribute(Wait *self, void *which)
{
    if (which == NULL) {
        return Py_NewRef(Py_None); /* cr_frame */
    }
    if (which == &name_throw) {
        return Py_NewRef(self->inner == NULL ? Py_None : self->inner); /* cr_await */
    }
    return PyObject_GetAttrString(self->usual->function, which);
}

static PyGetSetDef wait_attributes[] = {
    {"cr_frame", (getter)wait_attribute, NULL, NULL, NULL},
    {"cr_await", (getter)wait_attribute, NULL, NULL, &name_throw},
    {"cr_code", (getter)wait_attribute, NULL, NULL, "__code__"},
    {"__name__", (getter)wait_attribute, NULL, NULL, "__name__"},
    {"__qualname__", (getter)wait_attribute, NULL, NULL, "__qualname__"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef wait_methods[] = {
    {"send", (PyCFunction)wait_send_method, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))wait_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)wait_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods wait_async = {
    .am_await = PyObject_SelfIter,
    .am_send = (sendfunc)wait_send,
};

PyTypeObject WaitType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "wssup.server._wire.Wait",
    .tp_doc = "The coroutine of a Usual.",
    .tp_basicsize = sizeof(Wait),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = (traverseproc)wait_traverse,
    .tp_clear = (inquiry)wait_clear,
    .tp_finalize = (destructor)wait_finalize,
    .tp_dealloc = (destructor)wait_dealloc,
    .tp_repr = (reprfunc)wait_repr,
    .tp_as_async = &wait_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)wait_next,
    .tp_methods = wait_methods,
    .tp_getset = wait_attributes,
};

/* Usual, again. */

static PyObject *
usual_vectorcall(PyObject *callable, PyObject *const *arguments, size_t flags, PyObject *names)
{
    Usual *self = (Usual *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (names == NULL && count == (self->kind == SENDING ? 2 : 1) &&
        PyObject_TypeCheck(arguments[0], &ConnectionType)) {
        Connection *connection = (Connection *)arguments[0];
        if (connection->wire != NULL && PyObject_TypeCheck(connection->wire, &WireType) &&
            parts_of((Wire *)connection->wire) != NULL) {
            return wait_for(self, connection, count == 2 ? arguments[1] : NULL);
        }
    }
    return PyObject_Vectorcall(self->function, arguments, flags, names);
}

static PyObject *
usual_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "function", "end", NULL};
    int kind;
    PyObject *function, *end = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO|O:Usual", names, &kind, &function, &end)) {
        return NULL;
    }
    if (kind < 0 || kind >= KINDS || !PyCallable_Check(function)) {
        PyErr_SetString(PyExc_ValueError, "there is no such kind, or no function");
        return NULL;
    }
    Usual *self = (Usual *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = usual_vectorcall;
        self->kind = kind;
        self->function = Py_NewRef(function);
        self->end = end == Py_None ? NULL : Py_NewRef(end);
    }
    return (PyObject *)self;
}

static int
usual_traverse(Usual *self, visitproc visit, void *arg)
{
    Py_VISIT(self->attributes);
    Py_VISIT(self->function);
    Py_VISIT(self->end);
    return 0;
}

static int
usual_clear(Usual *self)
{
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->end);
    return 0; /* the function stays: Waits call it */
}

static void
usual_dealloc(Usual *self)
{
    PyObject_GC_UnTrack(self);
    usual_clear(self);
    Py_CLEAR(self->function);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
usual_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyGetSetDef usual_attributes[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject UsualType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "wssup.server._wire.Usual",
    .tp_doc = "An async method whose usual case is compiled.",
    .tp_basicsize = sizeof(Usual),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR |
                Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Usual, vectorcall),
    .tp_dictoffset = offsetof(Usual, attributes),
    .tp_new = usual_new,
    .tp_traverse = (traverseproc)usual_traverse,
    .tp_clear = (inquiry)usual_clear,
    .tp_dealloc = (destructor)usual_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = usual_get,
    .tp_getset = usual_attributes,
};

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
