"""asyncio downloads over weir: python3 download_asyncio.py -url http://127.0.0.1:8000/1000000"""

import asyncio
import sys
import time

import fetch
import weir


async def main(flags):
    guest = weir.Asyncio(flags.library)
    ticks = fetch.Ticks()

    async def ticking():
        due = time.monotonic()
        while True:
            due = max(due + 0.016, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            ticks.tick()

    ticker = asyncio.create_task(ticking())
    await asyncio.sleep(flags.alone)
    ticks.report("alone")
    began = time.monotonic()
    done = asyncio.get_running_loop().create_future()
    f = fetch.Fetch(flags.url, lambda f: None, lambda f, reason: done.set_result(reason))
    guest.connect(f.endpoint, f)
    reason = await done
    if reason is not None:
        sys.exit(f"failed {reason}")
    fetch.report(f, began, ticks)
    ticker.cancel()
    if flags.idle:
        await asyncio.sleep(0)
        print("idle", flush=True)
        await asyncio.sleep(flags.idle)
    guest.close()


asyncio.run(main(fetch.flags()))
print("closed")
