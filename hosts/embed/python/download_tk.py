"""A Tk window downloads over weir: python3 download_tk.py -url http://127.0.0.1:8000/1000000"""

import sys
import time
import tkinter
from tkinter import ttk

import fetch
import weir

flags = fetch.flags()
root = tkinter.Tk()
root.title("weir in Tk")
guest = weir.Tk(flags.library, root)
ticks = fetch.Ticks()
button = ttk.Button(root, text="Download")
bar = ttk.Progressbar(root, length=380, maximum=1000)
label = ttk.Label(root, text="Nothing has been downloaded.")
for widget in button, bar, label:
    widget.pack(padx=16, pady=8, fill="x")
state = {"began": 0.0, "ticking": None, "shown": 0.0, "draws": 0}


def tick():
    ticks.tick()
    state["ticking"] = root.after(16, tick)


def progress(f):
    if time.monotonic() - state["shown"] > 1 / 30:
        state["shown"] = time.monotonic()
        bar["value"] = 1000 * f.got / max(f.total, 1)
        label["text"] = f"{f.got >> 20} of {f.total >> 20} MiB"
        root.after_idle(drawn)  # when Tk redraws, too


def drawn():
    state["draws"] += 1


def done(f, reason):
    button["state"] = "normal"
    if reason is not None:
        label["text"] = reason
        print("failed", reason, flush=True)
        return
    bar["value"] = 1000
    label["text"] = f"{f.got >> 20} MiB"
    fetch.report(f, state["began"], ticks, f" draws={state['draws']}")
    if flags.idle:
        root.after_cancel(state["ticking"])
        root.after(500, rest)


def rest():
    print("idle", flush=True)
    root.after(int(flags.idle * 1000), root.destroy)


def begin():
    button["state"] = "disabled"
    ticks.report("alone")
    state["began"] = time.monotonic()
    f = fetch.Fetch(flags.url, progress, done)
    guest.connect(f.endpoint, f)


def close(event):
    if event.widget is root:
        guest.close()  # while Tk can still forget the descriptor


button["command"] = begin
root.bind("<Destroy>", close)
tick()
if flags.alone:
    root.after(int(flags.alone * 1000), button.invoke)
root.mainloop()
print("closed")
