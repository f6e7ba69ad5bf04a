#include "parser.h"
#include "_cgo_export.h"

static void start(void *handle, const XML_Char *name, const XML_Char **attributes)
{
	weirXMLStart((uintptr_t)handle, (char *)name, (char **)attributes);
}

static void end(void *handle, const XML_Char *name) { weirXMLEnd((uintptr_t)handle, (char *)name); }

static void text(void *handle, const XML_Char *s, int n) { weirXMLText((uintptr_t)handle, (char *)s, n); }

/* A document type can define entities that grow without bound, and name files. */
static void doctype(void *handle, const XML_Char *name, const XML_Char *system, const XML_Char *public, int internal)
{
	(void)name;
	(void)system;
	(void)public;
	(void)internal;
	weirXMLDoctype((uintptr_t)handle);
}

XML_Parser weir_parser_new(uintptr_t handle)
{
	XML_Parser p = XML_ParserCreate(NULL);
	if (!p)
		return NULL;
	XML_SetUserData(p, (void *)handle);
	XML_SetElementHandler(p, start, end);
	XML_SetCharacterDataHandler(p, text);
	XML_SetStartDoctypeDeclHandler(p, doctype);
	return p;
}
