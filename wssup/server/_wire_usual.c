/* The compiled core's coroutines: what get_message() and send_message() return; see _wire.c.
 *
 * Such a method is written in Python, as a coroutine function that knows every case. `Usual` wraps
 * it: called, it gives a `Wait`, which behaves like the coroutine, and goes through the usual case
 * by itself (_wire_waits.c): a message is waited for and comes, or is there; one is sent, and the
 * kernel takes it. No Python frame is made for that. In every other case the Wait calls the
 * function, and passes on what is sent into it, thrown into it, and comes out, as `await` would.
 */

#include "_wire.h"

#include <stddef.h>

static PyObject *name_throw, *name_close, *name_unwrap, *name_qualname;

int
begin_usual(void)
{
    name_throw = PyUnicode_InternFromString("throw");
    name_close = PyUnicode_InternFromString("close");
    name_unwrap = PyUnicode_InternFromString("unwrap");
    name_qualname = PyUnicode_InternFromString("__qualname__");
    return name_throw == NULL || name_close == NULL || name_unwrap == NULL || name_qualname == NULL
               ? -1
               : 0;
}

/* Making a Wait. */

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

/* How it goes on. */

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
PySendResult
wait_call(Wait *self, PyObject **result)
{
    PyObject *arguments[] = {(PyObject *)self->connection, self->message};
    size_t count = self->usual->kind == SENDING ? 2 : 1;
    self->inner = PyObject_Vectorcall(self->usual->function, arguments, count, NULL);
    return self->inner == NULL ? PYGEN_ERROR : pass(self, Py_None, result);
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
        how = wait_begin(self, result);
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
            how = wait_call(self, result);
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
            can_wait((Wire *)connection->wire)) {
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
