"""One measurement, in a process of its own: reads an order, says when it is warm, prints a cost."""

import json
import sys

from benchmarks.measuring import COST, READY, Call


def main() -> None:
    """Run the call that the first line of standard input describes; begin at the second."""
    order = json.loads(sys.stdin.readline())
    call = Call(order["function"], order["arguments"], order["threads"])

    def start() -> None:
        print(READY, flush=True)
        if not sys.stdin.readline():
            sys.exit("the benchmark that started this process is gone")

    cost = call.resolve()(start, order["seconds"], **call.arguments)
    print(f"{COST}{cost!r}", flush=True)


if __name__ == "__main__":
    main()
