// The floor of datagrams: recvmmsg and sendmmsg on one thread. With JOIN 1 the kernel joins
// what it may (UDP GRO and GSO), with 0 it does not. Without TARGET it is an echo server, with
// one a relay that has a connected socket for each peer.
//
//   datagrams ADDR JOIN [TARGET]
#define _GNU_SOURCE
#include "listen.h"
#include <netinet/udp.h>
#include <sys/epoll.h>

#define BATCH 32          // messages of one call
#define ROOM 65536        // bytes of a message
#define SEGMENTS 64       // datagrams that the kernel takes as one message
#define JOINED 65000      // bytes of them
#define TABLE (1 << 14)   // places for flows

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

struct flow {
	struct sockaddr_in peer;
	int fd; // to the target; of the listener: itself
};

static int join;
static int backend = -1, listener;
static struct sockaddr_in target;
static struct flow *flows[TABLE];

// What came by one call.
static struct mmsghdr in[BATCH];
static struct iovec in_iov[BATCH];
static struct sockaddr_in from[BATCH];
static char in_control[BATCH][64] __attribute__((aligned(8)));
static char *room[BATCH];
static int segment[BATCH]; // 0: one datagram

// What leaves by one call.
static struct mmsghdr out[BATCH];
static struct iovec out_iov[BATCH];
static char out_control[BATCH][CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(8)));

static int receive(int fd)
{
	for (int i = 0; i < BATCH; i++) {
		in_iov[i] = (struct iovec){room[i], ROOM};
		in[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i],
			.msg_iov = &in_iov[i], .msg_iovlen = 1,
			.msg_control = join ? in_control[i] : NULL, .msg_controllen = join ? sizeof in_control[i] : 0};
	}
	int n = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED)
			die("recvmmsg");
		return 0;
	}
	for (int i = 0; i < n; i++) {
		segment[i] = 0;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&in[i].msg_hdr); c; c = CMSG_NXTHDR(&in[i].msg_hdr, c))
			if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
				memcpy(&segment[i], CMSG_DATA(c), sizeof segment[i]);
		if (segment[i] >= (int)in[i].msg_len)
			segment[i] = 0;
	}
	return n;
}

static int same(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
}

// send_all sends the messages first to last by fd, to the address to or, for NULL, to where each
// came from. Datagrams of one size to one place are joined.
static void send_all(int fd, int first, int last, struct sockaddr_in *to, int connected)
{
	int n = 0;
	for (int i = first; i < last; i++) {
		out_iov[i] = (struct iovec){room[i], in[i].msg_len};
		struct msghdr *h = &out[n].msg_hdr;
		struct sockaddr_in *name = connected ? NULL : to ? to : &from[i];
		*h = (struct msghdr){.msg_name = name, .msg_namelen = name ? sizeof *name : 0,
			.msg_iov = &out_iov[i], .msg_iovlen = 1};
		int size = segment[i];
		if (!size && join && in[i].msg_len > 0) {
			size = in[i].msg_len;
			size_t bytes = size;
			while (i + 1 < last && !segment[i + 1] && (int)in[i + 1].msg_len == size && bytes + size <= JOINED &&
			       h->msg_iovlen < SEGMENTS && (connected || to || same(&from[i], &from[i + 1]))) {
				i++;
				out_iov[i] = (struct iovec){room[i], in[i].msg_len};
				h->msg_iovlen++;
				bytes += size;
			}
			if (h->msg_iovlen == 1)
				size = 0;
		}
		if (size) {
			h->msg_control = out_control[n];
			h->msg_controllen = sizeof out_control[n];
			struct cmsghdr *c = CMSG_FIRSTHDR(h);
			c->cmsg_level = IPPROTO_UDP;
			c->cmsg_type = UDP_SEGMENT;
			c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
			*(uint16_t *)CMSG_DATA(c) = size;
		}
		n++;
	}
	for (int done = 0; done < n;) {
		int k = sendmmsg(fd, out + done, n - done, 0);
		if (k < 0 && errno != EINTR && errno != ECONNREFUSED)
			die("sendmmsg");
		if (k > 0)
			done += k;
	}
}

static void want_joined(int fd)
{
	int one = 1;
	if (join && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one) < 0)
		die("UDP_GRO");
}

static struct flow *flow_of(int ep, const struct sockaddr_in *peer)
{
	uint32_t h = (peer->sin_addr.s_addr ^ (uint32_t)peer->sin_port << 13) * 2654435761u >> 18;
	for (;; h = (h + 1) % TABLE) {
		struct flow *f = flows[h % TABLE];
		if (f && same(&f->peer, peer))
			return f;
		if (f)
			continue;
		f = calloc(1, sizeof *f);
		if (!f)
			die("calloc");
		f->peer = *peer;
		f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&target, sizeof target) < 0)
			die("flow");
		want_joined(f->fd);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = f};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, f->fd, &ev) < 0)
			die("epoll_ctl");
		return flows[h % TABLE] = f;
	}
}

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: datagrams ADDR JOIN [TARGET]\n");
		return 2;
	}
	struct sockaddr_in sa = parse(argv[1]);
	socklen_t len = sizeof sa;
	join = atoi(argv[2]);
	if (argc == 4) {
		target = parse(argv[3]);
		backend = 0;
	}
	for (int i = 0; i < BATCH; i++)
		if (!(room[i] = malloc(ROOM + 2112))) // not all at the same place of the cache
			die("malloc");
	listener = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int buffer = 4 << 20;
	if (listener < 0 || bind(listener, (struct sockaddr *)&sa, sizeof sa) < 0 ||
	    getsockname(listener, (struct sockaddr *)&sa, &len) < 0)
		die("bind");
	if (backend < 0)
		setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
	want_joined(listener);
	struct flow self = {.fd = listener};
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &self}, evs[256];
	int ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0)
		die("epoll");
	ready(&sa);
	for (;;) {
		int n = epoll_wait(ep, evs, 256, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct flow *f = evs[i].data.ptr;
			int m = receive(f->fd);
			if (f != &self) {
				send_all(listener, 0, m, &f->peer, 0);
			} else if (backend < 0) {
				send_all(listener, 0, m, NULL, 0);
			} else {
				for (int k = 0, first = 0; k < m; k++)
					if (k + 1 == m || !same(&from[k], &from[k + 1])) {
						send_all(flow_of(ep, &from[k])->fd, first, k + 1, NULL, 1);
						first = k + 1;
					}
			}
		}
	}
}
