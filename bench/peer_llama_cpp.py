"""One measurement of llama.cpp or ik_llama.cpp, printed as one line of JSON with the keys of `rustorch-cli bench --json`.

`cargo xtask bench` runs this with a Python that has the package: llama_cpp (llama-cpp-python) or ik_llama_cpp (ik-llama-cpp-python).
Nothing is sampled and ids are arbitrary, as in our own measurement; the lowest layer of the package is used, so that no
Python runs between two passes but the loop itself. Each engine gets what its authors recommend on a CPU: flash attention, and for
ik_llama.cpp huge pages and weights repacked while loading (--no-repack leaves them as they are).
"""

import argparse
import importlib
import json
import resource
import sys
import time

CHUNK = 512  # rows of a prefill pass
MARGIN = 64  # cells of the cache beyond what is asked for


class Session:
    """A model, its context, and a batch to fill."""

    def __init__(self, package, path, threads, cells, sequences, repack):
        self.api = importlib.import_module({"llama_cpp": "llama_cpp", "ik_llama_cpp": "ik_llama_cpp._ctypes_api"}[package])
        self.api.llama_backend_init()
        begin = time.perf_counter()
        model_params = self.api.llama_model_default_params()
        model_params.n_gpu_layers = 0
        if package == "ik_llama_cpp":
            model_params.use_mmap = False
            model_params.use_thp = True
            model_params.repack_tensors = repack
        self.model = self.api.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            sys.exit(f"{package} cannot load the model")
        params = self.api.llama_context_default_params()
        params.n_ctx = cells * sequences
        params.n_batch = 2048
        params.n_ubatch = CHUNK
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = sequences
        if package == "ik_llama_cpp":
            params.flash_attn = True
        else:
            params.flash_attn_type = 1
        self.context = self.api.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"{package} cannot make a context")
        self.load_s = time.perf_counter() - begin
        self.n_vocab = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        self.batch = self.api.llama_batch_init(2048, 0, 1)

    def token(self, sequence, position):
        return (sequence * 7919 + position * 104729 + 1) % self.n_vocab

    def forget(self):
        if hasattr(self.api, "llama_memory_clear"):
            self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        else:
            self.api.llama_kv_cache_clear(self.context)

    def run(self, rows, every):
        """Computes rows of (sequence, position); logits for each of them if `every`, else for the last."""
        self.batch.n_tokens = len(rows)
        for at, (sequence, position) in enumerate(rows):
            self.batch.token[at] = self.token(sequence, position)
            self.batch.pos[at] = position
            self.batch.n_seq_id[at] = 1
            self.batch.seq_id[at][0] = sequence
            self.batch.logits[at] = every or at == len(rows) - 1
        code = self.api.llama_decode(self.context, self.batch)
        if code:
            sys.exit(f"llama_decode answers {code}")
        # Passes are computed when their logits are read.
        self.api.llama_get_logits_ith(self.context, len(rows) - 1)

    def prefill(self, sequence, n):
        for begin in range(0, n, 2048):
            self.run([(sequence, at) for at in range(begin, min(n, begin + 2048))], False)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--package", choices=["llama_cpp", "ik_llama_cpp"], required=True)
    arguments.add_argument("--no-repack", action="store_true")
    arguments.add_argument("--model", required=True)
    for name in ("threads", "prompt", "gen", "depth", "parallel"):
        arguments.add_argument(f"--{name}", type=int, required=True)
    a = arguments.parse_args()
    session = Session(a.package, a.model, a.threads, max(a.prompt, a.depth + a.gen) + MARGIN, a.parallel, not a.no_repack)
    result = {"load_s": session.load_s}
    session.prefill(0, 16)  # settles what a first pass sets up
    session.run([(0, 16)], False)
    if a.prompt:
        session.forget()
        begin = time.perf_counter()
        session.prefill(0, a.prompt)
        result["prefill_tps"] = a.prompt / (time.perf_counter() - begin)
    if a.gen:
        session.forget()
        for sequence in range(a.parallel):
            session.prefill(sequence, a.depth)
        # The first position may be 0, as ours is.
        begin = time.perf_counter()
        for position in range(a.depth, a.depth + a.gen):
            session.run([(sequence, position) for sequence in range(a.parallel)], True)
        result["decode_tps"] = a.parallel * a.gen / (time.perf_counter() - begin)
    unit = 1 if sys.platform == "darwin" else 1024
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    result["version"] = importlib.import_module(a.package).__version__
    print(json.dumps(result))


main()
