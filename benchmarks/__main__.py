"""`make bench`: every benchmark, one after the other."""

from benchmarks import kernels, tokenizer_determinism

if __name__ == "__main__":
    kernels.main()
    tokenizer_determinism.main()
