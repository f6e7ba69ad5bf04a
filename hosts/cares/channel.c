#include "channel.h"
#include "_cgo_export.h"

#include <netinet/in.h>

/* ares_library_init is for one thread, as long as there is only one. */
__attribute__((constructor)) static void init(void) { ares_library_init(ARES_LIB_INIT_ALL); }

static void on_state(void *handle, ares_socket_t fd, int readable, int writable)
{
	weirCaresState((uintptr_t)handle, fd, readable, writable);
}

static void on_done(void *question, int status, int timeouts, struct ares_addrinfo *res)
{
	(void)timeouts;
	for (struct ares_addrinfo_node *n = res ? res->nodes : NULL; n; n = n->ai_next) {
		if (n->ai_family == AF_INET)
			weirCaresAddress((uintptr_t)question, &((struct sockaddr_in *)n->ai_addr)->sin_addr, 4);
		else if (n->ai_family == AF_INET6)
			weirCaresAddress((uintptr_t)question, &((struct sockaddr_in6 *)n->ai_addr)->sin6_addr, 16);
	}
	if (res)
		ares_freeaddrinfo(res);
	weirCaresDone((uintptr_t)question, status);
}

int weir_channel_new(ares_channel *channel, uintptr_t handle, const char *servers, int timeout_ms, int tries)
{
	struct ares_options o = {0};
	o.sock_state_cb = on_state;
	o.sock_state_cb_data = (void *)handle;
	o.timeout = timeout_ms;
	o.tries = tries;
	int r = ares_init_options(channel, &o, ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
	if (r != ARES_SUCCESS)
		return r;
	if (servers && (r = ares_set_servers_ports_csv(*channel, servers)) != ARES_SUCCESS)
		ares_destroy(*channel);
	return r;
}

void weir_channel_ask(ares_channel channel, const char *host, int family, uintptr_t question)
{
	struct ares_addrinfo_hints hints = {0};
	hints.ai_family = family;
	ares_getaddrinfo(channel, host, NULL, &hints, on_done, (void *)question);
}

/* In microseconds; -1: no question waits for anything. */
int64_t weir_channel_timeout(ares_channel channel)
{
	struct timeval tv;
	if (!ares_timeout(channel, NULL, &tv))
		return -1;
	return (int64_t)tv.tv_sec * 1000000 + tv.tv_usec;
}
