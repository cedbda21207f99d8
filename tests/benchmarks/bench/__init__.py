"""The benchmarks: how fast, how busy and in how little memory, against the article's way and stock's.

What is measured, and how:

* **Wall time** (``harness.py``): from before the decode to complete, closed files, the device synchronised at both
  ends. The arms of a case (``arms.py``) share one model and one frozen latent and run in alternating order, after a
  warm-up of each that also hashes the frames it makes: no hash, no comparison, no clean-up is timed.
* **Utilisation** (``profile.py``): a separate run under torch.profiler, because CUPTI slows launches. The union of the
  kernels' intervals, copies left out, over the time from the first kernel to the last.
* **Memory** (``memory.py``): a fresh process for each number.
* **Decoder settings** (``variants.py``): a fresh process for each, because cuDNN keeps the plans that it chose.
* **The host's part alone** (``host.py``): the pipeline without a decoder, and each sink, beside stock's way.

This package may import all of the engine; nothing imports it but the command line and the tests.
"""
