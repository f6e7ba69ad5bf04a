#include "multi.h"
#include "_cgo_export.h"

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *handle, void *unused)
{
	(void)easy;
	(void)unused;
	weirCurlSocket((uintptr_t)handle, fd, what);
	return 0;
}

static int on_timer(CURLM *m, long ms, void *handle)
{
	(void)m;
	weirCurlTimer((uintptr_t)handle, ms);
	return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *handle)
{
	return weirCurlBody((uintptr_t)handle, p, size * n) ? size * n : 0;
}

CURLM *weir_multi_new(uintptr_t handle)
{
	CURLM *m = curl_multi_init();
	if (!m)
		return NULL;
	curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(m, CURLMOPT_SOCKETDATA, (void *)handle);
	curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(m, CURLMOPT_TIMERDATA, (void *)handle);
	return m;
}

CURL *weir_easy_new(const char *url, uintptr_t handle)
{
	CURL *e = curl_easy_init();
	if (!e)
		return NULL;
	curl_easy_setopt(e, CURLOPT_URL, url); /* copied */
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, (void *)handle);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L); /* signals belong to Go */
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	return e;
}

int weir_next_done(CURLM *m, CURL **easy, CURLcode *code)
{
	int left;
	CURLMsg *msg;
	while ((msg = curl_multi_info_read(m, &left))) {
		if (msg->msg == CURLMSG_DONE) {
			*easy = msg->easy_handle;
			*code = msg->data.result;
			return 1;
		}
	}
	return 0;
}

long weir_easy_status(CURL *easy)
{
	long status = 0;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}
