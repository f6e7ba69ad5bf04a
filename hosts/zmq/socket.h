#pragma once

#include <zmq.h>

/* Each returns what the call of libzmq does, or minus its errno. */
int weir_zmq_events(void *socket);
int weir_zmq_fd(void *socket);
int weir_zmq_send(void *socket, const void *p, size_t n, int flags);
int weir_zmq_receive(void *socket, zmq_msg_t *m);
int weir_zmq_bind(void *socket, const char *endpoint);
int weir_zmq_connect(void *socket, const char *endpoint);
int weir_zmq_set(void *socket, int name, int v);
int weir_zmq_term(void *context);
