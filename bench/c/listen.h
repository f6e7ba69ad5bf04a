// Shared by the C servers: a listening socket and the line that says where.
#ifndef WEIR_BENCH_LISTEN_H
#define WEIR_BENCH_LISTEN_H
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

// parse fills sa from "a.b.c.d:port".
static struct sockaddr_in parse(const char *addr)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	char host[64];
	const char *colon = strrchr(addr, ':');
	if (!colon || colon - addr >= (long)sizeof host) {
		errno = EINVAL;
		die(addr);
	}
	memcpy(host, addr, colon - addr);
	host[colon - addr] = 0;
	sa.sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, host, &sa.sin_addr) != 1) {
		errno = EINVAL;
		die(addr);
	}
	return sa;
}

// listen_on listens; all loops of one process share the port of the first.
static int listen_on(struct sockaddr_in *sa, int flags)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	socklen_t len = sizeof *sa;
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)sa, sizeof *sa) < 0)
		die("bind");
	if (listen(fd, 4096) < 0)
		die("listen");
	if (getsockname(fd, (struct sockaddr *)sa, &len) < 0)
		die("getsockname");
	return fd;
}

static void nodelay(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void ready(const struct sockaddr_in *sa)
{
	char host[64];
	inet_ntop(AF_INET, &sa->sin_addr, host, sizeof host);
	printf("ready %s:%d\n", host, ntohs(sa->sin_port));
	fflush(stdout);
}
#endif
