#pragma once

#include <curl/curl.h>
#include <stdint.h>

CURLM *weir_multi_new(uintptr_t handle);
CURL *weir_easy_new(const char *url, uintptr_t handle);
int weir_next_done(CURLM *m, CURL **easy, CURLcode *code);
long weir_easy_status(CURL *easy);
