"""Count the faults that the suite injects: `python -m tests.faults.report [--quick] [--write]`.

Runs the fault suite and prints one row for each kind of fault with the number injected. Any failing
test fails the command. `--write` keeps the table in docs/RELIABILITY.md.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- counts: begin -->\n", "<!-- counts: end -->\n"


class Counting:
    """Sums what the tests say they injected; works with pytest-xdist too."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == "injected":
                    kind, number = value
                    self.counts[kind] += number


def table(counts: Counter[str]) -> str:
    """Return the sums as Markdown."""
    rows = [f"| {kind} | {number:,} |" for kind, number in sorted(counts.items())]
    return "\n".join(["| injected | times |", "|---|---:|", *rows, ""])


def main(words: list[str]) -> int:
    """Run the suite, print the sums, and keep them where asked to."""
    counting = Counting()
    chosen = ["-m", "not slow"] if "--quick" in words else []
    folder = str(Path(__file__).parent)
    code = pytest.main(["-q", "-n", "2", *chosen, folder], plugins=[counting])
    text = f"{'The quick part' if chosen else 'All of it'}:\n\n{table(counting.counts)}"
    print(text)
    if code == 0 and "--write" in words:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + BEGIN + text + END + after, encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
