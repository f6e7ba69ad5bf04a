// The relay's floor: splice through a pipe of 1 MB each way, edge-triggered
// epoll, one thread. PIPE is the pipe's size in bytes.
//
//   relay ADDR TARGET PIPE
#define _GNU_SOURCE
#include "listen.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>

struct way {
	int pipe[2];
	size_t held; // in the pipe
	char eof, done;
};

struct session {
	int fd[2]; // the client, the target
	struct way way[2];
	char dead;
	struct session *next_dead;
};

static size_t pipe_size;
static struct sockaddr_in target;
static struct session *dead;

static void lose(struct session *s)
{
	if (s->dead)
		return;
	s->dead = 1;
	s->next_dead = dead;
	dead = s;
}

// pump moves bytes one way until the source has none or the sink takes none.
static void pump(struct session *s, int i)
{
	struct way *w = &s->way[i];
	int from = s->fd[i], to = s->fd[!i];
	while (!w->done) {
		int moved = 0;
		if (!w->eof && w->held < pipe_size) {
			ssize_t n = splice(from, NULL, w->pipe[1], NULL, pipe_size - w->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
			if (n > 0) {
				w->held += n;
				moved = 1;
			} else if (n == 0) {
				w->eof = 1;
			} else if (errno != EAGAIN) {
				lose(s);
				return;
			}
		}
		if (w->held > 0) {
			ssize_t n = splice(w->pipe[0], NULL, to, NULL, w->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
			if (n > 0) {
				w->held -= n;
				moved = 1;
			} else if (n < 0 && errno != EAGAIN) {
				lose(s);
				return;
			}
		}
		if (w->eof && w->held == 0) {
			w->done = 1;
			shutdown(to, SHUT_WR);
			if (s->way[!i].done)
				lose(s);
			return;
		}
		if (!moved)
			return;
	}
}

static void begin(int ep, int client)
{
	struct session *s = calloc(1, sizeof *s);
	if (!s)
		die("calloc");
	nodelay(client);
	s->fd[0] = client;
	s->fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	// To loopback a blocking connect is done when the call returns.
	if (s->fd[1] < 0 || connect(s->fd[1], (struct sockaddr *)&target, sizeof target) < 0)
		die("connect");
	nodelay(s->fd[1]);
	for (int i = 0; i < 2; i++) {
		if (pipe2(s->way[i].pipe, O_CLOEXEC | O_NONBLOCK) < 0)
			die("pipe2");
		fcntl(s->way[i].pipe[1], F_SETPIPE_SZ, pipe_size);
		fcntl(s->fd[i], F_SETFL, O_NONBLOCK);
		struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, s->fd[i], &ev) < 0)
			die("epoll_ctl");
	}
}

static void bury(void)
{
	while (dead) {
		struct session *s = dead;
		dead = s->next_dead;
		for (int i = 0; i < 2; i++) {
			close(s->fd[i]);
			close(s->way[i].pipe[0]);
			close(s->way[i].pipe[1]);
		}
		free(s);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: relay ADDR TARGET PIPE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in sa = parse(argv[1]);
	target = parse(argv[2]);
	pipe_size = strtoul(argv[3], NULL, 10);
	int lfd = listen_on(&sa, SOCK_NONBLOCK), ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, evs[256];
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev) < 0)
		die("epoll");
	ready(&sa);
	for (;;) {
		int n = epoll_wait(ep, evs, 256, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct session *s = evs[i].data.ptr;
			if (!s) {
				int fd;
				while ((fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
					begin(ep, fd);
				continue;
			}
			for (int w = 0; w < 2 && !s->dead; w++)
				pump(s, w);
		}
		bury();
	}
}
