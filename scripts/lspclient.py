"""Talks to a language server as an editor does: lspclient.py COMMAND [ARG...] starts it, opens
a long document, asks about it, and prints the answers. It ends with the server's exit code."""

import json
import subprocess
import sys

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
TEXT = "".join(f'def function_{i}(argument):\n    """Number {i}."""\n    return argument + {i}\n\n\n' for i in range(400))
URI = "file:///tmp/weir-lsp/document.py"


def send(**message):
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    server.stdin.flush()


def receive():
    length = 0
    while (line := server.stdout.readline()) != b"\r\n":
        if not line:
            sys.exit("the server has ended")
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(server.stdout.read(length))


asked = 0


def ask(method, **params):
    """Prints the answer to a request; what comes besides is dropped."""
    global asked
    asked += 1
    send(id=asked, method=method, params=params)
    while (message := receive()).get("id") != asked or "method" in message:
        if "method" in message and "id" in message:  # the server asks
            send(id=message["id"], result=None)
    print(method, json.dumps(message.get("result"), sort_keys=True), message.get("error"))


ask("initialize", processId=None, rootUri=None, capabilities={})
send(method="initialized", params={})
send(method="textDocument/didOpen", params={"textDocument": {"uri": URI, "languageId": "python", "version": 1, "text": TEXT}})
document = {"uri": URI}
ask("textDocument/documentSymbol", textDocument=document)
ask("textDocument/hover", textDocument=document, position={"line": 10, "character": 6})
ask("textDocument/definition", textDocument=document, position={"line": 5, "character": 6})
ask("shutdown")
send(method="exit")
server.stdin.close()
sys.exit(server.wait())
