// The floor: an echo server on level-triggered epoll, one loop per thread.
//
//   epoll ADDR LOOPS
#define _GNU_SOURCE
#include "listen.h"
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

enum { EVENTS = 256, BUF = 65536 };

struct conn {
	int fd;
	char *out; // what the socket did not take, or NULL
	size_t off, len;
};

static void drop(struct conn *c)
{
	close(c->fd);
	free(c->out);
	free(c);
}

// watch asks for room while there is something to send, else for bytes, so
// that a peer that does not read is not read from.
static void watch(int ep, struct conn *c, unsigned events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};
	if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev) < 0)
		die("epoll_ctl");
}

static void on_readable(int ep, struct conn *c, char *buf)
{
	ssize_t n = read(c->fd, buf, BUF), w;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		drop(c);
		return;
	}
	w = write(c->fd, buf, n);
	if (w == n)
		return;
	if (w < 0 && errno != EAGAIN) {
		drop(c);
		return;
	}
	if (w < 0)
		w = 0;
	c->out = malloc(n - w);
	if (!c->out)
		die("malloc");
	memcpy(c->out, buf + w, n - w);
	c->off = 0;
	c->len = n - w;
	watch(ep, c, EPOLLOUT);
}

static void on_writable(int ep, struct conn *c)
{
	ssize_t w = write(c->fd, c->out + c->off, c->len - c->off);
	if (w < 0) {
		if (errno != EAGAIN)
			drop(c);
		return;
	}
	c->off += w;
	if (c->off < c->len)
		return;
	free(c->out);
	c->out = NULL;
	watch(ep, c, EPOLLIN);
}

static void on_accept(int ep, int lfd)
{
	for (;;) {
		int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		nodelay(fd);
		struct conn *c = calloc(1, sizeof *c);
		if (!c)
			die("calloc");
		c->fd = fd;
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
			die("epoll_ctl");
	}
}

static void *loop(void *arg)
{
	int lfd = (int)(long)arg, ep = epoll_create1(EPOLL_CLOEXEC);
	char *buf = malloc(BUF);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, evs[EVENTS];
	if (ep < 0 || !buf || epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev) < 0)
		die("epoll");
	for (;;) {
		int n = epoll_wait(ep, evs, EVENTS, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct conn *c = evs[i].data.ptr;
			if (!c)
				on_accept(ep, lfd);
			else if (c->out)
				on_writable(ep, c);
			else
				on_readable(ep, c, buf);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: epoll ADDR LOOPS\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in sa = parse(argv[1]);
	int loops = atoi(argv[2]), lfd = listen_on(&sa, SOCK_NONBLOCK);
	for (int i = 1; i < loops; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, loop, (void *)(long)listen_on(&sa, SOCK_NONBLOCK)))
			die("pthread_create");
	}
	ready(&sa);
	loop((void *)(long)lfd);
}
