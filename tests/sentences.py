"""Small parallel sentences with translations of two qualities, for tests of quality."""

SOURCES = [f"ein Hund läuft schnell nach Haus {n} ." for n in range(40)]
REFERENCES = [f"a dog runs quickly to the house {n} ." for n in range(40)]
GOOD = [text.replace("quickly", "fast") if n % 3 else text for n, text in enumerate(REFERENCES)]
POOR = [text.replace("runs quickly", "is") if n % 2 else text for n, text in enumerate(REFERENCES)]
