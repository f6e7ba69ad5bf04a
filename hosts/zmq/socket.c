#include "socket.h"

#include <errno.h>

/* Signals interrupt calls of libzmq, and Go's runtime sends itself signals. The errno is read
 * here, because Go may change threads between two calls. */
#define RESULT(call)                                  \
	int r;                                        \
	do                                            \
		r = (call);                           \
	while (r < 0 && errno == EINTR);              \
	return r < 0 ? -errno : r

static int option(void *socket, int name, int *v)
{
	size_t n = sizeof *v;
	RESULT(zmq_getsockopt(socket, name, v, &n));
}

int weir_zmq_events(void *socket)
{
	int v = 0, r = option(socket, ZMQ_EVENTS, &v);
	return r < 0 ? r : v;
}

int weir_zmq_fd(void *socket)
{
	int v = -1, r = option(socket, ZMQ_FD, &v);
	return r < 0 ? r : v;
}

int weir_zmq_send(void *socket, const void *p, size_t n, int flags) { RESULT(zmq_send(socket, p, n, flags | ZMQ_DONTWAIT)); }

int weir_zmq_receive(void *socket, zmq_msg_t *m) { RESULT(zmq_msg_recv(m, socket, ZMQ_DONTWAIT)); }

int weir_zmq_bind(void *socket, const char *endpoint) { RESULT(zmq_bind(socket, endpoint)); }

int weir_zmq_connect(void *socket, const char *endpoint) { RESULT(zmq_connect(socket, endpoint)); }

int weir_zmq_set(void *socket, int name, int v) { RESULT(zmq_setsockopt(socket, name, &v, sizeof v)); }

int weir_zmq_term(void *context) { RESULT(zmq_ctx_term(context)); }
