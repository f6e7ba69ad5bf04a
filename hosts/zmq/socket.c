#include "socket.h"

#include <errno.h>

/* zmq_errno belongs to a thread, and Go may change threads between two calls. */
#define RESULT(call)             \
	int r = (call);          \
	return r < 0 ? -errno : r

int weir_zmq_events(void *socket)
{
	int v = 0;
	size_t n = sizeof v;
	return zmq_getsockopt(socket, ZMQ_EVENTS, &v, &n) < 0 ? -errno : v;
}

int weir_zmq_fd(void *socket)
{
	int v = -1;
	size_t n = sizeof v;
	return zmq_getsockopt(socket, ZMQ_FD, &v, &n) < 0 ? -errno : v;
}

int weir_zmq_send(void *socket, const void *p, size_t n, int flags) { RESULT(zmq_send(socket, p, n, flags | ZMQ_DONTWAIT)); }

int weir_zmq_receive(void *socket, zmq_msg_t *m) { RESULT(zmq_msg_recv(m, socket, ZMQ_DONTWAIT)); }
