"""What the words in the figures of `python -m benchmarks adapt` mean; they stand beside every
report."""

DEFINITIONS = {
    "adapt": "K gradient steps on the MSE of S pairs from one θ to θ′ of every stream: "
    "f(x) = W2·tanh(W1·x + b1) + b2, a rate per step and tensor; float32, no padding",
    "gradient": "the gradient of the mean query MSE at θ′ by θ and by rates, exact second order, "
    "over all streams; Q query pairs each",
    "loop": "autograd written by hand, one stream after another",
    "higher": "a monkey-patched module and its SGD, one stream after another",
    "torchopt": "torch.func, with torchopt's functional SGD",
    "torch.func": "vmap over a loop of grad; the outer gradient by torch.autograd over it",
    "jax": "jit of vmap over a loop of grad; compiled before the clock starts",
    "jax chunked": "the same a few streams at a time (lax.map, or a scan that adds gradients up), "
    "whose weights then stay in cache: tuned by us for the CPU, no library's documented form",
    "materialised": "ours: all streams' weights in one batch, gradients derived by hand",
    "hidden": "ours: descent in hidden space from raw pairs, 32 streams at a time. Its result is "
    "θ′ − θ in factors, which are published as `lowrank`; no weight of θ′ is written out",
    "hidden cached": "the same from projections and Grams of the pairs, which the daemon makes "
    "once, when a pair arrives",
    "..., steps": "the same without the products that make the factors: all that judging on a "
    "query needs, and so what a turn does for a stream that it does not publish",
    "..., weights": "the same, and then multiplied out to the weights of every stream, which is "
    "what everyone else's result is (`full`)",
    "streams_per_s": "by the clock",
    "streams_per_cpu_s": "by the process's CPU time: the figure to compare on a machine with "
    "other work",
    "streams_in_a_run": "how many streams one run adapts. One-after-another contenders are timed "
    "on as many as fit the time of a turn: their time per stream does not depend on how many",
    "over": "ours over theirs in `compared_by`, by peer; each turn with the same turn of theirs. "
    "Who takes over a second for a run has one turn: the run that is compared",
    "over_fastest": "ours over the fastest peer's (by its median), of all; over_documented: of "
    "all but `jax chunked`",
    "disagreement": "the largest difference from float64's θ′ (or gradient), tensor by tensor, "
    "beside the tensor's largest number; of θ′ of 8 streams at most, from the first to the last",
    "refused": "why a contender has no figures: not installed, too much memory, a wrong result",
}
