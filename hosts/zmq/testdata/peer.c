/* The other end, written as libzmq's own examples are: it blocks. "push ENDPOINT N" sends N
 * messages, "echo ENDPOINT N" is asked by N messages of a ROUTER and sends each back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int push = strcmp(argv[1], "push") == 0, n = atoi(argv[3]);
	void *ctx = zmq_ctx_new();
	void *s = zmq_socket(ctx, push ? ZMQ_PUSH : ZMQ_DEALER);
	if (zmq_connect(s, argv[2]) != 0)
		return 1;
	for (int i = 0; i < n; i++) {
		char b[64];
		int len = sprintf(b, "message %d", i);
		if (push) {
			if (zmq_send(s, b, len, 0) != len)
				return 1;
			continue;
		}
		/* Up to 100 questions are on their way. */
		if (zmq_send(s, b, len, ZMQ_SNDMORE) != len || zmq_send(s, "second", 6, 0) != 6)
			return 1;
		if (i < 100)
			continue;
		int want = sprintf(b, "message %d", i - 100);
		char got[64];
		if (zmq_recv(s, got, sizeof got, 0) != want || memcmp(got, b, want) != 0 || zmq_recv(s, got, sizeof got, 0) != 6)
			return 1;
	}
	zmq_close(s);
	zmq_ctx_term(ctx);
	printf("done\n");
	return 0;
}
