// The other floor: an echo server on io_uring by bare system calls. Multishot
// accept and receive, one ring of provided buffers, one enter per turn, one
// loop per thread.
//
//   uring ADDR LOOPS BUFSIZE
#define _GNU_SOURCE
#include "listen.h"
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
	ENTRIES = 4096,
	CQES = 32768,
	MEMORY = 16 << 20, // of the buffers
	MAXBUFS = 1024,
	GROUP = 1,
};

static unsigned bufs, bufsize, stride;

enum { ACCEPT, RECV, SEND };

struct conn {
	int fd;
	short head, tail;          // buffers to send, the first one on its way; -1: none
	unsigned char dead;        // nothing will be sent any more
	unsigned char receiving;   // a receive is armed
	unsigned char starved;     // it ended for want of buffers
	struct conn *next_starved;
};

struct ring {
	int fd, lfd;
	unsigned *sq_tail, sq_mask, tail, submitted;
	unsigned *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	struct io_uring_buf_ring *br;
	unsigned short br_tail;
	char *mem;
	short next[MAXBUFS];
	int len[MAXBUFS];
	struct conn *starved;
};

static void enter(struct ring *r, unsigned wait)
{
	__atomic_store_n(r->sq_tail, r->tail, __ATOMIC_RELEASE);
	unsigned todo = r->tail - r->submitted;
	int n = syscall(SYS_io_uring_enter, r->fd, todo, wait, IORING_ENTER_GETEVENTS, NULL, 0);
	if (n < 0 && errno != EINTR && errno != EBUSY && errno != EAGAIN)
		die("io_uring_enter");
	if (n > 0)
		r->submitted += n;
}

static struct io_uring_sqe *sqe(struct ring *r, int op, int fd, void *owner, int kind)
{
	while (r->tail - r->submitted >= ENTRIES)
		enter(r, 0);
	struct io_uring_sqe *s = &r->sqes[r->tail++ & r->sq_mask];
	memset(s, 0, sizeof *s);
	s->opcode = op;
	s->fd = fd;
	s->user_data = (uintptr_t)owner | kind;
	return s;
}

static void arm_accept(struct ring *r)
{
	struct io_uring_sqe *s = sqe(r, IORING_OP_ACCEPT, r->lfd, NULL, ACCEPT);
	s->ioprio = IORING_ACCEPT_MULTISHOT;
	s->accept_flags = SOCK_CLOEXEC;
}

static void arm_recv(struct ring *r, struct conn *c)
{
	struct io_uring_sqe *s = sqe(r, IORING_OP_RECV, c->fd, c, RECV);
	s->ioprio = IORING_RECV_MULTISHOT;
	s->flags = IOSQE_BUFFER_SELECT;
	s->buf_group = GROUP;
	c->receiving = 1;
}

static void send_head(struct ring *r, struct conn *c)
{
	struct io_uring_sqe *s = sqe(r, IORING_OP_SEND, c->fd, c, SEND);
	s->addr = (uintptr_t)(r->mem + (size_t)c->head * stride);
	s->len = r->len[c->head];
	s->msg_flags = MSG_WAITALL | MSG_NOSIGNAL; // the kernel sends the rest
}

static void give_back(struct ring *r, int bid)
{
	struct io_uring_buf *b = &r->br->bufs[r->br_tail++ & (bufs - 1)];
	b->addr = (uintptr_t)(r->mem + (size_t)bid * stride);
	b->len = bufsize;
	b->bid = bid;
	__atomic_store_n(&r->br->tail, r->br_tail, __ATOMIC_RELEASE);
	struct conn *c = r->starved;
	if (c) {
		r->starved = c->next_starved;
		c->starved = 0;
		arm_recv(r, c);
	}
}

// settle frees a connection once nothing of it is in the kernel.
static void settle(struct ring *r, struct conn *c)
{
	if (!c->dead || c->receiving || c->starved || c->head >= 0)
		return;
	(void)r;
	close(c->fd);
	free(c);
}

static void on_recv(struct ring *r, struct conn *c, struct io_uring_cqe *e)
{
	c->receiving = (e->flags & IORING_CQE_F_MORE) != 0;
	if (e->res > 0) {
		int bid = e->flags >> IORING_CQE_BUFFER_SHIFT;
		if (c->dead) {
			give_back(r, bid);
		} else {
			r->len[bid] = e->res;
			r->next[bid] = -1;
			if (c->head < 0) {
				c->head = c->tail = bid;
				send_head(r, c);
			} else {
				r->next[c->tail] = bid;
				c->tail = bid;
			}
		}
		if (!c->receiving)
			arm_recv(r, c);
	} else if (e->res == -ENOBUFS && !c->dead) {
		c->starved = 1;
		c->next_starved = r->starved;
		r->starved = c;
	} else if (!c->receiving) {
		c->dead = 1;
	}
	settle(r, c);
}

static void on_send(struct ring *r, struct conn *c, struct io_uring_cqe *e)
{
	int bid = c->head, failed = e->res < r->len[bid];
	c->head = r->next[bid];
	give_back(r, bid);
	if (failed) {
		c->dead = 1;
		shutdown(c->fd, SHUT_RDWR); // ends the receive
		while (c->head >= 0) {
			bid = c->head;
			c->head = r->next[bid];
			give_back(r, bid);
		}
	} else if (c->head >= 0) {
		send_head(r, c);
	}
	settle(r, c);
}

static void on_accept(struct ring *r, struct io_uring_cqe *e)
{
	if (!(e->flags & IORING_CQE_F_MORE))
		arm_accept(r);
	if (e->res < 0)
		return;
	nodelay(e->res);
	struct conn *c = calloc(1, sizeof *c);
	if (!c)
		die("calloc");
	c->fd = e->res;
	c->head = c->tail = -1;
	arm_recv(r, c);
}

static void setup(struct ring *r)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = CQES,
	};
	r->fd = syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (r->fd < 0)
		die("io_uring_setup");
	size_t sz = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	size_t csz = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *rings = mmap(NULL, sz > csz ? sz : csz, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof *r->sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	if (rings == MAP_FAILED || r->sqes == MAP_FAILED)
		die("mmap");
	r->sq_tail = (unsigned *)(rings + p.sq_off.tail);
	r->sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
	r->cq_head = (unsigned *)(rings + p.cq_off.head);
	r->cq_tail = (unsigned *)(rings + p.cq_off.tail);
	r->cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
	unsigned *array = (unsigned *)(rings + p.sq_off.array);
	for (unsigned i = 0; i < p.sq_entries; i++)
		array[i] = i;

	r->br = mmap(NULL, bufs * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE | MAP_POPULATE, -1, 0);
	r->mem = mmap(NULL, (size_t)bufs * stride, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (r->br == MAP_FAILED || r->mem == MAP_FAILED)
		die("mmap");
	struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)r->br, .ring_entries = bufs, .bgid = GROUP};
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0)
		die("IORING_REGISTER_PBUF_RING");
	for (unsigned i = 0; i < bufs; i++)
		give_back(r, i);
}

static void *loop(void *arg)
{
	struct ring *r = calloc(1, sizeof *r);
	if (!r)
		die("calloc");
	r->lfd = (int)(long)arg;
	setup(r);
	arm_accept(r);
	for (;;) {
		enter(r, 1);
		unsigned head = *r->cq_head, tail = __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE);
		for (; head != tail; head++) {
			struct io_uring_cqe e = r->cqes[head & r->cq_mask];
			struct conn *c = (struct conn *)(uintptr_t)(e.user_data & ~7ull);
			switch (e.user_data & 7) {
			case ACCEPT: on_accept(r, &e); break;
			case RECV: on_recv(r, c, &e); break;
			case SEND: on_send(r, c, &e); break;
			}
		}
		__atomic_store_n(r->cq_head, head, __ATOMIC_RELEASE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: uring ADDR LOOPS BUFSIZE\n");
		return 2;
	}
	bufsize = atoi(argv[3]) < 16384 ? 16384 : 65536;
	bufs = MEMORY / bufsize;
	stride = bufsize + 64; // so that small messages do not share cache sets
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in sa = parse(argv[1]);
	int loops = atoi(argv[2]), lfd = listen_on(&sa, 0);
	for (int i = 1; i < loops; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, loop, (void *)(long)listen_on(&sa, 0)))
			die("pthread_create");
	}
	ready(&sa);
	loop((void *)(long)lfd);
}
